"""The entry point of every container: what it makes of KFP's input, and how it ends."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from bike_pipeline.errors import ConfigurationError, ExitCode
from bike_pipeline.lineage.records.run_record import source_of_run
from bike_pipeline.lineage.store.connection import open_at
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.runners.kubeflow import task
from bike_pipeline.runners.kubeflow.mounts import ROOT_VARIABLE, Mounts
from bike_pipeline.runners.kubeflow.platform_document import RUN_ID_VARIABLE
from bike_pipeline.settings import load_settings
from bike_pipeline.storage import cluster_volumes
from bike_pipeline.use_cases import doctor

GATE = {"pipeline": "bike-demand", "node": "DataGate", "integers": ["rows"]}


def outputs(uri):
    return {"outputs": {"artifacts": {"report": {"artifacts": [{"uri": uri}]}}}}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://mlpipeline/v2/a/b", "/minio/mlpipeline/v2/a/b"),
        ("s3://bucket/key", "/s3/bucket/key"),
        ("gs://bucket/key", "/gcs/bucket/key"),
    ],
)
def test_an_artifact_is_where_the_launcher_puts_it(uri, path):
    assert Mounts().path(uri) == path
    assert Mounts("/elsewhere").path(uri) == f"/elsewhere{path}"
    assert Mounts("/elsewhere", "/mnt/volume").path(uri) == f"/mnt/volume{path}"


@pytest.mark.parametrize("uri", ["/a/local/path", "hdfs://host/path", "oci://image"])
def test_an_artifact_in_another_store_is_one_clear_error(uri):
    with pytest.raises(ConfigurationError, match="outside the stores") as error:
        Mounts().path(uri)
    assert error.value.where == uri


def test_the_run_is_named_by_the_pods_label(monkeypatch):
    monkeypatch.setenv(RUN_ID_VARIABLE, "from-the-label")
    assert task.run_id_of(outputs("minio://m/bike-demand/other/DataGate/1/report"), GATE) == "from-the-label"


@pytest.mark.parametrize(
    ("uri", "run"),
    [
        ("minio://m/v2/artifacts/bike-demand/3f1c-77/DataGate/8d0e/report", "3f1c-77"),
        ("gs://b/root/123456/bike-demand-20261124/DataGate_-55/report", "bike-demand-20261124"),
    ],
)
def test_without_the_label_the_run_is_named_by_the_place_of_the_outputs(uri, run, monkeypatch):
    monkeypatch.delenv(RUN_ID_VARIABLE, raising=False)
    assert task.run_id_of(outputs(uri), GATE) == run


def test_a_run_without_a_name_is_refused(monkeypatch):
    monkeypatch.setenv(RUN_ID_VARIABLE, "")
    with pytest.raises(ConfigurationError, match="name the run"):
        task.run_id_of(outputs("s3://somewhere/else"), GATE)


def test_what_kfp_adds_to_metadata_is_taken_away_again():
    kept = {
        "display_name": "report",
        "store_session_info": "{}",
        "nothing": None,
        "span": 2.0,
        "splits": {"struct": {"train": 1}},
        "list": {"list": ["a"]},
        "own": {"a": 1, "b": 2},
    }
    assert task.plain_metadata(kept) == {"span": 2.0, "splits": {"train": 1}, "list": ["a"], "own": {"a": 1, "b": 2}}


def test_whole_numbers_are_integers_again():
    given = {"inputs": {"parameterValues": {"rows": 5.0, "share": 5.0, "name": "x"}}}
    read = task.parameters_of(given, GATE)
    assert read == {"rows": 5, "share": 5.0, "name": "x"}
    assert type(read["rows"]) is int
    assert type(read["share"]) is float


def call(tmp_path, node="CsvExampleGen"):
    """The arguments of an ExampleGen task as the compiled spec and KFP's launcher give them."""
    uri = f"minio://mlpipeline/bike-demand/run-1/{node}/1/examples"
    executor_input = {
        "inputs": {
            "parameterValues": {
                "input_base": str(tmp_path / "spans"),
                "window_spans": 2.0,
                "window_days": 0.0,
                "in_memory_rows": 1000.0,
                "source_hash": "0",
            }
        },
        "outputs": {
            "artifacts": {"examples": {"artifacts": [{"uri": uri}]}},
            "outputFile": str(tmp_path / "outputs" / "output_metadata.json"),
        },
    }
    described = {
        "pipeline": "bike-demand",
        "node": node,
        "type": "bike_pipeline.components.example_gen.SpanExampleGen",
        "base_type": 0,
        "executor": "bike_pipeline.components.example_gen.SpanExampleGenExecutor",
        "beam": True,
        "driver": "bike_pipeline.components.example_gen.SpanDriver",
        "inputs": {},
        "outputs": {"examples": "tfx.types.standard_artifacts.Examples"},
        "integers": ["window_spans", "window_days", "in_memory_rows"],
    }
    return [
        "--executor_input",
        json.dumps(executor_input),
        "--task",
        json.dumps(described),
        "--metadata",
        f"sqlite://{tmp_path}/metadata.sqlite",
        "--run_record",
        json.dumps({"runner": "kubeflow", "settings": load_settings().model_dump(mode="json")}),
    ]


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A process that looks like a container: launcher's folders and the pod's label."""
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "mounts"))
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    return tmp_path


def test_a_failure_is_one_line_an_exit_code_and_a_failed_execution(container, capsys):
    assert task.main(call(container)) == ExitCode.DATA
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "the span store is empty" in last
    [run] = Lineage(open_at(f"sqlite://{container}/metadata.sqlite")).runs()
    assert (run.run_id, run.state) == ("run-1", "failed")
    assert "the span store is empty" in run.outcome
    source, missing = source_of_run(open_at(f"sqlite://{container}/metadata.sqlite"), "run-1")
    assert (source.runner, source.settings["pipeline_name"], missing) == ("kubeflow", "bike-demand", ())


def test_a_retry_takes_the_failed_execution_up_and_ends_it_well(container, halves, capsys):
    from bike_pipeline.data.ingest import ingest

    assert task.main(call(container)) == ExitCode.DATA
    ingest(load_settings(assignments=(f"workspace={container}",)), str(halves[0]))
    assert task.main(call(container)) == ExitCode.OK
    lineage = Lineage(open_at(f"sqlite://{container}/metadata.sqlite"))
    [run] = lineage.runs()
    [stage] = run.stages
    assert (stage.name, stage.state, stage.error) == ("CsvExampleGen", "done", "")
    assert (run.span, run.version) == (1, 1)
    [examples] = lineage.outputs(stage.execution_id)["examples"]
    assert examples.uri == "minio://mlpipeline/bike-demand/run-1/CsvExampleGen/1/examples"
    [execution] = lineage.store.get_executions_by_id([stage.execution_id])
    assert execution.custom_properties["span"].int_value == 1, "the driver's answer is part of the execution"
    written = json.loads((container / "outputs" / "output_metadata.json").read_text(encoding="utf-8"))
    [told] = written["artifacts"]["examples"]["artifacts"]
    assert told["uri"] == examples.uri
    assert told["metadata"]["span"] == 1
    assert all(isinstance(value, str | int | float) for value in told["metadata"].values())
    folder = container / "mounts" / "minio" / "mlpipeline" / "bike-demand" / "run-1" / "CsvExampleGen" / "1"
    splits = ["Split-eval", "Split-history", "Split-train"]
    assert sorted(p.name for p in (folder / "examples").iterdir()) == [*splits, "columns"]


@pytest.fixture
def foreign_volume():
    """A volume that belongs to root, and be the image's user, which is no root."""
    # Below pytest's own folders nobody but their owner sees anything.
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder)
        if os.geteuid():
            volume.chmod(0o555)
            yield volume
            volume.chmod(0o755)
            return
        volume.chmod(0o755)
        os.seteuid(10001)
        yield volume
        os.seteuid(0)


