from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl

import pytest
import yaml
from click.testing import CliRunner

from bike_pipeline import Workspace
from bike_pipeline.commands.cluster import schedule_command, submit_command
from bike_pipeline.errors import ClusterError, ConfigurationError, ExitCode, StageError
from tests.runners.kubeflow import pipelines_server
from tests.runners.kubeflow.pipelines_server import PipelinesServer, RefusalError, read_as

TASKS = ("Transform", "Trainer")


def spec_with(value):
    return {
        "pipelineInfo": {"name": "bike-demand"},
        "schemaVersion": "2.1.0",
        "components": {"comp": {"executorLabel": "e"}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "image", "command": [value]}}}},
        "root": {"dag": {"tasks": {n: {"taskInfo": {"name": n}, "componentRef": {"name": "comp"}} for n in TASKS}}},
    }


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    for variable in ("ENDPOINT", "UI_ENDPOINT", "TOKEN", "COOKIES", "IAP_OAUTH2_CLIENT_ID"):
        monkeypatch.delenv(f"KF_PIPELINES_{variable}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))


@pytest.fixture
def server():
    with PipelinesServer() as server:
        yield server
        assert server.refused == [], "a request had a body that the API does not know"


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.yaml"
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"e": {}}}}}}
    path.write_text(yaml.safe_dump_all([spec_with("true"), platform]), encoding="utf-8")
    return path


@pytest.fixture
def call(server):
    def run(command, *arguments, **values):
        values = {"poll_seconds": 0.01, "endpoint": server.address, **values}
        options = [f"--set=kubeflow.client.{key}={value if value != '' else repr('')}" for key, value in values.items()]
        done = CliRunner().invoke(command, [*map(str, arguments), *options])
        if done.exception and not isinstance(done.exception, SystemExit):
            done.exception.shown = done.output
            raise done.exception
        return done.output

    return run


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


def test_a_token_comes_from_the_environment_or_a_file_that_is_read_again(call, server, spec, monkeypatch, tmp_path):
    server.token = "secret"
    with pytest.raises(ConfigurationError, match="nothing to show"):
        call(submit_command, "--spec", spec, authentication="token")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
    call(submit_command, "--spec", spec, authentication="token")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "stale")
    with pytest.raises(ClusterError, match="does not know who we are"):
        call(submit_command, "--spec", spec, authentication="token")
    monkeypatch.delenv("KF_PIPELINES_TOKEN")
    file = tmp_path / "token"
    file.write_text("secret\n", encoding="utf-8")
    for kind in ("token", "service_account"):
        call(submit_command, "--spec", spec, authentication=kind, token_file=file)
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="empty"):
        call(submit_command, "--spec", spec, authentication="service_account", token_file=file)
    assert not any("secret" in json.dumps(body) for _, body in server.bodies)


def test_a_token_that_the_kubelet_renews_is_used_while_waiting(call, server, spec, tmp_path, monkeypatch):
    server.token = "first"
    file = tmp_path / "token"
    file.write_text("first", encoding="utf-8")
    server.states = [("RUNNING", {}, ""), ("SUCCEEDED", {}, "")]

    def rotate(self, *arguments):
        server.token = "second"
        file.write_text("second", encoding="utf-8")
        return original(self, *arguments)

    original = PipelinesServer.post_runs
    monkeypatch.setattr(
        "tests.runners.kubeflow.pipelines_server.ROUTES",
        tuple((v, p, rotate if f is original else f, kind) for v, p, f, kind in pipelines_server.ROUTES),
    )
    assert "SUCCEEDED" in call(
        submit_command, "--spec", spec, "--wait", authentication="service_account", token_file=file
    )


def test_cookies_and_a_profile_of_a_multi_user_installation(call, server, spec, monkeypatch, tmp_path):
    server.cookie, server.multi_user = "authservice_session=abc", True
    monkeypatch.setenv("KF_PIPELINES_COOKIES", "authservice_session=abc")
    call(submit_command, "--spec", spec, authentication="cookies", user_namespace="team-a")
    monkeypatch.delenv("KF_PIPELINES_COOKIES")
    file = tmp_path / "cookies"
    file.write_text("authservice_session=abc\n", encoding="utf-8")
    call(submit_command, "--spec", spec, authentication="cookies", cookies_file=file, user_namespace="team-a")
    assert {one["namespace"] for one in server.experiments.values()} == {"team-a"}
    assert {one["namespace"] for one in server.pipelines.values()} == {"team-a"}
    assert not (tmp_path / ".config").exists()


