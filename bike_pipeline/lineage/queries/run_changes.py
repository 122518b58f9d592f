"""Why each stage of a run ran or was answered from the cache: what differs from the run before."""

from __future__ import annotations

from dataclasses import dataclass

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.queries.evidence import baseline_of
from bike_pipeline.lineage.records.run_record import RunSource, flat
from bike_pipeline.lineage.store.entities import RunRecord, StageRecord
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.settings import load_settings
from bike_pipeline.stages import Stage

# What a changed parameter of a stage means to a person.
_MEANINGS = {
    "source_hash": "its code",
    "schema_sha256": "the curated schema",
    "custom_config": "the training settings or the seed",
    "tuning": "the settings of the search",
    "training": "the training settings",
    "evaluation": "the evaluation's thresholds",
    "eval_config": "the evaluation's thresholds",
    "metric_set": "what is measured",
    "gate": "the gate's settings",
    "baseline": "the model that serves",
    "lost_pushes": "files of an earlier push are gone or changed",
    "accept_baseline_reset": "whether a reset of the baseline is accepted",
    "window": "the data",
    "span": "the data",
    "version": "the data",
    "input_fingerprint": "the data",
    "window_spans": "how many spans are read",
    "window_days": "how many days are read",
}


@dataclass(frozen=True)
class StageExplanation(StageRecord):
    """Why a stage did what it did."""

    why: str


@dataclass(frozen=True)
class SettingChange:
    """A setting that differs from its default in this release, or from the run before; "" for one that is not there.

    `name` is dotted; `before` is None if the run before is not on record.
    """

    name: str
    value: str
    default: str
    before: str | None


def setting_changes(source: RunSource | None, before: RunSource | None) -> list[SettingChange]:
    """Return the settings of a run that differ from the defaults or from those of the run before."""
    if source is None or not source.settings:
        return []
    now, defaults = flat(source.settings), flat(load_settings().model_dump(mode="json"))
    earlier = flat(before.settings) if before is not None and before.settings else None
    found = []
    for name in dict.fromkeys((*now, *defaults, *(earlier or ()))):
        value, default = now.get(name, ""), defaults.get(name, "")
        was = None if earlier is None else earlier.get(name, "")
        if value != default or was not in (None, value):
            found.append(SettingChange(name, value, default, was))
    return found


def previous_run(lineage: Lineage, runs: list[RunRecord], run: RunRecord) -> RunRecord | None:
    """Return the run before `run` that wrote to the same place; workspaces may share a store."""
    root = _root(lineage, run)
    for earlier in reversed(runs[: runs.index(run)]):
        if not root or _root(lineage, earlier) in ("", root):
            return earlier
    return None


def _root(lineage: Lineage, run: RunRecord) -> str:
    outputs = (found[0] for stage in run.stages for found in lineage.outputs(stage.execution_id).values())
    # <root>/<stage>/<key>/<number>
    return next((str(artifact.uri).rsplit("/", 3)[0] for artifact in outputs), "")


def explain_stages(lineage: Lineage, run: RunRecord, before: RunRecord | None) -> list[StageExplanation]:
    """Return why every stage of a run did what it did, in order; `before` is None for the first run."""
    earlier = {stage.name: stage.execution_id for stage in before.stages} if before else {}
    found = []
    for stage in run.stages:
        if stage.state == "cached":
            made = _answered_from(lineage, stage.execution_id)
            why = f"the same code, settings and inputs as in run {(made and lineage.run_of(made.id)) or 'before'}"
        elif before is None:
            why = "the first run: there was nothing to answer it from"
        elif stage.name not in earlier:
            why = f"run {before.run_id} did not come to this stage"
        else:
            why = _difference(lineage, stage.execution_id, earlier[stage.name])
        found.append(StageExplanation(**vars(stage), why=why))
    return found


def _answered_from(lineage: Lineage, execution_id: int) -> pb.Execution | None:
    """Return the execution that made the outputs of one that the cache answered."""
    producers = (lineage.producer(listed[0].id) for listed in lineage.outputs(execution_id).values())
    return next(filter(None, producers), None)


def _difference(lineage: Lineage, now_id: int, before_id: int) -> str:
    now, before = (lineage.execution(i) for i in (now_id, before_id))
    if before.last_known_state not in (pb.Execution.COMPLETE, pb.Execution.CACHED):
        return "it did not end well in the run before"
    if before.last_known_state == pb.Execution.CACHED:
        # An answer from the cache has none of what its driver found out; that is on record where it was made.
        before = _answered_from(lineage, before_id) or before
    # What a run itself writes beside its parameters.
    names = sorted({*now.custom_properties, *before.custom_properties} - {"error"})
    known = [name for name in names if prop(now, name) is not None and prop(before, name) is not None]
    changed = {_meaning(name, now) for name in known if prop(now, name) != prop(before, name)}
    inputs, others = lineage.inputs(now_id), lineage.inputs(before_id)
    for key in sorted({*inputs, *others}):
        if [a.id for a in inputs.get(key, [])] != [a.id for a in others.get(key, [])]:
            changed.add(_named(key, inputs.get(key, [])))
    if not changed and len(known) < len(names):
        return "what changed is not known: not all of the run before is on record"
    if not changed:
        return "nothing had changed: it was run all the same (`--no-cache`, or its earlier result was gone)"
    return f"changed since the run before: {', '.join(sorted(changed))}"


def _meaning(name: str, now: pb.Execution) -> str:
    if name == "lost_pushes" and not prop(now, name):
        return "files of an earlier push are there again"
    return _MEANINGS.get(name, f"its parameter {name}")


def _named(key: str, artifacts: list[pb.Artifact]) -> str:
    if key == "examples" and artifacts:
        return f"the examples (now span {prop(artifacts[0], 'span')} version {prop(artifacts[0], 'version')})"
    return f"the {key.replace('_', ' ')}"


def baseline_examples(lineage: Lineage, run: RunRecord) -> pb.Artifact | None:
    """Return the examples that the baseline of a run was trained on; None if there was no baseline."""
    lookup = next((stage.execution_id for stage in run.stages if stage.name == Stage.BASELINE_LOOKUP), None)
    baseline = baseline_of(lineage.execution(lookup)) if lookup is not None else {}
    return lineage.trained_on(int(baseline["model_id"])) if baseline else None
