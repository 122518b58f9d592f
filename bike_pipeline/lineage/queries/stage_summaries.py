"""What came out of a stage, in a few words, read from its output artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.store.metadata_store import LAST_STAGE, Lineage, prop
from bike_pipeline.run_events import RunResult, StageResult
from bike_pipeline.stages import Stage

Outputs = dict[str, list[pb.Artifact]]


def _examples(outputs: Outputs) -> str:
    artifact = outputs["examples"][0]
    rows = json.loads(prop(artifact, "rows_by_split"))
    counts = ", ".join(f"{count:,} {split}" for split, count in rows.items() if count)
    return f"span {prop(artifact, 'span')} version {prop(artifact, 'version')}: {counts} rows"


def _with_warnings(count: int | None) -> str:
    return f" with {count} warning{'s' if count > 1 else ''}" if count else ""


def _validator(outputs: Outputs) -> str:
    blessed = prop(outputs["anomalies"][0], "blessed")
    splits = dict(blessed) if blessed is not None else {}
    anomalous = [split for split, good in splits.items() if not good]
    return f"anomalies in {', '.join(anomalous)}" if anomalous else "no anomalies"


def _evaluation(outputs: Outputs) -> str:
    evaluation, blessing = outputs["evaluation"][0], outputs["blessing"][0]
    verdict = "blessed" if prop(blessing, "blessed") == 1 else "NOT blessed"
    errors = {name: prop(evaluation, f"metric_{name.lower()}") for name in ("MAE", "RMSE")}
    said = [f"{name} {'not a number' if value is None else f'{value:.1f}'}" for name, value in errors.items()]
    return f"{', '.join(said)}: {verdict}{_with_warnings(prop(evaluation, 'warnings'))}"


def _push(outputs: Outputs) -> str:
    pushed = outputs["pushed_model"][0]
    if prop(pushed, "pushed") != 1:
        return "nothing pushed"
    notes = [prop(pushed, name) for name in ("signature", "promotion")]
    return ", ".join([f"version {prop(pushed, 'pushed_version')}", *(str(text) for text in notes if text)])


def _model(outputs: Outputs) -> str:
    folder = Path(outputs["model"][0].uri) / "Format-Serving"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"model of {size / 1024:,.0f} kB"


_SUMMARIES: dict[str, Callable[[Outputs], str]] = {
    Stage.EXAMPLE_GEN: _examples,
    Stage.EXAMPLE_VALIDATOR: _validator,
    Stage.DATA_GATE: lambda outputs: f"passed{_with_warnings(prop(outputs['report'][0], 'warnings'))}",
    Stage.TRAINER: _model,
    Stage.BASELINE_LOOKUP: lambda outputs: str(prop(outputs["baseline_model"][0], "reason")),
    Stage.WARM_START_LOOKUP: lambda outputs: str(prop(outputs["baseline_model"][0], "reason")),
    Stage.EVALUATOR: _evaluation,
    Stage.EXPORTER: lambda outputs: str(prop(outputs["exports"][0], "formats") or ""),
    Stage.PUSHER: _push,
}


def stage_summary(stage: str, outputs: Outputs) -> str:
    """Return what came out of a stage; "" if there is nothing to say beyond that it is done."""
    return _SUMMARIES[stage](outputs) if stage in _SUMMARIES and outputs else ""


def run_result(
    lineage: Lineage, run_id: str, stages: Sequence[StageResult], path_of: Callable[[str], str] = str
) -> RunResult:
    """Return what a run came to, whose every stage has ended well; `path_of` tells where a URI is seen from here."""
    by_name = {stage.name: stage for stage in stages}
    pushed = lineage.outputs(by_name[LAST_STAGE].execution_id)["pushed_model"][0]
    evaluation = lineage.outputs(by_name[Stage.EVALUATOR].execution_id)["evaluation"][0]
    decisions = json.loads((Path(path_of(evaluation.uri)) / "decisions.json").read_text(encoding="utf-8"))
    was_pushed = prop(pushed, "pushed") == 1
    return RunResult(
        run_id=run_id,
        stages=tuple(stages),
        pushed_version=int(prop(pushed, "pushed_version")) if was_pushed else None,
        newly_pushed=was_pushed and by_name[LAST_STAGE].state == "done",
        decisions=decisions,
        destination=str(prop(pushed, "pushed_destination")) if was_pushed else "",
    )
