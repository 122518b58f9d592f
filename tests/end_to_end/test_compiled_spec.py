"""What is compiled for Kubeflow runs: both halves by the compiled spec, held against the local runner's."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.end_to_end.conftest import Called, Product

pytestmark = pytest.mark.slow

KUBEFLOW = ("run", "--runner", "kubeflow", "--local", "--json")
# They are the same to the last digit where both run on the same machine; the rest is for other processors' rounding.
SAME = {"rel": 1e-6, "abs": 1e-9}
RECORD = {
    "dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1,
    "temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both halves by the compiled spec: the first through the object store, the second through a volume."""
    product = Product(tmp_path_factory.mktemp("compiled") / "workspace")
    volume = ("--set", "kubeflow.artifact_folder=/mnt/bike-pipeline/artifacts")
    return {
        "product": product,
        "first": product.call(*KUBEFLOW, "--demo", "first"),
        "second": product.call(*KUBEFLOW, "--demo", "second", *volume),
        "runs": product.call("runs", "--json"),
        "models": product.call("models", "--json"),
        "verify": product.call("verify"),
        "predict": product.call("predict", json.dumps(RECORD)),
    }


def measured(called: Called, which: str) -> dict[str, float]:
    """Return every metric of every slice of the candidate or the baseline."""
    rows = called.result["decisions"][f"{which}_metrics"]
    return {
        f"{row['slicing']} {row['slice']} {name}": value
        for row in rows
        for name, value in row.items()
        if isinstance(value, int | float)
    }


@pytest.mark.parametrize("half", ["first", "second"])
def test_the_compiled_spec_comes_to_the_same_model_as_the_local_runner(compiled, story, half):
    here, local = compiled[half], story[half]
    assert here.code == 0, here.err
    assert set(here.states) == set(local.states)
    assert set(here.states.values()) == {"done"}
    for which in ("candidate", "baseline"):
        assert measured(here, which) == pytest.approx(measured(local, which), **SAME)
    assert measured(here, "candidate")
    assert here.result["decisions"]["blessed"]
    verdicts = [(d["kind"], d["metric"], d["passed"]) for d in here.result["decisions"]["decisions"]]
    assert verdicts == [(d["kind"], d["metric"], d["passed"]) for d in local.result["decisions"]["decisions"]]


def test_the_second_run_finds_the_first_ones_model_as_baseline(compiled):
    baseline = compiled["second"].result["decisions"]["baseline"]
    assert baseline["state"] == "found"
    assert baseline["serving_version"] == compiled["first"].result["pushed_version"]
    assert compiled["second"].result["newly_pushed"]
    pushed = [compiled[half].result["pushed_version"] for half in ("first", "second")]
    assert compiled["product"].versions() == [str(version) for version in pushed]


def test_runs_models_and_predict_work_on_what_the_tasks_wrote_down(compiled):
    first, second = compiled["runs"].result
    assert [(run["state"], run["span"], run["version"]) for run in (first, second)] == [("done", 1, 1), ("done", 2, 1)]
    assert first["run_id"] == compiled["first"].result["run_id"]
    assert second["outcome"] == f"pushed as version {compiled['second'].result['pushed_version']}"
    assert {stage["state"] for run in (first, second) for stage in run["stages"]} == {"done"}
    models = compiled["models"].result
    assert [model["serving"] for model in models] == [False, True]
    assert all(model["blessed"] for model in models)
    assert all(model["uri"].startswith("minio://mlpipeline/v2/artifacts/bike-demand/") for model in models)
    [overall] = [
        row for row in compiled["second"].result["decisions"]["candidate_metrics"] if row["slicing"] == "overall"
    ]
    assert models[1]["metrics"]["mae"] == pytest.approx(overall["mae"])
    assert compiled["predict"].code == 0, compiled["predict"].err
    assert compiled["verify"].code == 0, compiled["verify"].err


def test_files_are_where_the_storage_is_and_tasks_leave_nothing_behind(compiled):
    folder = compiled["product"].workspace / "kubeflow"
    runs = [compiled[half].result["run_id"] for half in ("first", "second")]
    root = "minio/mlpipeline/v2/artifacts/bike-demand"
    in_store = folder / "store" / root
    on_volume = folder / "volume" / root
    files = {run: [path for path in (in_store / run).rglob("*") if path.is_file()] for run in runs}
    assert [path.name for path in on_volume.iterdir()] == runs[1:]
    assert {path.name for path in files[runs[1]]} == {"executor-logs"}, "what is on the volume is not copied"
    assert len(files[runs[0]]) > len(files[runs[1]]) == len(compiled["second"].states)
    assert len({path.name for path in in_store.glob(f"{runs[0]}/*")}) == len(compiled["first"].states)
    assert not list((folder / "tasks").glob("*/*"))
    spec, _ = yaml.safe_load_all((folder / "runs" / f"{runs[1]}.yaml").read_text(encoding="utf-8"))
    assert spec["schemaVersion"] == "2.1.0"


def test_a_cluster_is_submitted_to_and_local_means_this_runner(tmp_path):
    product = Product(tmp_path / "workspace")
    told = product.call("run", "--runner", "kubeflow")
    assert told.code == 3
    assert "bike-pipeline submit" in told.err
    assert "--local" in told.err
    told = product.call("run", "--local")
    assert told.code == 3
    assert "--local belongs to --runner kubeflow" in told.err
