"""A compiled pipeline becomes a run, which is waited for; what is refused is one clear error."""

from __future__ import annotations

import json

import pytest
import yaml

from bike_pipeline import Workspace
from bike_pipeline.commands.cluster import schedule_command, submit_command
from bike_pipeline.errors import ClusterError, ConfigurationError, ExitCode, StageError
from tests.runners.kubeflow.client.conftest import TASKS, spec_with
from tests.runners.kubeflow.pipelines_server import RefusalError, read_as


def test_a_run_is_submitted_waited_for_and_shown(call, server, spec):
    server.states = [
        ("PENDING", {}, ""),
        ("RUNNING", {"Transform": "RUNNING"}, ""),
        ("RUNNING", {"Transform": "SUCCEEDED", "Trainer": "RUNNING"}, ""),
        ("SUCCEEDED", {"Transform": "SUCCEEDED", "Trainer": "SUCCEEDED"}, ""),
    ]
    said = call(submit_command, "--spec", spec, "--wait", "--name", "first", "--parameter", "span=2")
    ((run_id, run),) = server.runs.items()
    assert f"{server.address}/#/runs/details/{run_id}" in said
    lines = [line.split() for line in said.splitlines() if line.startswith(TASKS)]
    assert lines == [
        ["Transform", "running"],
        ["Transform", "succeeded"],
        ["Trainer", "running"],
        ["Trainer", "succeeded"],
    ]
    assert "run SUCCEEDED" in said
    assert run["display_name"] == "first"
    assert run["runtime_config"] == {"parameters": {"span": 2}, "pipeline_root": "minio://mlpipeline/v2/artifacts"}
    version = server.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"] != "bike-demand"
    documents = version["pipeline_spec"]["documents"]
    assert documents[0] == spec_with("true")
    assert documents[1]["platforms"]
    assert server.experiments[run["experiment_id"]]["display_name"] == "bike-demand"


def test_a_specs_own_root_is_sent_since_kubeflow_reads_it_nowhere_else(call, server, spec, tmp_path):
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text(yaml.safe_dump({**spec_with("true"), "defaultPipelineRoot": "s3://theirs/root"}), "utf-8")
    call(submit_command, "--spec", foreign)
    call(schedule_command, "create", "--spec", foreign, "--every", "6h")
    call(submit_command, "--spec", spec)
    first, second = server.runs.values()
    [recurring] = server.recurring.values()
    assert first["runtime_config"]["pipeline_root"] == "s3://theirs/root"
    assert recurring["runtime_config"]["pipeline_root"] == "s3://theirs/root"
    assert second["runtime_config"]["pipeline_root"] == "minio://mlpipeline/v2/artifacts", (
        "the settings', where it has none"
    )


def test_an_event_that_comes_twice_runs_once_and_again_where_its_run_failed(call, server, spec):
    arguments = ("--spec", spec, "--name", "event 7", "--once", "--json")
    first = json.loads(call(submit_command, *arguments))["run"]["run_id"]
    assert json.loads(call(submit_command, *arguments, "--wait"))["run"]["run_id"] == first
    call(submit_command, "--spec", spec, "--name", "event 8", "--once")
    assert [run["display_name"] for run in server.runs.values()] == ["event 7", "event 8"]
    server.runs[first]["state"] = "FAILED"
    second = json.loads(call(submit_command, *arguments))["run"]["run_id"]
    assert second != first
    assert json.loads(call(submit_command, *arguments))["run"]["run_id"] == second


def test_once_asks_for_a_name(call, server, spec):
    with pytest.raises(ConfigurationError, match="--name"):
        call(submit_command, "--spec", spec, "--once")
    assert server.runs == {}


def test_the_same_spec_is_uploaded_once_and_a_changed_one_is_a_version_of_the_same_pipeline(call, server, spec):
    first = json.loads(call(submit_command, "--spec", spec, "--json"))
    again = json.loads(call(submit_command, "--spec", spec, "--json"))
    assert (first["version"]["created"], again["version"]["created"]) == (True, False)
    assert first["version"]["version_id"] == again["version"]["version_id"]
    spec.write_text(yaml.safe_dump(spec_with("false")), encoding="utf-8")
    changed = json.loads(call(submit_command, "--spec", spec, "--json"))
    assert changed["version"]["pipeline_id"] == first["version"]["pipeline_id"]
    assert changed["version"]["name"] != first["version"]["name"]
    assert len(server.pipelines) == 1
    assert len(server.experiments) == 1
    assert len(server.runs) == 3


@pytest.mark.parametrize(
    ("state", "tasks", "reason", "kind", "words"),
    [
        ("FAILED", {"Transform": "SUCCEEDED", "Trainer": "FAILED"}, "exit code 1", StageError, "in Trainer (exit"),
        ("FAILED", {}, "invalid spec", StageError, "before any of its tasks (invalid spec)"),
        ("CANCELED", {"Transform": "CANCELED"}, "", ClusterError, "was cancelled"),
    ],
)
def test_a_run_that_fails_ends_with_its_task_and_its_address(call, server, spec, state, tasks, reason, kind, words):
    server.states = [("RUNNING", {}, ""), (state, tasks, reason)]
    with pytest.raises(kind) as error:
        call(submit_command, "--spec", spec, "--wait")
    assert words in str(error.value)
    assert error.value.where.startswith(f"{server.address}/#/runs/details/")
    assert error.value.exit_code == (ExitCode.STAGE if kind is StageError else ExitCode.CLUSTER)


