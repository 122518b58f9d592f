"""What a task in a container writes into ML Metadata, where its inputs come from, and what becomes of cached ones."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import standard_artifacts

from bike_pipeline.commands.lineage import runs_command
from bike_pipeline.commands.models import models_command
from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
from bike_pipeline.lineage.store.connection import connection_config, open_at
from bike_pipeline.lineage.store.metadata_store import CACHED, Lineage, prop
from bike_pipeline.runners.kubeflow.record import Received, Record, Store
from bike_pipeline.settings import load_settings

EXAMPLES = "tfx.types.standard_artifacts.Examples"
MODEL = "tfx.types.standard_artifacts.Model"


def described(node, inputs=None):
    return {"pipeline": "p", "node": node, "type": f"our.{node}", "base_type": 0, "inputs": inputs or {}}


def produce(store, run, node, uri, kind=standard_artifacts.Examples, inputs=None, received=None):
    """Write down an execution that made one artifact at `uri`; return its id."""
    record = Record(store, described(node, inputs), run)
    record.begin(received or {}, {"source_hash": "1"})
    artifact = kind()
    artifact.uri = uri
    artifact.set_string_custom_property("made_by", node)
    result = execution_result_pb2.ExecutorOutput()
    result.output_artifacts["made"].artifacts.append(artifact.mlmd_artifact)
    record.finish({"made": [artifact]}, result)
    return record.execution_id


@pytest.fixture
def address(tmp_path):
    return f"sqlite://{tmp_path}/store/metadata.sqlite"


@pytest.fixture
def store(address):
    return Store(address)


def test_an_input_is_taken_from_our_store_not_from_what_kfp_kept(store, address):
    produce(store, "run-1", "Gen", "s3://b/1")
    record = Record(store, described("Use", {"examples": EXAMPLES}), "run-1")
    inputs = record.begin({"examples": [Received("s3://b/1", {"made_by": "somebody else"})]}, {})
    assert inputs["examples"][0].get_string_custom_property("made_by") == "Gen"
    linked = Lineage(open_at(address)).inputs(record.execution_id)["examples"]
    assert [artifact.uri for artifact in linked] == ["s3://b/1"]


def test_an_input_that_our_store_does_not_know_is_imported_with_what_is_known(store, address):
    record = Record(store, described("Use", {"examples": EXAMPLES}), "run-1")
    kept = {"span": 3.0, "rows_by_split": "{}", "share": 0.5, "count": 4.0, "splits": {"train": 1}}
    record.begin({"examples": [Received("s3://b/unknown", kept)]}, {})
    lineage = Lineage(open_at(address))
    [artifact] = lineage.inputs(record.execution_id)["examples"]
    assert prop(artifact, "span") == 3
    assert prop(artifact, "rows_by_split") == "{}"
    assert prop(artifact, "share") == 0.5
    assert prop(artifact, "count") == 4
    assert dict(prop(artifact, "splits")) == {"train": 1}
    assert lineage.producer(artifact.id) is None


def test_what_kfp_answered_from_its_cache_stands_as_cached_in_the_run_with_all_that_led_to_it(store, address):
    made = produce(store, "run-1", "Gen", "s3://b/1")
    trained = produce(
        store,
        "run-1",
        "Train",
        "s3://b/2",
        standard_artifacts.Model,
        {"made": EXAMPLES},
        {"made": [Received("s3://b/1", {})]},
    )
    for node in ("Evaluate", "Push"):
        record = Record(store, described(node, {"model": MODEL}), "run-2")
        record.begin({"model": [Received("s3://b/2", {})]}, {})
    lineage = Lineage(open_at(address))
    second = next(run for run in lineage.runs() if run.run_id == "run-2")
    assert [(stage.name, stage.state) for stage in second.stages] == [
        ("Gen", "cached"),
        ("Train", "cached"),
        ("Evaluate", "running"),
        ("Push", "running"),
    ]
    cached = second.stages[1].execution_id
    assert [a.uri for a in lineage.inputs(cached)["made"]] == ["s3://b/1"]
    assert [a.uri for a in lineage.outputs(cached)["made"]] == ["s3://b/2"]
    [model] = lineage.outputs(cached)["made"]
    producer = lineage.producer(model.id)
    assert producer is not None
    assert producer.id == trained, "the one that made it is still the first run's"
    assert made != trained
    assert sum(e.last_known_state == CACHED for e in lineage.store.get_executions()) == 2


def test_an_interrupted_execution_does_not_stand_as_running(store, address):
    record = Record(store, described("Train"), "run-1")
    record.begin({}, {})
    record.fail("interrupted", interrupted=True)
    [run] = Lineage(open_at(address)).runs()
    assert run.state == "interrupted"


def test_a_server_takes_user_and_password_from_the_environment_only(monkeypatch, tmp_path):
    for name in ("BIKE_METADATA_USER", "BIKE_METADATA_PASSWORD", "BIKE_METADATA_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MetadataError, match="are not in the environment"):
        connection_config("mysql://db.example:3307/bike")
    monkeypatch.setenv("BIKE_METADATA_USER", "bike")
    (tmp_path / "password").write_text("from a file\n", encoding="utf-8")
    monkeypatch.setenv("BIKE_METADATA_PASSWORD_FILE", str(tmp_path / "password"))
    assert connection_config("mysql://db.example/bike").mysql.password == "from a file"
    monkeypatch.setenv("BIKE_METADATA_PASSWORD", "given")
    found = connection_config("mysql://db.example:3307/bike").mysql
    assert (found.host, found.port, found.database, found.user, found.password) == (
        "db.example",
        3307,
        "bike",
        "bike",
        "given",
    )
    monkeypatch.delenv("BIKE_METADATA_PASSWORD")
    monkeypatch.setenv("BIKE_METADATA_PASSWORD_FILE", str(tmp_path / "gone"))
    with pytest.raises(MetadataError, match="cannot read the password"):
        connection_config("mysql://db.example/bike")


@pytest.mark.parametrize("address", ["postgres://host/x", "somewhere", "mysql:///nohost"])
def test_other_addresses_are_refused(address):
    with pytest.raises(MetadataError, match="no address of a metadata store"):
        connection_config(address)


def test_a_store_that_is_not_there_or_is_none_is_one_clear_error(tmp_path):
    with pytest.raises(MetadataError, match="there is no metadata store"):
        open_at(f"sqlite://{tmp_path}/nothing.sqlite")
    (tmp_path / "broken.sqlite").write_text("this is no database", encoding="utf-8")
    with pytest.raises(MetadataError, match="cannot open the metadata store"):
        open_at(f"sqlite://{tmp_path}/broken.sqlite")
    with (
        pytest.raises(MetadataError, match="cannot open the metadata store"),
        Store(f"sqlite://{tmp_path}/broken.sqlite").opened(),
    ):
        pass


def test_a_server_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("BIKE_METADATA_USER", "bike")
    monkeypatch.setenv("BIKE_METADATA_PASSWORD", "not-to-be-told")
    with pytest.raises(MetadataError, match="the metadata server cannot be reached") as error:
        open_at("mysql://127.0.0.1:1/bike")
    assert "not-to-be-told" not in str(error.value)


def test_the_commands_read_the_clusters_store(store, tmp_path):
    produce(store, "run-of-the-cluster", "Gen", "s3://b/1")
    settings = [
        f"kubeflow.volumes=[{{claim: any, mount_path: {tmp_path}}}]",
        f"kubeflow.metadata.sqlite_file={tmp_path}/store/metadata.sqlite",
        f"kubeflow.span_store={tmp_path}/spans",
        f"kubeflow.serving_folder={tmp_path}/serving",
    ]
    arguments = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(runs_command, ["--cluster", "--json", *arguments])
    assert result.exit_code == 0, result.output
    assert [run["run_id"] for run in json.loads(result.output)] == ["run-of-the-cluster"]
    result = CliRunner().invoke(models_command, ["--cluster", "--json", *arguments])
    assert json.loads(result.output) == []


@pytest.mark.parametrize(
    ("runner", "hours", "state"),
    [
        ("kubeflow", 0, "running"),
        ("vertex", 20, "running"),
        ("kubeflow", 25, "interrupted"),
        ("local", 0, "interrupted"),
        ("kubeflow --local", 0, "interrupted"),
    ],
)
def test_a_run_of_a_cluster_goes_on_between_two_of_its_tasks(store, address, monkeypatch, runner, hours, state):
    produce(store, "run-1", "Gen", "s3://b/1")
    record_run(open_at(address), source_of_this_run(load_settings(), "run-1", runner))
    monkeypatch.setattr(
        "bike_pipeline.lineage.store.metadata_store.LONGEST_PAUSE", timedelta(days=1) - timedelta(hours=hours)
    )
    [run] = Lineage(open_at(address)).runs()
    assert run.state == state
    assert run.outcome == ("between two tasks, after Gen" if state == "running" else "stopped at Gen")


def test_a_failed_task_of_a_cluster_ends_its_run(store, address):
    produce(store, "run-1", "Gen", "s3://b/1")
    record_run(open_at(address), source_of_this_run(load_settings(), "run-1", "kubeflow"))
    record = Record(store, described("Use"), "run-1")
    record.begin({}, {})
    assert [run.state for run in Lineage(open_at(address)).runs()] == ["running"]
    record.fail("no rows")
    assert [(run.state, run.outcome) for run in Lineage(open_at(address)).runs()] == [("failed", "Use: no rows")]