@pytest.fixture
def certificate(tmp_path):
    """A certificate for the loopback address that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pipelines of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_an_own_certificate_authority_is_trusted_where_it_is_named(call, server, spec, certificate, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = server.address.replace("http:", "https:")
    with pytest.raises(ClusterError, match="certificate is not trusted") as error:
        call(submit_command, "--spec", spec, endpoint=address)
    assert "kubeflow.client.ca_cert" in error.value.fix
    call(submit_command, "--spec", spec, endpoint=address, ca_cert=certificate)
    with pytest.raises(ConfigurationError, match="no such file"):
        call(submit_command, "--spec", spec, endpoint=address, ca_cert=tmp_path / "nothing.pem")


def test_without_an_address_the_missing_cluster_is_named(call, spec):
    with pytest.raises(ConfigurationError, match="no address of Kubeflow Pipelines") as error:
        call(submit_command, "--spec", spec, endpoint="")
    assert "KF_PIPELINES_ENDPOINT" in error.value.fix


@pytest.fixture
def kubeconfig(server, tmp_path):
    """A kubeconfig with two contexts, both of the test's server behind the proxy of the Kubernetes API server."""
    server.prefix = "/api/v1/namespaces/pipelines/services/ml-pipeline:http/proxy"
    server.token = "of-the-user"
    user = {"name": "me", "user": {"token": "of-the-user"}}
    cluster = {"name": "test", "cluster": {"server": server.address}}
    contexts = [{"name": name, "context": {"cluster": "test", "user": "me"}} for name in ("staging", "production")]
    content = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": contexts}
    (tmp_path / "no-kubeconfig").write_text(
        yaml.safe_dump({**content, "current-context": "production"}), encoding="utf-8"
    )


def test_a_kubeconfig_leads_to_the_pipelines_of_its_cluster(call, server, spec, kubeconfig, monkeypatch):
    # The kubernetes client reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
    said = call(submit_command, "--spec", spec, endpoint="", kube_context="staging", namespace="pipelines")
    assert "/pipeline/#/runs/details/" in said
    assert len(server.runs) == 1
    with pytest.raises(ConfigurationError, match="has no context 'nowhere'") as error:
        call(submit_command, "--spec", spec, endpoint="", kube_context="nowhere")
    assert error.value.fix == "choose one of: production, staging"


def test_the_address_from_the_environment_counts(call, server, spec, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.address)
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline")
    said = call(submit_command, "--spec", spec, endpoint="")
    assert "https://kubeflow.example/pipeline/#/runs/details/" in said


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


def test_schedules_are_made_listed_switched_replaced_and_deleted(call, server, spec):
    assert "no schedules" in call(schedule_command, "list")
    assert "every 21600 s" in call(schedule_command, "create", "--spec", spec, "--every", "6h")
    with pytest.raises(ConfigurationError, match="already"):
        call(schedule_command, "create", "--spec", spec, "--cron", "0 0 3 * * *")
    call(schedule_command, "create", "--spec", spec, "--cron", "0 0 3 * * *", "--replace")
    (made,) = server.recurring.values()
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["no_catchup"], str(made["max_concurrency"]), made["mode"]) == (True, "1", "ENABLE")
    for number in range(4):
        call(schedule_command, "create", "--spec", spec, "--every", "1d", "--name", f"more-{number}")
    listed = json.loads(call(schedule_command, "list", "--json"))
    assert len(listed) == 5
    assert listed[0] | {"schedule_id": "", "version_id": ""} == {
        "schedule_id": "",
        "name": "bike-demand",
        "trigger": "cron 0 0 3 * * *",
        "enabled": True,
        "version_id": "",
    }
    call(schedule_command, "disable", "bike-demand")
    assert "disabled" in call(schedule_command, "list")
    call(schedule_command, "enable", "bike-demand")
    assert "disabled" not in call(schedule_command, "list")
    call(schedule_command, "delete", "bike-demand")
    assert len(json.loads(call(schedule_command, "list", "--json"))) == 4
    with pytest.raises(ConfigurationError, match="no schedule 'bike-demand'"):
        call(schedule_command, "delete", "bike-demand")


def test_a_replaced_schedule_stays_where_the_new_one_is_refused(call, server, spec):
    call(schedule_command, "create", "--spec", spec, "--every", "6h")
    server.fail = {"POST /recurringruns": (500, "no")}
    with pytest.raises(ClusterError):
        call(schedule_command, "create", "--spec", spec, "--every", "2h", "--replace")
    ((_, kept),) = server.recurring.items()
    assert str(kept["trigger"]["periodic_schedule"]["interval_second"]) == "21600"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cron", "0 3 * * *"), "six, seconds first.*Write '0 0 3"),
        (("--every", "10s"), "a minute or more"),
        (("--every", "often"), "not an interval"),
    ],
)
def test_times_that_the_controller_would_misread_are_refused_before_anything_is_sent(call, server, arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        call(schedule_command, "create", *arguments)
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