def test_json_of_a_failed_run_says_so_too(call, server, spec):
    server.states = [("FAILED", {"Trainer": "FAILED"}, "")]
    with pytest.raises(StageError) as error:
        call(submit_command, "--spec", spec, "--wait", "--json")
    result = json.loads(error.value.shown)
    assert result["run"]["tasks"] == {"Trainer": "FAILED"}
    assert result["exit_code"] == ExitCode.STAGE


def test_waiting_ends_in_time_and_the_run_goes_on(call, server, spec):
    server.states = [("RUNNING", {"Transform": "RUNNING"}, "")]
    with pytest.raises(ClusterError, match=r"still RUNNING after 0\.05 s; it goes on"):
        call(submit_command, "--spec", spec, "--wait", "--timeout", 0.05)
    assert not any(entry.startswith("DELETE") or "terminate" in entry for entry in server.calls)


@pytest.mark.parametrize(
    ("where", "status", "words"),
    [
        ("GET /healthz", 401, "does not know who we are (401"),
        ("POST /runs", 403, "starting the run: Kubeflow Pipelines does not let us do this (403"),
        ("POST /pipelines/upload", 500, "uploading the pipeline: Kubeflow Pipelines failed (500: because"),
        ("POST /runs", 400, "starting the run: refused (400: because"),
        ("GET /pipelines", 404, "not found (because)"),
    ],
)
def test_a_refusal_is_one_line_with_the_reason(call, server, spec, where, status, words):
    server.fail = {where: (status, "because")}
    with pytest.raises(ClusterError) as error:
        call(submit_command, "--spec", spec)
    server.refused.clear()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.where == server.address


def test_a_server_that_refuses_the_spec_is_quoted(call, server, spec):
    server.fail = {"POST /pipelines/upload": (400, "pipeline spec is invalid: no such field.")}
    with pytest.raises(ClusterError, match=r"uploading the pipeline: refused \(400: pipeline spec is invalid: no such"):
        call(submit_command, "--spec", spec)
    assert len(server.refused) == 1
    server.refused.clear()
    assert not server.runs


def test_nobody_there_and_nobody_answering_are_told_apart(call, server, spec):
    with pytest.raises(ClusterError, match=r"cannot be reached \(.*refused") as error:
        call(submit_command, "--spec", spec, endpoint="http://127.0.0.1:9")
    assert "port-forward" in error.value.fix
    server.silent = True
    with pytest.raises(ClusterError, match=r"no answer within 0\.2 s"):
        call(submit_command, "--spec", spec, request_timeout_seconds=0.2)


def test_a_spec_that_would_be_refused_later_is_not_even_uploaded(call, server, spec):
    spec.write_text(yaml.safe_dump({**spec_with("true"), "schemaVersion": "2.0.0"}), encoding="utf-8")
    for arguments in ((submit_command,), (schedule_command, "create", "--every", "6h")):
        with pytest.raises(ConfigurationError, match=r"only supports schema version 2\.1\.0"):
            call(*arguments, "--spec", spec)
    assert server.calls == []


@pytest.mark.parametrize(
    ("content", "words"), [("a: [1", "not YAML"), ("a: 1", "no pipeline spec"), (None, "cannot read it")]
)
def test_what_is_no_spec_never_reaches_the_server(call, server, tmp_path, content, words):
    path = tmp_path / "other.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=words):
        call(submit_command, "--spec", path)
    assert server.calls == []


def test_the_server_of_these_tests_refuses_what_the_api_does_not_know():
    read_as("V2beta1Run", {"display_name": "a", "runtime_config": {"parameters": {"a": 1}}})
    for body in (
        {"name": "a"},
        {"display_name": 1.5},
        {"runtime_config": {"parameter": {}}},
        {"state": "DONE"},
        {"state_history": [{"state": "RUNNING", "when": 1}]},
    ):
        with pytest.raises(RefusalError):
            read_as("V2beta1Run", body)


@pytest.mark.slow
def test_without_a_file_the_pipeline_is_compiled_with_the_settings(call, server, tmp_path):
    call(submit_command, f"--set=workspace={tmp_path}", "--set=kubeflow.image=registry.example/bike:7")
    (run,) = server.runs.values()
    version = server.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
    pipeline, platform = version["pipeline_spec"]["documents"]
    assert {"CsvExampleGen", "Trainer", "Pusher"} <= set(pipeline["root"]["dag"]["tasks"])
    executors = pipeline["deploymentSpec"]["executors"]
    assert {one["container"]["image"] for one in executors.values()} == {"registry.example/bike:7"}
    assert set(platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]) <= set(executors)


def test_a_program_submits_and_schedules_without_the_command_line(server, spec, tmp_path):
    server.states = [("SUCCEEDED", {"Transform": "SUCCEEDED", "Trainer": "SUCCEEDED"}, "")]
    values = {"kubeflow.client.endpoint": server.address, "kubeflow.client.poll_seconds": 0.01}
    workspace = Workspace(tmp_path / "workspace", values=values)
    done = workspace.submit(spec, name="from a program", parameters={"span": 2}, wait=True)
    assert (done.run.name, done.run.state, done.version.created) == ("from a program", "SUCCEEDED", True)
    made = workspace.schedule(spec, every="6h")
    assert (made.version.version_id, made.version.created) == (done.version.version_id, False)
    assert workspace.schedules() == [made.schedule]
    with pytest.raises(ConfigurationError, match="either a cron expression or an interval"):
        workspace.schedule(spec)
