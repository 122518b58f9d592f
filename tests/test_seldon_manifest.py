"""Seldon's manifest by the rules that Seldon Core 1 publishes for it (its types and its validating webhook, 1.18).

Its definitions are in no package registry, so no API server judges it here. What is allowed stands below as far as the
manifest uses that, and everything else is refused.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bike_pipeline.commands.monitor import monitor_command
from bike_pipeline.commands.serve import serve_command
from bike_pipeline.monitoring.sidecars.events import REQUESTS
from bike_pipeline.rollout.tracks import LABELS
from bike_pipeline.serving.server.access import check_exposure
from bike_pipeline.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = list(yaml.safe_load_all((ROOT / "configs/kubernetes/seldon.yaml").read_text(encoding="utf-8")))
DEPLOYMENTS = [one for one in OBJECTS if one["kind"] == "SeldonDeployment"]
NAMESPACE, TEXT, COUNT = "bike-pipeline", {"type": "string"}, {"type": "integer", "minimum": 0}


def an_object(required, **properties):
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


PARAMETER = an_object(
    ["name", "value", "type"], name=TEXT, value=TEXT, type={"enum": ["INT", "FLOAT", "DOUBLE", "STRING", "BOOL"]}
)
UNIT = an_object(
    ["name"],
    name=TEXT,
    type={"enum": ["ROUTER", "COMBINER", "MODEL", "TRANSFORMER", "OUTPUT_TRANSFORMER"]},
    implementation={"enum": ["SIMPLE_MODEL", "SIMPLE_ROUTER", "RANDOM_ABTEST", "AVERAGE_COMBINER"]},
    parameters={"type": "array", "items": PARAMETER},
    logger=an_object(["mode"], mode={"enum": ["all", "request", "response"]}, url={**TEXT, "format": "uri"}),
    children={"type": "array", "items": {"$ref": "#/$defs/unit"}},
)
PREDICTOR = an_object(
    ["name", "graph"],
    name=TEXT,
    replicas=COUNT,
    traffic={**COUNT, "maximum": 100},
    shadow={"type": "boolean"},
    graph={"$ref": "#/$defs/unit"},
    componentSpecs={"type": "array", "items": an_object(["spec"], spec={"type": "object"})},
)
SCHEMA = {
    **an_object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "machinelearning.seldon.io/v1"},
        kind={"const": "SeldonDeployment"},
        metadata=an_object(["name"], name=TEXT, labels={"type": "object", "additionalProperties": TEXT}),
        spec=an_object(
            ["predictors"],
            protocol={"enum": ["seldon", "tensorflow", "kfserving", "v2"]},
            transport={"enum": ["rest", "grpc"]},
            predictors={"type": "array", "minItems": 1, "items": PREDICTOR},
        ),
    ),
    "$defs": {"unit": UNIT},
}


def units(unit):
    return [unit, *(one for child in unit.get("children", ()) for one in units(child))]


def containers(predictor):
    return {one["name"]: one for pod in predictor["componentSpecs"] for one in pod["spec"]["containers"]}


def problems(document):
    """Return what Seldon would refuse, or take for something else, by the path of the field."""
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)
    if found := [f"{error.json_path}: {error.message}" for error in errors]:
        return found
    predictors = document["spec"]["predictors"]
    answering = [one for one in predictors if not one.get("shadow")]
    if len({one["name"] for one in predictors}) < len(predictors):
        found.append("predictors: a name is there twice")
    if len(predictors) - len(answering) > 1 or not answering:
        found.append("shadow: more than one, or nothing beside it")
    if len(answering) > 1 and sum(one.get("traffic", 0) for one in answering) != 100:
        found.append("traffic: it does not come to 100")
    for predictor in predictors:
        there = containers(predictor)
        for unit in units(predictor["graph"]):
            if "implementation" in unit:
                continue
            ports = {port["name"] for port in there.get(unit["name"], {}).get("ports", ())}
            if unit["name"] not in there:
                found.append(f"graph: no container is called {unit['name']}")
            elif ports != {"http", "grpc"}:
                found.append(f"ports: the executor would ask {unit['name']} at a port of its own")
    return found


@pytest.mark.parametrize("document", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_it_is_what_seldon_defines_and_its_pods_are_what_kubernetes_defines(document):
    assert problems(document) == []
    for predictor in document["spec"]["predictors"]:
        for number, pod in enumerate(predictor["componentSpecs"]):
            name = f"{predictor['name']}-{number}"
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}
            kubernetes_validate.validate(whole, kubernetes_validate.latest_version(), strict=True)


def _renamed_port(document):
    containers(document["spec"]["predictors"][0])["serve"]["ports"][0]["name"] = "rest"


WRONG = {
    "traffic": lambda one: one["spec"]["predictors"][1].update(traffic=20),
    "shadow": lambda one: one["spec"]["predictors"][1].update(shadow=True),
    "predictors: a name": lambda one: one["spec"]["predictors"][1].update(name="stable"),
    "graph: no container": lambda one: one["spec"]["predictors"][0]["graph"].update(name="server"),
    "ports": _renamed_port,
    "protocol": lambda one: one["spec"].update(protocol="tf"),
    "transport": lambda one: one["spec"].update(transport="REST"),
    "mode": lambda one: one["spec"]["predictors"][0]["graph"]["logger"].pop("mode"),
    "implementation": lambda one: one["spec"]["predictors"][0]["graph"].update(implementation="TENSORFLOW_SERVR"),
    "canaryTrafficPercent": lambda one: one["spec"]["predictors"][1].update(canaryTrafficPercent=10),
    "apiVersion": lambda one: one.update(apiVersion="machinelearning.seldon.io/v1alpha2"),
}


@pytest.mark.parametrize("field", WRONG)
def test_one_mistake_is_refused_by_its_field(field):
    document = copy.deepcopy(DEPLOYMENTS[0])
    WRONG[field](document)
    (problem, *_) = problems(document)
    assert field in problem


def test_each_predictor_serves_one_label_as_the_command_line_takes_it():
    labels = []
    for document in DEPLOYMENTS:
        for predictor in document["spec"]["predictors"]:
            for container in containers(predictor).values():
                program, name, *options = container["command"]
                assert (program, name) == ("bike-pipeline", "serve")
                assert serve_command.make_context(name, [*options, *container["args"]]) is not None
                sets = [text for before, text in pairwise([*options, *container["args"]]) if before == "--set"]
                settings = load_settings(assignments=tuple(sets))
                check_exposure(settings.serving.server.model_copy(update={"host": "0.0.0.0"}), "")
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                assert ports == {"http": settings.serving.server.rest_port, "grpc": settings.serving.server.grpc_port}
                assert str(settings.serving_path).startswith(container["volumeMounts"][0]["mountPath"])
                labels.append(settings.serving.server.label)
            models = [p["value"] for unit in units(predictor["graph"]) for p in unit["parameters"] if unit.get("type")]
            assert set(models) == {load_settings().serving.model_name}
    assert labels == ["stable", "canary", "shadow", "stable", "challenger"]
    assert set(labels) <= set(LABELS)


def test_requests_reach_every_sidecar_by_the_broker_and_answers_reach_none():
    [broker] = [one for one in OBJECTS if one["kind"] == "Broker"]
    urls = {
        unit["logger"]["url"]
        for document in DEPLOYMENTS
        for predictor in document["spec"]["predictors"]
        for unit in units(predictor["graph"])
        if "logger" in unit
    }
    ingress = "http://broker-ingress.knative-eventing.svc.cluster.local"
    assert urls == {f"{ingress}/{NAMESPACE}/{broker['metadata']['name']}"}
    by_kind = {kind: {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind} for kind in
               ("Trigger", "Service", "Deployment")}  # fmt: skip
    assert set(by_kind["Trigger"]) == {"bike-outlier", "bike-drift", "bike-explainer"}
    for name, trigger in by_kind["Trigger"].items():
        assert trigger["spec"]["broker"] == broker["metadata"]["name"]
        assert trigger["spec"]["filter"]["attributes"]["type"] in REQUESTS
        service = by_kind["Service"][trigger["spec"]["subscriber"]["ref"]["name"]]
        pod = by_kind["Deployment"][name]["spec"]["template"]
        assert service["spec"]["selector"] == pod["metadata"]["labels"]
        [container] = pod["spec"]["containers"]
        program, group, command, *options = container["command"]
        assert (program, group, command) == ("bike-pipeline", "monitor", "sidecar")
        sidecar = monitor_command.commands[command]
        parsed = sidecar.make_context(command, [*options, *container["args"]])
        assert parsed.params["kind"] == name.removeprefix("bike-")
        assert parsed.params["port"] == container["ports"][0]["containerPort"]


def test_a_shadow_s_copies_come_to_no_sidecar_twice():
    logged = {p["name"]: "logger" in p["graph"] for p in DEPLOYMENTS[0]["spec"]["predictors"]}
    assert logged == {"stable": True, "canary": True, "shadow": False}
