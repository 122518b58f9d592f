"""Requests of both APIs to a server, and what comes back."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest

from bike_pipeline.serving.protos import (
    example_pb2,
    predict_pb2,
)
from bike_pipeline.serving.server import tensors
from tests.serving.running import MODEL


def asked(url, body=None, method=None):
    """Return the status and the JSON that answers a GET, or a POST where there is a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def request_of(*rows, signature="", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    for name in rows[0]:
        kind = np.float32 if isinstance(rows[0][name], float) else np.int64
        tensors.fill(request.inputs[name], np.array([one[name] for one in rows], kind))
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    return request


def answer_of(response):
    return tensors.to_array(response.outputs["cnt"], "cnt").tolist()


def example_of(values):
    example = example_pb2.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        (feature.float_list if isinstance(value, float) else feature.int64_list).value.append(value)
    return example.SerializeToString()


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return caught.value.code(), caught.value.details()


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")


def available(running):
    _, told = asked(running.url)
    return [int(v["version"]) for v in told["model_version_status"] if v["state"] == "AVAILABLE"]


def b64(content):
    import base64

    return base64.b64encode(content).decode()


def unproven(folder):
    """Make a version one that nothing is known of, so that what loads it has to find out."""
    for name in ("push.json", "evidence.json", "model.sig"):
        (folder / name).unlink()
