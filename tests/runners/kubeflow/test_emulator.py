"""What runs a compiled spec here does what KFP's driver and launcher do; the tasks are one-liners in Python."""

from __future__ import annotations

import json

import pytest
import yaml

from bike_pipeline.errors import ConfigurationError, DataGateError, ExitCode, StageError
from bike_pipeline.runners.kubeflow.emulator import Emulator
from bike_pipeline.runners.kubeflow.platform_document import RUN_ID_FIELD
from bike_pipeline.runners.scheduling import run_in_order

ROOT = "minio://bucket/root"
READ = "import json, os, sys; given = json.loads(sys.argv[1]); root = os.environ['BIKE_PIPELINE_MOUNT_ROOT']\n"
WRITE = (
    READ
    + """
uri = given["outputs"]["artifacts"]["made"]["artifacts"][0]["uri"]
folder = root + "/" + uri.replace("://", "/")
os.mkdir(folder)
open(folder + "/file", "w").write(json.dumps(given["inputs"].get("parameterValues")) + os.environ["RUN"])
os.makedirs(os.path.dirname(given["outputs"]["outputFile"]), exist_ok=True)
json.dump({"artifacts": {"made": {"artifacts": [{"metadata": {"rows": 3, "splits": {"a": 1}}}]}}},
          open(given["outputs"]["outputFile"], "w"))
"""
)
LOOK = (
    READ
    + """
[artifact] = given["inputs"]["artifacts"]["made"]["artifacts"]
print(json.dumps(artifact))
print(open(root + "/" + artifact["uri"].replace("://", "/") + "/file").read())
print(sorted(os.listdir(os.path.dirname(root + "/" + artifact["uri"].replace("://", "/")))))
"""
)


PRINT = READ + "print(json.dumps(given))\n"


def printed(capsys, task):
    """Return what a task printed as its only line of JSON."""
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"[{task}] ")]
    return json.loads(line.partition("] ")[2])


def spec_file(tmp_path, programs, **changes):
    """Write a spec whose tasks Make and Look run the given programs; Look takes what Make made."""
    made = {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}}
    tasks = {
        "Make": {
            "componentRef": {"name": "Make"},
            "taskInfo": {"name": "Make"},
            "inputs": {"parameters": {"count": {"componentInputParameter": "count"}}},
        },
        "Look": {
            "componentRef": {"name": "Look"},
            "taskInfo": {"name": "Look"},
            "dependentTasks": ["Make"],
            "inputs": {
                "artifacts": {"made": {"taskOutputArtifact": {"producerTask": "Make", "outputArtifactKey": "made"}}}
            },
        },
    }
    for name, change in changes.items():
        tasks[name] |= change
    components = {
        "Make": {
            "executorLabel": "Make_executor",
            "inputDefinitions": {"parameters": {"count": {"parameterType": "NUMBER_INTEGER"}}},
            "outputDefinitions": {"artifacts": {"made": made}},
        },
        "Look": {"executorLabel": "Look_executor", "inputDefinitions": {"artifacts": {"made": made}}},
    }
    executors = {
        f"{name}_executor": {"container": {"image": "any", "command": ["python", "-c", program], "args": ["{{$}}"]}}
        for name, program in programs.items()
    }
    spec = {
        "schemaVersion": "2.1.0",
        "pipelineInfo": {"name": "small"},
        "defaultPipelineRoot": ROOT,
        "deploymentSpec": {"executors": executors},
        "components": components,
        "root": {
            "dag": {"tasks": tasks},
            "inputDefinitions": {"parameters": {"count": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5}}},
        },
    }
    pod = {"fieldPathAsEnv": [{"name": "RUN", "fieldPath": RUN_ID_FIELD}]}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": dict.fromkeys(executors, pod)}}}}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]), encoding="utf-8")
    return path


def run(file, tmp_path, root=ROOT, **parameters):
    emulator = Emulator(file, tmp_path / "run", "run-1", root, parameters)
    told = []

    def launch(name):
        emulator.run_task(name, lambda fraction, text: told.append((name, fraction, text)))
        return name

    assert run_in_order(emulator.upstream, launch, 1) == ["Make", "Look"]
    return told


def test_a_consumer_gets_what_the_producer_made_and_nothing_else(tmp_path, capsys):
    run(spec_file(tmp_path, {"Make": WRITE, "Look": LOOK}), tmp_path)
    lines = [line.removeprefix("[Look] ") for line in capsys.readouterr().out.splitlines() if line.startswith("[Look]")]
    artifact = json.loads(lines[0])
    assert artifact["uri"].startswith(f"{ROOT}/small/run-1/Make/")
    assert artifact["type"] == {"instanceSchema": ""}
    assert json.loads(artifact["metadata"].pop("store_session_info"))["Provider"] == "minio"
    assert artifact["metadata"] == {"display_name": "made", "rows": 3, "splits": {"struct": {"a": 1}}}
    assert lines[1] == '{"count": 5}run-1'
    assert lines[2] == "['made']"


