"""Whether everything that made a model is at hand, hash by hash, and the scratch root that it is made again in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.train import reproduce_command
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import StageError, VerificationError
from bike_pipeline.lineage.queries.evidence import evidence_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_facts import training_facts
from bike_pipeline.lineage.queries.reproducibility import Match, Origin, matches, origin_of, scratch_settings
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import ModelRegistry, layout
from bike_pipeline.settings import PROJECT_ROOT, Settings, load_settings
from tests.lineage.world import FIRST, SECOND, Runs

IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Two runs, the first one's model in the serving folder."""
    return Runs(tmp_path / "w").two()


def origin(runs: Runs, number: int = 1) -> Origin:
    lineage = Lineage(runs.recorder.store)
    return origin_of(History(lineage), runs.models[number].id)


def differing(runs: Runs, made: Origin, project: Path = PROJECT_ROOT) -> dict[str, Match]:
    return {f"{m.part} {m.name}": m for m in matches(made, runs.settings.store_uri, project) if not m.same}


def with_baseline(runs: Runs) -> tuple[Origin, Path]:
    """Return the second model's origin with the first one's push as its baseline, and the folder of that push."""
    trained = Path(runs.models[0].uri) / "Format-Serving"
    trained.mkdir()
    (trained / "saved_model.pb").write_bytes(b"graph")
    record = {"model_id": runs.models[0].id, "model_uri": runs.models[0].uri, "metric_set": "m", "pushed_at_ms": 1}
    registry = ModelRegistry(runs.settings.serving_path)
    folder = Path(registry.add(trained, FIRST, {**record, "fingerprint": layout.fingerprint(trained)}))
    baseline = {"version": FIRST, "destination": str(folder), "fingerprint": layout.fingerprint(folder)}
    runs.recorder.execution("BaselineLookup", "run-2", {"model": runs.models[1]}, baseline=json.dumps(baseline))
    return origin(runs), folder


def test_nothing_has_changed(runs: Runs) -> None:
    made = origin(runs)
    assert differing(runs, made) == {}
    parts = [match.part for match in matches(made, runs.settings.store_uri)]
    assert parts == ["code", "settings", "schema", "environment", "data", "data"]


