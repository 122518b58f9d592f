"""A search finds the best by validation, goes on where it was killed, and later runs take over what it found."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bike_pipeline.components import tuner
from bike_pipeline.components.hyperparameters_lookup import HyperParametersDriver, HyperParametersLookupExecutor
from bike_pipeline.errors import ConfigurationError, StageError, VerificationError
from bike_pipeline.lineage.records import sealing
from bike_pipeline.modeling import tuning
from bike_pipeline.modeling.tuning import Job
from bike_pipeline.settings import load_settings
from tests.components import tuner_process
from tests.components.pushing import DriverConnection
from tests.conftest import ROOT, TRAINING
from tests.recording import Recorder

RATES = "{name: learning_rate, low: 0.0001, high: 0.01, log: true}"
SPACE = f"tuning.space=[{RATES}, {{name: hidden_units, choices: [[8], [16]]}}]"
SETTINGS = load_settings(
    assignments=(
        "tuning.enabled=true",
        "tuning.trials=3",
        SPACE,
    )
)


def properties(**changes: Any) -> dict[str, Any]:
    section = SETTINGS.tuning.model_copy(update=changes).model_dump_json()
    return {"tuning": section, "training": json.dumps(TRAINING), "seed": 7, "source_hash": "s"}


def found(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the best hyperparameters and the results of all trials."""
    best = json.loads((folder / "best_hyperparameters/1/best_hyperparameters.txt").read_text())
    return best, json.loads((folder / "tuner_results/1/tuner_results.json").read_text())


def arguments(examples: Any, schema: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "examples": examples.uri, "schema": schema.uri, "folder": str(folder), "properties": properties(**changes)
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was_and_finds_the_same(examples: Any, schema: Any, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    said, (best, _) = tuner_process.search(**arguments(examples, schema, whole, parallel_trials=2))
    config, results = found(whole)
    assert len(results) == 3
    assert [entry["score"] for entry in results] == sorted(entry["score"] for entry in results)
    values = {name: value for name, value in results[0].items() if name not in ("trial_id", "score")}
    assert config["values"] == values
    assert json.loads(best.get_string_custom_property("values")).keys() == values.keys()
    assert said[0] == "0 of 3 trials are done"
    assert said[-1].startswith(f"best mae of 3 trials {results[0]['score']:.2f}, with the settings ")
    assert said[-1] == best.get_string_custom_property("summary")

    job = json.dumps(arguments(examples, schema, killed))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(Path(tuner_process.__file__)), job], env=environment)
    try:
        while not list(killed.rglob("searches/*/*.json")):
            assert process.poll() is None
            time.sleep(0.05)
        # The processes of its trials must not go on alone.
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    done = len(list(killed.rglob("searches/*/*.json")))
    assert 0 < done < 3
    again, _ = tuner_process.search(**arguments(examples, schema, killed))
    assert again[0] == f"{done} of 3 trials are done"
    # One more report for each trial that was left.
    assert len(again) == 1 + 3 - done
    assert found(killed) == (config, results)
    assert list(killed.glob("searches/*")) == []


def _scores(job: Job) -> list[float]:
    # Run in another process, which imports it by its name.
    width = len(job.training["hidden_units"]) * sum(job.training["hidden_units"])
    return [math.nan, 1.0] if width == 8 else [float(width), 3.0]


def _dies(_: Job) -> list[float]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch, examples: Any, schema: Any, tmp_path: Path) -> Any:
    """A function that searches with scores that need no training; returns best and results."""

    def run(score: Any = _scores, **changes: Any) -> Any:
        monkeypatch.setattr(tuning, "score", score)
        monkeypatch.setattr(tuner, "_folds", lambda *_: ())
        tuner_process.search(**arguments(examples, schema, tmp_path, **changes))
        return found(tmp_path)

    return run


def test_a_trial_that_comes_to_no_number_never_wins(scored: Any) -> None:
    _, results = scored(trials=4)
    assert results[0]["score"] is not None
    assert [entry["score"] for entry in results if entry["hidden_units"] == "[8]"] == [None] * sum(
        entry["hidden_units"] == "[8]" for entry in results
    )
    assert {entry["hidden_units"] for entry in results} >= {"[8]"}


def test_where_nothing_is_better_the_settings_stay(scored: Any) -> None:
    best, _ = scored(_same)
    assert json.loads(best["values"]["hidden_units"]) == TRAINING["hidden_units"]
    assert best["values"]["learning_rate"] == TRAINING["learning_rate"]


def _same(_: Job) -> list[float]:
    return [5.0, 5.0]


def test_a_trial_whose_process_is_killed_is_one_error_that_says_what_to_do(scored: Any) -> None:
    with pytest.raises(StageError, match=r"Tuner: the process of a trial was killed.*parallel_trials"):
        scored(_dies)


def test_no_number_at_all_is_an_error(scored: Any) -> None:
    with pytest.raises(StageError, match="no trial came to a number"):
        scored(_none)


def _none(_: Job) -> list[float]:
    return [math.inf]


class World:
    """A store in which two workspaces have searched, the other one last."""

    def __init__(self, folder: Path) -> None:
        """Record the searches, the older of which is `folder`'s own."""
        self.root = folder / "artifacts"
        self.recorder = Recorder(folder / "metadata.sqlite")
        self.own = self.search("run-1", self.root, 5)
        self.search("run-2", folder / "artifacts of others", 9)

    def search(self, run: str, root: Path, epochs: int) -> Path:
        folder = root / "Tuner" / "best_hyperparameters" / "3"
        folder.mkdir(parents=True)
        (folder / "best_hyperparameters.txt").write_text(json.dumps({"values": {"epochs": epochs}}))
        sealed = {sealing.SEAL_PROPERTY: sealing.seal_of(str(folder)), "values": json.dumps({"epochs": epochs})}
        found = self.recorder.artifact("HyperParameters", str(folder), **sealed)
        self.recorder.execution("Tuner", run, {}, {"best_hyperparameters": found})
        return folder

    def look_up(self, root: Path, output: Path) -> Any:
        """Run driver and executor; return the artifact."""
        from tfx.types import standard_artifacts

        driver = HyperParametersDriver(DriverConnection(self.recorder))  # type: ignore[arg-type]
        information = SimpleNamespace(exec_properties={"pipeline_root": str(root)}, input_dict={})
        answer = driver.run(information)  # type: ignore[arg-type]
        resolved = {name: value.string_value for name, value in answer.exec_properties.items()}
        artifact = standard_artifacts.HyperParameters()
        artifact.uri = str(output)
        HyperParametersLookupExecutor().Do({}, {"best_hyperparameters": [artifact]}, resolved)
        return artifact


def test_a_later_run_takes_over_the_newest_search_of_its_own_workspace(tmp_path: Path) -> None:
    world = World(tmp_path)
    artifact = world.look_up(world.root, tmp_path / "output")
    assert (tmp_path / "output/best_hyperparameters.txt").read_bytes() == (
        world.own / "best_hyperparameters.txt"
    ).read_bytes()
    assert artifact.get_string_custom_property("values") == '{"epochs": 5}'
    assert artifact.get_string_custom_property("summary") == "from the search of run run-1"


def test_where_nobody_has_searched_there_is_nothing_to_take_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tuning\.import_best: there are no hyperparameters to import"):
        World(tmp_path).look_up(tmp_path / "new", tmp_path / "output")


def test_hyperparameters_that_were_changed_are_not_taken_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.own / "best_hyperparameters.txt").write_text("{}")
    with pytest.raises(VerificationError, match="HyperParametersLookup: its best hyperparameters cannot be trusted"):
        world.look_up(world.root, tmp_path / "output")
