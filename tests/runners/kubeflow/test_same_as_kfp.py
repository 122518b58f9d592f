"""What the run without a cluster gives a task, against KFP's own code for the same (kfp.local)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl
from kfp.local import executor_input_utils, placeholder_utils
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from bike_pipeline.runners.kubeflow.emulator import Emulator
from bike_pipeline.runners.kubeflow.launcher import LOGS, filled, placeholders
from bike_pipeline.runners.kubeflow.mounts import Mounts

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))
RUN = "20260102-a1b2c3"


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def given(request, tmp_path):
    """{task: (its component, its container, what our emulator gives it)} of a golden spec, tasks in order."""
    spec = next(yaml.safe_load_all(request.param.read_text(encoding="utf-8")))
    emulator = Emulator(request.param, tmp_path, RUN, "minio://bucket/root", {})
    found = {}
    for name in emulator.upstream:
        component = spec["components"][spec["root"]["dag"]["tasks"][name]["componentRef"]["name"]]
        executor_input = emulator._executor_input(name)
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        found[name] = (component, container, executor_input)
        # What the task would have written: the artifacts as they were announced, each with a name.
        outputs = copy.deepcopy(executor_input["outputs"]["artifacts"])
        for key, listed in outputs.items():
            listed["artifacts"][0] |= {"name": f"{name}-{key}", "metadata": {"span": 2.0}}
        emulator._outputs[name] = {"artifacts": outputs, "parameters": {}}
    return found


def test_every_executor_input_is_one_that_kfp_reads_strictly(given):
    assert {"CsvExampleGen", "Trainer", "Evaluator", "Pusher"} <= set(given)
    for _, _, executor_input in given.values():
        json_format.ParseDict(executor_input, pb.ExecutorInput())


def test_inputs_and_outputs_are_those_that_kfp_builds(given, tmp_path):
    for name, (component, _, ours) in given.items():
        message = json_format.ParseDict(component, pb.ComponentSpec())
        arguments = dict(ours["inputs"].get("parameterValues", {}))
        for key, listed in ours["inputs"].get("artifacts", {}).items():
            one = listed["artifacts"][0]
            arguments[key] = dsl.Artifact(name=one["name"], uri=one["uri"], metadata=one["metadata"])
        built = executor_input_utils.construct_executor_input(message, arguments, str(tmp_path), False)
        theirs = json_format.MessageToDict(built)
        read = json_format.MessageToDict(json_format.ParseDict(ours, pb.ExecutorInput()))
        assert read["inputs"].get("parameterValues") == theirs["inputs"].get("parameterValues"), name
        for side in ("inputs", "outputs"):
            mine, kfps = (one.get(side, {}).get("artifacts", {}) for one in (read, theirs))
            # kfp.local keeps no logs.
            assert set(mine) - {LOGS} == set(kfps), (name, side)
            for key, listed in ((key, listed) for key, listed in mine.items() if key != LOGS):
                (a,), (b,) = listed["artifacts"], kfps[key]["artifacts"]
                if side == "inputs":
                    assert [a[field] for field in ("name", "uri", "metadata")] == [
                        b[field] for field in ("name", "uri", "metadata")
                    ]
                else:
                    assert a["type"] == b["type"], (name, key)
        assert set(read["outputs"].get("parameters", {})) == set(theirs["outputs"].get("parameters", {}))


def test_commands_are_filled_as_kfp_fills_them(given):
    for name, (_, container, ours) in given.items():
        command = [*container["command"], *container.get("args", ())]
        mine = filled(tuple(command), placeholders(ours, Mounts()))
        theirs = placeholder_utils.replace_placeholders(command, copy.deepcopy(ours), "pipeline", name, "/root", RUN)
        assert len(mine) == len(theirs) == len(command)
        for before, a, b in zip(command, mine, theirs, strict=True):
            if before == "{{$}}":
                assert json.loads(a) == json.loads(b) == ours, name
            else:
                assert a == b, name
        assert any(before == "{{$}}" for before in command), name


def test_placeholders_of_single_values_are_filled_as_kfp_fills_them():
    executor_input = {
        "inputs": {
            "parameterValues": {"text": "a b", "share": 0.25, "list": [1, "x"], "yes": True, "map": {"a": None}},
            "artifacts": {"model": {"artifacts": [{"name": "m", "uri": "minio://bucket/model", "metadata": {}}]}},
        },
        "outputs": {
            "outputFile": "/tmp/outputs/output_metadata.json",
            "parameters": {"mae": {"outputFile": "/tmp/outputs/mae"}},
            "artifacts": {"out": {"artifacts": [{"name": "o", "uri": "minio://bucket/out", "metadata": {}}]}},
        },
    }
    command = [f"--{key}={{{{$.inputs.parameters['{key}']}}}}" for key in executor_input["inputs"]["parameterValues"]]
    command += ["{{$.inputs.artifacts['model'].uri}}", "{{$.outputs.artifacts['out'].uri}}"]
    command += ["{{$.outputs.parameters['mae'].output_file}}", "plain"]
    mine = filled(("program", *command), placeholders(executor_input, Mounts()))[1:]
    theirs = placeholder_utils.replace_placeholders(
        command, copy.deepcopy(executor_input), "pipeline", "task", "/root", RUN
    )
    assert mine == theirs
    # Go writes a whole number without its point, where kfp.local keeps it.
    executor_input["inputs"]["parameterValues"] = {"number": 3.0}
    assert filled(("p", "{{$.inputs.parameters['number']}}"), placeholders(executor_input, Mounts())) == ["p", "3"]