def test_every_changed_new_and_lost_source_file_is_named(runs: Runs, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for room in ("bike_pipeline", "runners", "configs"):
        shutil.copytree(
            PROJECT_ROOT / room, project / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    made = origin(runs)
    assert differing(runs, made, project) == {}
    with (project / "bike_pipeline" / "features.py").open("a", encoding="utf-8") as file:
        file.write("\n")
    (project / "bike_pipeline" / "more.py").write_text("", encoding="utf-8")
    (project / "runners" / "local_runner.py").unlink()
    (project / "configs" / "schema.pbtxt").write_text("", encoding="utf-8")
    found = differing(runs, made, project)
    assert {name: match.detail for name, match in found.items() if match.part == "code"} == {
        "code bike_pipeline/features.py": "was changed",
        "code bike_pipeline/more.py": "was not there then",
        "code runners/local_runner.py": "is not here",
    }
    assert "then" in found["schema configs/schema.pbtxt"].detail
    assert all(match.needed for match in found.values())


def test_another_package_is_told_and_does_not_stop(runs: Runs) -> None:
    made = origin(runs)
    assert made.source is not None
    older = replace(made, source=replace(made.source, environment={**made.source.environment, "keras": "3.0"}))
    found = differing(runs, older)
    assert list(found) == ["environment keras"]
    assert found["environment keras"].detail.startswith("3.0 then")
    assert not found["environment keras"].needed


def test_changed_and_lost_data_are_told_apart(runs: Runs) -> None:
    made = origin(runs)
    data = Path(runs.settings.store_uri) / "span-0001" / "version-0001"
    content = (data / "train" / "data.csv").read_bytes()
    (data / "train" / "data.csv").write_bytes(content.replace(b"0.24", b"0.25", 1))
    assert "SHA-256 is not the manifest's" in differing(runs, made)["data span 1 version 1"].detail
    shutil.rmtree(data)
    assert "no version 1 of span 1" in differing(runs, made)["data span 1 version 1"].detail
    other = replace(made, window=[{**made.window[1], "manifest_sha256": "0" * 64}])
    assert "0000000000000000… then" in differing(runs, other)["data span 2 version 1"].detail


def test_what_is_not_on_record_is_a_difference(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.run("older", (1,), FIRST, record=False)
    made = origin(runs, 0)
    assert differing(runs, made)["record the record of the run"].needed
    with pytest.raises(VerificationError, match="not on record"):
        scratch_settings(made, runs.settings.store_uri, tmp_path / "scratch")


def test_settings_that_were_altered_or_that_this_release_does_not_take(runs: Runs) -> None:
    made = origin(runs)
    assert made.source is not None
    altered = {**made.source.settings, "seed": 3}
    found = differing(runs, replace(made, source=replace(made.source, settings=altered)))
    assert "damaged" in found["settings resolved settings"].detail
    unknown = {**made.source.settings, "nothing": 3}
    found = differing(runs, replace(made, source=replace(made.source, settings=unknown)))
    assert "does not take them" in found["settings resolved settings"].detail


def test_a_lost_baseline_stops_only_a_warm_start(runs: Runs) -> None:
    made, folder = with_baseline(runs)
    assert differing(runs, made) == {}
    (folder / "saved_model.pb").write_bytes(b"other")
    (match,) = differing(runs, made).values()
    assert (match.part, match.needed) == ("baseline", False)
    assert made.source is not None
    training: dict[str, Any] = {**made.source.settings["training"], "warm_start": True}
    warm = replace(made, source=replace(made.source, settings={**made.source.settings, "training": training}))
    assert differing(runs, warm)[f"baseline version {FIRST}"].needed


def test_the_scratch_root_holds_exactly_what_made_the_model(runs: Runs, tmp_path: Path) -> None:
    made, folder = with_baseline(runs)
    scratch = tmp_path / "scratch"
    own = scratch_settings(made, runs.settings.store_uri, scratch)
    for place in (
        own.store_uri,
        own.pipeline_root,
        own.serving_path,
        str(own.metadata_file),
        str(own.signing_key_file),
    ):
        assert Path(place).is_relative_to(scratch)
    # What is made again is for comparing only: no server is told of it.
    assert not own.serving.promotion.automatic
    serving = own.serving.model_copy(update={"promotion": runs.settings.serving.promotion})
    assert own.model_copy(update={"workspace": runs.settings.workspace, "serving": serving}) == runs.settings
    store = SpanStore(own.store_uri)
    assert [(v.span, v.version) for v in store.all_versions()] == [(1, 1), (2, 1)]
    assert store.verify(2, 1).manifest == runs.spans.get(2, 1).manifest
    record = ModelRegistry(own.serving_path).push_record(FIRST)
    assert record is not None
    assert record["model_id"] == -1
    assert record["fingerprint"] == layout.fingerprint(folder)
    # The first model was made of the first span alone.
    alone = scratch_settings(origin(runs, 0), runs.settings.store_uri, tmp_path / "alone")
    assert [(v.span, v.version) for v in SpanStore(alone.store_uri).all_versions()] == [(1, 1)]
    assert not Path(alone.serving_path).exists()


def test_recorded_places_outside_of_the_scratch_root_are_never_written(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "w")
    elsewhere = load_settings(assignments=(
        f"workspace={tmp_path / 'w'}", f"serving.base_path={tmp_path / 'live'}", f"signing.key_file={tmp_path / 'key'}",
        f"data.store={runs.settings.store_uri}",
    ))  # fmt: skip
    runs.run("run-1", (1,), FIRST, settings=elsewhere)
    own = scratch_settings(origin(runs, 0), runs.settings.store_uri, tmp_path / "scratch")
    for place in (own.store_uri, own.serving_path, str(own.signing_key_file), str(own.metadata_file)):
        assert Path(place).is_relative_to(tmp_path / "scratch")


@pytest.mark.parametrize(
    "shared", ["metadata.mysql={host: db.example.com, database: shared}", "metadata.sqlite_file={folder}/shared.sqlite"]
)
def test_records_of_the_scratch_run_stay_in_the_scratch_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    runs = Runs(tmp_path / "w")
    assignment = shared.replace("{folder}", str(tmp_path))
    workspace = f"workspace={runs.workspace}"
    runs.run("run-1", (1,), FIRST, settings=load_settings(assignments=(workspace, assignment)))
    if "sqlite_file" in assignment:
        shutil.copy(runs.settings.metadata_file, tmp_path / "shared.sqlite")
    lineage = Lineage(runs.recorder.store)
    monkeypatch.setattr("bike_pipeline.use_cases.run.lineage_of", lambda *_: lineage)
    given: list[Settings] = []

    class Runner:
        def __init__(self, settings: Settings, *_: object) -> None:
            given.append(settings)

        def run(self, enable_cache: bool) -> None:
            raise StageError("the rest is tested elsewhere")

    monkeypatch.setattr("bike_pipeline.use_cases.run.runner_class", lambda _: Runner)
    scratch = tmp_path / "scratch"
    arguments = ["--scratch", str(scratch), "--set", workspace, "--set", assignment]
    done = CliRunner().invoke(reproduce_command, arguments)
    assert isinstance(done.exception, StageError), done.output
    assert given[0].metadata_address == f"sqlite://{scratch}/metadata.sqlite"


def call(runs: Runs, *arguments: str) -> str:
    done = CliRunner().invoke(reproduce_command, [*arguments, "--set", f"workspace={runs.workspace}"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_the_command_says_what_is_at_hand_and_stops_at_what_is_not(runs: Runs) -> None:
    shown = call(runs, "--check-only")
    assert "✘" not in shown
    assert json.loads(call(runs, "--check-only", "--json", str(FIRST)))["at_hand"] is True
    shutil.rmtree(Path(runs.settings.store_uri) / "span-0002")
    assert json.loads(call(runs, "--check-only", "--json", str(FIRST)))["at_hand"] is True
    for arguments in ((), ("--check-only",), (str(SECOND), "--json")):
        with pytest.raises(VerificationError, match="data: span 2 version 1") as error:
            call(runs, *arguments)
        assert "\n" not in str(error.value)


def test_a_scratch_folder_that_is_in_use_is_refused(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("", encoding="utf-8")
    assert "is not empty" in call(runs, "--scratch", str(tmp_path / "used"))


def test_what_a_search_had_found_is_taken_over_and_not_searched_again(runs: Runs, tmp_path: Path) -> None:
    searching = load_settings(assignments=(f"workspace={runs.workspace}", "tuning.enabled=true"))
    tuned = runs.run("run-3", (1,), None, settings=searching)
    made = replace(
        origin_of(History(Lineage(runs.recorder.store)), tuned.id),
        hyperparameters={"epochs": 5, "hidden_units": [16, 8]},
    )
    own = scratch_settings(made, runs.settings.store_uri, tmp_path / "scratch")
    assert (own.training.epochs, own.training.hidden_units) == (5, (16, 8))
    assert (own.tuning.enabled, own.tuning.import_best) == (False, False)
    assert own.training.learning_rate == searching.training.learning_rate


def test_hyperparameters_are_those_of_the_artifact_that_the_trainer_read(runs: Runs) -> None:
    found = runs.recorder.artifact("HyperParameters", values=json.dumps({"epochs": 5}))
    model = runs.recorder.artifact("Model")
    runs.recorder.execution("Trainer", "run-3", {"hyperparameters": found}, {"model": model})
    lineage = Lineage(runs.recorder.store)
    assert origin_of(History(lineage), model.id).hyperparameters == {"epochs": 5}
    assert dict(training_facts(evidence_of(lineage, model.id)))["hyperparameters"] == "by a search: epochs 5"
    assert origin(runs).hyperparameters == {}
