"""The referee: who is asked, what a refusal is, and that silence is never an acceptance."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from bike_pipeline.runners.kubeflow import go_yaml
from tools.kubeflow_referee import referee

TRAIN_JOB = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {"name": "bike"},
    "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": {"numNodes": 2, "image": "bike-pipeline:0.1.0"}},
}
WORKFLOW = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "metadata": {"generateName": "bike-"},
    "spec": {
        "entrypoint": "main",
        "templates": [{"name": "main", "container": {"image": "bike-pipeline:0.1.0", "command": ["true"]}}],
    },
}
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go on the PATH")


def changed(document, path, value):
    """Return a copy of a document with one value set, or taken away where the value is None."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for part in path[:-1]:
        inner = inner[part]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


@pytest.fixture(scope="session", params=referee.TRAINER_VERSIONS)
def api_server(request):
    """The API server's judge as a command; skips where Go or the modules cannot be had."""
    try:
        return referee.build_objects(referee.Go(timeout=600), referee.ROOT / "build" / "referee", request.param)
    except referee.AbsentError as error:
        pytest.skip(f"the API server's code cannot be had: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("document", [TRAIN_JOB, WORKFLOW], ids=["TrainJob", "Workflow"])
def test_the_api_server_takes_what_is_right(api_server, tmp_path, document):
    path = tmp_path / "object.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    verdict, _ = referee.judge(api_server, "API server", path)
    assert (verdict.result, verdict.reason) == ("accepted", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "path", "value", "words"),
    [
        (TRAIN_JOB, ("spec", "trainer", "gpus"), 1, 'unknown field "spec.trainer.gpus"'),
        (TRAIN_JOB, ("metadata", "colour"), "red", 'unknown field "metadata.colour"'),
        (TRAIN_JOB, ("spec", "trainer", "numNodes"), "two", "must be of type integer"),
        (TRAIN_JOB, ("spec", "runtimeRef"), None, "Required value"),
        (TRAIN_JOB, ("metadata", "name"), "Bike_Job", "RFC 1123"),
        (TRAIN_JOB, ("metadata",), {}, "name or generateName is required"),
        (WORKFLOW, ("spec", "templates", 0, "container", "imagee"), "x", "unknown field"),
        (WORKFLOW, ("spec", "templates", 0, "container", "resources"), {"limits": {"cpu": {}}}, "limits.cpu"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_the_api_server_refuses_what_is_not(api_server, tmp_path, document, path, value, words):
    file = tmp_path / "object.yaml"
    file.write_text(yaml.safe_dump(changed(document, path, value)), encoding="utf-8")
    verdict, _ = referee.judge(api_server, "API server", file)
    assert verdict.result == "refused"
    assert words in verdict.reason


@pytest.mark.slow
def test_an_object_that_no_definition_knows_is_no_verdict(api_server, tmp_path):
    file = tmp_path / "object.yaml"
    file.write_text(yaml.safe_dump({**TRAIN_JOB, "kind": "TrainingJob"}), encoding="utf-8")
    with pytest.raises(referee.AbsentError, match="no CRD that was given defines"):
        referee.judge(api_server, "API server", file)


@pytest.mark.slow
def test_the_manifests_of_the_project_are_taken(api_server):
    manifests = referee.custom_resources(referee.ROOT / "configs" / "kubernetes")
    if not manifests:
        pytest.skip("the project ships no manifests of custom resources yet")
    for manifest in manifests:
        verdict, _ = referee.judge(api_server, "API server", manifest)
        assert verdict.result == "accepted", verdict.reason


# A registry of the test's own, with modules that have KFP's names and signatures and no more: what is tested with it is
# how the referee builds and asks, not what KFP says.
TEMPLATE = """
package template

import (
	"errors"
	"strings"

	"github.com/kubeflow/pipelines/api/spec"
	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
	"github.com/kubeflow/pipelines/backend/src/apiserver/model"
)

type Execution interface{ ToStringForStore() string }
type workflow string

func (w workflow) ToStringForStore() string { return string(w) }

type Template interface {
	RunWorkflow(run *model.Run, options RunWorkflowOptions) (Execution, error)
}
type RunWorkflowOptions struct{ RunID string }
type uploaded struct{ text string }

func (u *uploaded) RunWorkflow(_ *model.Run, _ RunWorkflowOptions) (Execution, error) {
	if strings.Contains(u.text, "resolver") {
		return nil, errors.New("non-container and non-importer\\nexecutor not implemented")
	}
	return workflow(`{"kind": "Workflow", "proxy": "` + proxy.Get() + `"}`), nil
}
%s
	if !strings.Contains(string(bytes), spec.Version) {
		return nil, errors.New("KFP only supports schema version 2.1.0")
	}
	return &uploaded{string(bytes)}, nil
}
"""
OLD_NEW = "func New(bytes []byte, cacheDisabled bool) (Template, error) {"
NEW_NEW = """
type TemplateOptions struct{ CacheDisabled bool }

func New(bytes []byte, opts TemplateOptions) (Template, error) {"""
PROXY = """
package proxy

var value = ""

func InitializeConfigWithEmptyForTests() { value = "none" }

func Get() string {
	if value == "" {
		panic("not initialized")
	}
	return value
}
"""


def publish(registry, module, tag, version, files, requires=""):
    folder = registry / module / "@v"
    folder.mkdir(parents=True, exist_ok=True)
    go_mod = f"module {module}\n\ngo 1.21\n{requires}"
    info = json.dumps({"Version": version, "Time": "2026-01-02T03:04:05Z"})
    for name in (tag, version):
        (folder / f"{name}.info").write_text(info, encoding="utf-8")
    (folder / f"{version}.mod").write_text(go_mod, encoding="utf-8")
    (folder / "list").write_text("", encoding="utf-8")
    with zipfile.ZipFile(folder / f"{version}.zip", "w") as archive:
        for name, content in {**files, "go.mod": go_mod}.items():
            archive.writestr(f"{module}@{version}/{name}", content)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    folder = tmp_path / "registry"
    for tag, second, new in (("2.14.4", "01", OLD_NEW), ("2.17.0", "02", NEW_NEW)):
        version = f"v0.0.0-202601020304{second}-0123456789ab"
        publish(folder, f"{referee.KFP}/api", tag, version, {"spec/s.go": 'package spec\n\nconst Version = "2.1.0"\n'})
        publish(folder, f"{referee.KFP}/kubernetes_platform", tag, version, {"p/p.go": "package p\n"})
        placeholder = "v0.0.0-00010101000000-000000000000"
        requires = f"\nrequire {referee.KFP}/api {placeholder}\n\nreplace {referee.KFP}/api => ./api\n"
        requires += f"replace {referee.KFP}/kubernetes_platform => ./kubernetes_platform\n"
        base = "backend/src/apiserver"
        files = {
            f"{base}/template/template.go": TEMPLATE % new,
            f"{base}/model/model.go": "package model\n\ntype Run struct{ DisplayName string }\n",
            f"{base}/config/proxy/proxy.go": PROXY,
        }
        publish(folder, referee.KFP, tag, version, files, requires)
    monkeypatch.setenv("GOPROXY", folder.as_uri())
    monkeypatch.setenv("GOSUMDB", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    api_server = "import sys; print(open(sys.argv[-1]).read())"
    monkeypatch.setattr(referee, "build_objects", lambda *_: [sys.executable, "-c", api_server])
    monkeypatch.setattr(referee, "build_reader", lambda *_: folder)
    monkeypatch.setattr(referee, "read_alike", lambda _, spec: referee.Verdict(referee.READER, spec.name, "accepted"))
    return folder


@pytest.fixture
def specs(tmp_path):
    def write(**texts):
        paths = []
        for name, text in texts.items():
            paths.append(tmp_path / f"{name}.yaml")
            paths[-1].write_text(text, encoding="utf-8")
        return paths

    return write


@needs_go
def test_both_versions_are_built_and_asked_at_upload_and_at_run_creation(registry, specs, tmp_path, capsys):
    good, old, resolver = specs(good="schemaVersion: 2.1.0", old="schemaVersion: 2.0.0", stock="2.1.0 resolver: {}")
    build = tmp_path / "build"
    assert referee.main(["--spec", str(good), "--build", str(build)]) == 0
    said = capsys.readouterr().out
    assert [line[:26].strip() for line in said.splitlines()] == [
        "Go's YAML reader",
        "Kubeflow Pipelines 2.14.4",
        "Kubeflow Pipelines 2.17.0",
        *["API server, Trainer v2.0.0"] * 2,
        *["API server, Trainer v2.3.0"] * 2,
    ]
    assert json.loads((build / "good-2.17.0.workflow.json").read_text("utf-8")) == {"kind": "Workflow", "proxy": "none"}
    verdicts = referee.session([good, old, resolver], [], ["2.14.4"], build, timeout=300)
    assert [(verdict.result, verdict.reason) for verdict in verdicts[3:6]] == [
        ("accepted", ""),
        ("refused", "refused at upload: KFP only supports schema version 2.1.0"),
        ("refused", "refused at run creation: non-container and non-importer executor not implemented"),
    ]
    arguments = ["--spec", str(old), "--version", "2.14.4", "--build", str(build)]
    assert referee.main(arguments) == referee.main([*arguments, "--report-absent"]) == referee.REFUSED


@needs_go
def test_a_registry_without_the_module_is_told_and_is_no_acceptance(registry, specs, tmp_path, capsys):
    (good,) = specs(good="schemaVersion: 2.1.0")
    shutil.rmtree(registry / referee.KFP / "@v")
    arguments = ["--spec", str(good), "--version", "2.17.0", "--build", str(tmp_path / "build")]
    assert referee.main(arguments) == referee.ABSENT
    said = capsys.readouterr()
    assert "not asked: go mod download" in said.out
    assert "no acceptance" in said.err
    assert referee.main([*arguments, "--report-absent"]) == 0
    assert "no acceptance" in capsys.readouterr().err


def test_without_go_nobody_is_asked_and_that_is_no_acceptance(specs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    (good,) = specs(good="schemaVersion: 2.1.0")
    assert referee.main(["--spec", str(good)]) == referee.ABSENT
    assert capsys.readouterr().out.count("not asked: there is no Go on the PATH") == 3


def test_nothing_to_ask_about_is_no_acceptance_either(tmp_path, monkeypatch):
    monkeypatch.setattr(referee, "ROOT", tmp_path)
    assert referee.main([]) == referee.ABSENT


def test_the_golden_specs_are_what_is_asked_about(monkeypatch):
    asked = []
    monkeypatch.setattr(referee, "session", lambda specs, *_: asked.extend(specs) or [])
    referee.main([])
    assert {"object-store.yaml", "volume.yaml"} <= {Path(spec).name for spec in asked}


@pytest.fixture(scope="session")
def reader():
    """Go's YAML reader as a program; skips where Go or the module cannot be had."""
    try:
        return referee.build_reader(referee.Go(timeout=600), referee.ROOT / "build" / "referee")
    except referee.AbsentError as error:
        pytest.skip(f"Go's YAML reader cannot be had: {error}")


GOLDEN = sorted((referee.ROOT / "tests" / "runners" / "kubeflow" / "golden").glob("*.yaml"))


@pytest.mark.parametrize("spec", GOLDEN, ids=lambda path: path.stem)
def test_go_reads_a_compiled_spec_as_it_is_meant(reader, spec):
    verdict = referee.read_alike(reader, spec)
    assert (verdict.result, verdict.reason) == ("accepted", "")


@pytest.mark.parametrize("value", ["65e3", "1E5", "1e-3", ".5e1", "08", "0o17", "-0o7"])
def test_go_reads_a_number_where_python_reads_a_text(reader, specs, value):
    (spec,) = specs(plain=f"env:\n- value: {value}\n")
    verdict = referee.read_alike(reader, spec)
    assert (verdict.result, verdict.reason) == ("refused", "Go reads another value at [0].env[0].value")
    (quoted,) = specs(quoted=f'env:\n- value: "{value}"\n')
    assert referee.read_alike(reader, quoted).result == "accepted"


def test_what_our_reader_makes_of_a_scalar_is_what_gos_makes_of_it(reader, tmp_path):
    scalars = ["65e3", ".5e1", "08", "017", "0b1", "1_0", "0x_1", "1e309", "on", "~", "1:30", "2026-1-2", "+.5", "-0o7"]
    text = "".join(f"k{number}: {scalar}\n" for number, scalar in enumerate(scalars))
    file = tmp_path / "scalars.yaml"
    file.write_text(text, encoding="utf-8")
    _, said = referee.judge([str(reader)], "reader", file)
    assert go_yaml.load_all(text) == [json.loads(said)]


def test_a_retry_that_argo_would_not_make_is_a_refusal():
    def workflow(**given):
        parameters = [{"name": f"retry-{name.replace('_', '-')}", "value": value} for name, value in given.items()]
        task = {"name": "trainer", "arguments": {"parameters": parameters}}
        return json.dumps({"spec": {"templates": [{"name": "root", "dag": {"tasks": [task]}}, {"container": {}}]}})

    assert referee.lost_retries(workflow(max_count="2", backoff_duration="30")) == ["trainer"]
    assert referee.lost_retries(workflow(max_count="2", backoff_max_duration="0")) == ["trainer"]
    assert referee.lost_retries(workflow(max_count="2", backoff_max_duration="2592000")) == []
    # Inside a template KFP only hands the argument on.
    inner = "{{inputs.parameters.retry-backoff-max-duration}}"
    assert referee.lost_retries(workflow(max_count="{{inputs.parameters.x}}", backoff_max_duration=inner)) == []
    assert referee.lost_retries(workflow()) == []