def test_a_run_may_give_its_parameters_other_values(tmp_path, capsys):
    run(spec_file(tmp_path, {"Make": WRITE, "Look": LOOK}), tmp_path, count=8)
    assert '{"count": 8}run-1' in capsys.readouterr().out


def test_a_failed_task_is_tried_again_as_often_as_its_policy_says(tmp_path):
    counting = f"import sys; p = {str(tmp_path / 'tries')!r}; open(p, 'a').write('x')\n" + WRITE
    failing = counting + "\nif len(open(p).read()) < 3: sys.exit(1)"
    policy = {"maxRetryCount": 2, "backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "86400s"}
    run(spec_file(tmp_path, {"Make": failing, "Look": LOOK}, Make={"retryPolicy": policy}), tmp_path)
    assert (tmp_path / "tries").read_text(encoding="utf-8") == "xxx"
    logs = (tmp_path / "run" / "store").rglob("executor-logs-*")
    assert sorted(path.name for path in logs) == ["executor-logs-0", "executor-logs-1", "executor-logs-2"]


@pytest.mark.parametrize(
    ("policy", "tries", "words"),
    [
        ({}, "x", "Max duration limit exceeded"),
        ({"backoffMaxDuration": "0s"}, "x", "Max duration limit exceeded"),
        ({"backoffMaxDuration": "20s"}, "x", "Backoff would exceed max duration limit"),
        ({"backoffMaxDuration": "85s"}, "xx", "Backoff would exceed max duration limit"),
        ({"backoffMaxDuration": "85s", "backoffFactor": 0}, "xxx", "Backoff would exceed max duration limit"),
    ],
)
def test_a_retry_that_argo_would_not_make_is_not_made_here(tmp_path, capsys, policy, tries, words):
    failing = f"import sys; open({str(tmp_path / 'tries')!r}, 'a').write('x'); sys.exit(1)"
    policy = {"maxRetryCount": 5, "backoffDuration": "30s", "backoffFactor": 2.0, **policy}
    with pytest.raises(StageError):
        run(spec_file(tmp_path, {"Make": failing, "Look": LOOK}, Make={"retryPolicy": policy}), tmp_path)
    assert (tmp_path / "tries").read_text(encoding="utf-8") == tries
    assert f"[Make] not tried again: {words}" in capsys.readouterr().out


def test_the_root_is_that_of_the_request_and_never_the_specs(tmp_path, capsys):
    run(spec_file(tmp_path, {"Make": WRITE, "Look": PRINT}), tmp_path, root="s3://other/place/")
    [artifact] = printed(capsys, "Look")["inputs"]["artifacts"]["made"]["artifacts"]
    assert artifact["uri"].startswith("s3://other/place/small/run-1/Make/")


def test_a_task_is_given_what_kubeflow_gives_it_and_no_more(tmp_path, capsys):
    run(spec_file(tmp_path, {"Make": WRITE + PRINT, "Look": PRINT}), tmp_path)
    out = capsys.readouterr().out
    make, look = (json.loads(line.partition("] ")[2]) for line in out.splitlines() if '"outputs"' in line)
    for name, given in (("Make", make), ("Look", look)):
        [logs] = given["outputs"]["artifacts"]["executor-logs"]["artifacts"]
        place = logs["uri"].removesuffix("/executor-logs")
        assert given["outputs"]["outputFile"].endswith(f"/{place.replace('://', '/')}/output_metadata.json")
        assert place.startswith(f"{ROOT}/small/run-1/{name}/")
        assert "parameters" not in given["outputs"], "empty maps are left out"
    [made] = make["outputs"]["artifacts"]["made"]["artifacts"]
    assert set(made) == {"name", "type", "uri"}, "no metadata where the spec has none"
    assert made["name"] == "made"
    assert "artifacts" not in make["inputs"]
    assert "parameterValues" not in look["inputs"]
    [logs] = [path for path in (tmp_path / "run" / "store").rglob("executor-logs") if "Look" in str(path)]
    assert '"outputs"' in logs.read_text(encoding="utf-8")


def test_files_lose_what_an_object_store_does_not_keep(tmp_path, capsys):
    making = WRITE + (
        "os.mkdir(folder + '/empty'); os.mkdir(folder + '/deep'); open(folder + '/deep/run.sh', 'w').write('x')\n"
        "os.chmod(folder + '/deep/run.sh', 0o755); os.symlink(folder + '/file', folder + '/link')"
    )
    looking = READ + (
        "folder = root + '/' + given['inputs']['artifacts']['made']['artifacts'][0]['uri'].replace('://', '/')\n"
        "print(json.dumps([os.path.isdir(folder + '/empty'), os.access(folder + '/deep/run.sh', os.X_OK),"
        " os.path.islink(folder + '/link'), os.path.isfile(folder + '/link')]))"
    )
    run(spec_file(tmp_path, {"Make": making, "Look": looking}), tmp_path)
    assert printed(capsys, "Look") == [False, False, False, True]


def test_a_link_to_a_folder_cannot_be_uploaded(tmp_path):
    making = WRITE + "os.mkdir(folder + '/a'); os.symlink(folder + '/a', folder + '/b')"
    with pytest.raises(StageError, match=r"output 'made' cannot be uploaded \(Is a directory\)"):
        run(spec_file(tmp_path, {"Make": making, "Look": LOOK}), tmp_path)


def test_placeholders_are_filled_in_arguments_and_only_the_whole_input_in_the_program(tmp_path, capsys):
    uri, path = "{{$.outputs.artifacts['made'].uri}}", "{{$.outputs.artifacts['made'].path}}"
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    file = spec_file(tmp_path, {"Make": program, "Look": "pass"})
    spec, platform = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    container = spec["deploymentSpec"]["executors"]["Make_executor"]["container"]
    container["args"] = [uri, path, "{{$.inputs.parameters['count']}}"]
    file.write_text(yaml.safe_dump_all([spec, platform]), encoding="utf-8")
    run(file, tmp_path, count=7.0)
    written = printed(capsys, "Make")
    assert written[0].startswith(f"{ROOT}/small/run-1/Make/")
    assert written[1].endswith(f"/Make/{written[0].replace('://', '/')}")
    assert written[2] == "7"
    container["command"] = [uri]
    file.write_text(yaml.safe_dump_all([spec, platform]), encoding="utf-8")
    with pytest.raises(StageError, match=r"cannot be started .*outputs\.artifacts"):
        run(file, tmp_path)


def test_an_error_of_a_task_keeps_its_kind_and_its_line(tmp_path):
    refusing = "import sys; print('error: span 4 is refused.', file=sys.stderr); sys.exit(5)"
    with pytest.raises(DataGateError, match=r"^span 4 is refused$") as error:
        run(spec_file(tmp_path, {"Make": refusing, "Look": LOOK}), tmp_path)
    assert error.value.exit_code == ExitCode.DATA_GATE


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; print('out of luck'); sys.exit(77)", r"ended with exit code 77 \(out of luck\)"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9"),
        (WRITE + "\nopen(given['outputs']['outputFile'], 'w').write('{\"artefacts\": 1}')", "no ExecutorOutput"),
        (
            WRITE.replace('{"metadata": ', '{"uri": "minio://bucket/elsewhere", "metadata": '),
            "not below the run's root",
        ),
    ],
)
def test_a_task_that_breaks_the_contract_fails(tmp_path, program, told):
    with pytest.raises(StageError, match=told) as error:
        run(spec_file(tmp_path, {"Make": program, "Look": LOOK}), tmp_path)
    assert error.value.where == "Make"


def test_progress_reaches_whoever_watches(tmp_path):
    assert run(spec_file(tmp_path, {"Make": WRITE + "\nprint('::progress 0.500 half')", "Look": LOOK}), tmp_path) == [
        ("Make", 0.5, "half")
    ]


def test_what_is_no_spec_or_cannot_be_run_here_is_refused(tmp_path):
    file = spec_file(tmp_path, {"Make": WRITE, "Look": LOOK}, Look={"noSuchField": 1})
    with pytest.raises(ConfigurationError, match="not a pipeline spec"):
        Emulator(file, tmp_path, "run-1", ROOT, {})
    file = spec_file(tmp_path, {"Make": WRITE, "Look": LOOK}, Look={"triggerPolicy": {"condition": "true"}})
    with pytest.raises(ConfigurationError, match="not run without a cluster"):
        Emulator(file, tmp_path, "run-1", ROOT, {})
    circular = {"dependentTasks": ["Look"]}
    file = spec_file(tmp_path, {"Make": WRITE, "Look": LOOK}, Make=circular)
    with pytest.raises(ConfigurationError, match="wait for each other"):
        assert Emulator(file, tmp_path, "run-1", ROOT, {}).upstream