def on_a_volume(tmp_path, *more):
    return load_settings(
        assignments=(
            f"kubeflow.volumes=[{{claim: bikes, mount_path: {tmp_path}}}]",
            f"kubeflow.span_store={tmp_path}/spans",
            f"kubeflow.serving_folder={tmp_path}/serving",
            f"kubeflow.metadata.sqlite_file={tmp_path}/metadata.sqlite",
            *more,
        )
    )


def test_the_first_stage_says_in_words_that_a_volume_belongs_to_root(container, foreign_volume, capsys):
    arguments = call(container)
    record = {"runner": "kubeflow", "settings": on_a_volume(foreign_volume).model_dump(mode="json")}
    arguments[arguments.index("--run_record") + 1] = json.dumps(record)
    assert task.main(arguments) == ExitCode.STORAGE
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(
        f"error: {foreign_volume}: user {os.geteuid()} of group {os.getegid()} cannot write there: it bel"
    )
    assert "configs/kubernetes/volume-owner.yaml" in last
    assert "fsGroup" in last


def test_a_serving_folder_that_only_the_last_stage_would_write_stops_the_first(foreign_volume):
    settings = on_a_volume(
        foreign_volume,
        "kubeflow.metadata={sqlite_file: '', mysql: {host: h, database: d}}",
        "kubeflow.secrets=[{name: s, keys: {u: BIKE_METADATA_USER, p: BIKE_METADATA_PASSWORD}}]",
    )
    [problem] = cluster_volumes.problems(settings.kubeflow)
    assert problem.where == f"{foreign_volume}/serving"


def test_doctor_in_a_container_says_so_too(foreign_volume):
    settings = on_a_volume(foreign_volume)
    checks = list(doctor._volumes(settings))
    assert {check.state for check in checks} == {"problem"}
    assert all("belongs to user" in check.found and "volume-owner.yaml" in check.fix for check in checks)


def test_doctor_finds_nothing_wrong_with_a_volume_of_ones_own_and_is_silent_outside_a_container(container):
    [check] = doctor._volumes(on_a_volume(container))
    assert (check.state, check.found) == ("ok", f"{container}, writable")
    assert list(doctor._volumes(on_a_volume(container / "not-mounted"))) == []
