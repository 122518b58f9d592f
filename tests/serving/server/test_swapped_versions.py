"""Versions, labels and broken pushes while a server answers: no request fails or is mixed up."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bike_pipeline.serving.protos import (
    model_management_pb2,
)
from tests.serving.running import MODEL, push, row
from tests.serving.server.asking import answer_of, asked, available, refused, request_of, unproven, wait_until

SWAPS = 12


async def _ask_rest(url, stop, results):
    async with aiohttp.ClientSession() as session:
        count = 0
        while not stop.is_set():
            count += 1
            hr, temp = count % 24, (count % 97) / 128
            async with session.post(f"{url}:predict", json={"instances": [row(hr, temp)]}) as response:
                body = await response.json()
            value = body["predictions"][0] / (hr + 100 * temp) if hr + temp else 1.0
            results.append(("rest", response.status, round(value, 4)))


async def _ask_grpc(address, stop, results):
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        count = 0
        while not stop.is_set():
            count += 1
            rows = [row((count + each) % 23 + 1, (count % 89) / 128) for each in range(3)]
            response = await stub.Predict(request_of(*rows), timeout=60)
            # Version 2n has scale 2, version 2n + 1 has scale 1.
            scale = 2 - response.model_spec.version.value % 2
            expected = [scale * (one["hr"] + 100 * one["temp"]) for one in rows]
            np.testing.assert_allclose(answer_of(response), expected, rtol=1e-6)
            results.append(("grpc", 200, float(scale)))


def test_no_request_fails_or_is_mixed_up_while_versions_are_swapped(server, simple_models):
    results = []

    async def swap(stop):
        for version in range(2, SWAPS + 2):
            await asyncio.to_thread(push, server.base, simple_models[2 - version % 2], version)
            async with asyncio.timeout(60):
                while await asyncio.to_thread(available, server) != [version]:
                    await asyncio.sleep(0.01)
        stop.set()

    async def main():
        stop = asyncio.Event()
        asking = [_ask_rest(server.url, stop, results) for _ in range(6)]
        asking += [_ask_grpc(server.grpc, stop, results) for _ in range(3)]
        await asyncio.gather(swap(stop), *asking)

    asyncio.run(main())
    assert {status for _, status, _ in results} == {200}
    # An answer of two versions at once, or of another row, would be another number.
    assert {(kind, scale) for kind, _, scale in results} == {
        ("rest", 1.0), ("rest", 2.0), ("grpc", 1.0), ("grpc", 2.0),
    }  # fmt: skip
    _, told = asked(server.url)
    states = {int(v["version"]): v["state"] for v in told["model_version_status"]}
    assert states == {**dict.fromkeys(range(1, SWAPS + 1), "END"), SWAPS + 1: "AVAILABLE"}


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "export"])
def test_a_broken_version_never_replaces_a_good_one(server, simple_models, damage):
    folder = server.base / MODEL / ".incoming-2"
    import shutil

    shutil.copytree(server.base / MODEL / "1", folder)
    if damage == "changed":
        (folder / "saved_model.pb").write_bytes(b"\x00" + (folder / "saved_model.pb").read_bytes())
    elif damage == "cut":
        unproven(folder)
        (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:100])
    elif damage == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        unproven(folder)
        golden = folder / "assets.extra" / "exports" / "golden.json"
        columns = {name: [value] for name, value in row(8, 0.5).items()}
        golden.write_text(json.dumps({"columns": columns, "cnt": [59.0]}))
    folder.rename(server.base / MODEL / "2")
    wait_until(lambda: len(asked(server.url)[1]["model_version_status"]) == 2)
    wait_until(lambda: asked(server.url)[1]["model_version_status"][0]["state"] == "END")
    newest, oldest = asked(server.url)[1]["model_version_status"]
    assert (newest["version"], oldest["version"], oldest["state"]) == ("2", "1", "AVAILABLE")
    assert newest["status"]["error_code"] in {"DATA_LOSS", "NOT_FOUND"}
    assert newest["status"]["error_message"]
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
    # The next good one serves.
    push(server.base, simple_models[2], 3)
    wait_until(lambda: available(server) == [3])
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [116.0]})


def test_labels_and_versions_are_set_while_it_serves(server, simple_models):
    push(server.base, simple_models[2], 2)
    wait_until(lambda: available(server) == [2])
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add(name=MODEL, base_path=str(server.base / MODEL))
    config.model_version_policy.specific.versions.extend([1, 2])
    config.version_labels["stable"] = 1
    config.version_labels["canary"] = 2
    with grpc.insecure_channel(server.grpc) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        assert models.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
        assert answer_of(predict(request_of(row(8, 0.5), label="stable"), timeout=60)) == [58.0]
        assert answer_of(predict(request_of(row(8, 0.5), label="canary"), timeout=60)) == [116.0]
        assert answer_of(predict(request_of(row(8, 0.5), version=1), timeout=60)) == [58.0]
        code, details = refused(predict, request_of(row(8, 0.5), label="none"))
        assert (code, details) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: none",
        )
        config.version_labels["stable"] = 7
        code, details = refused(models.HandleReloadConfigRequest, request)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert "version 7" in details
        elsewhere = model_management_pb2.ReloadConfigRequest()
        elsewhere.config.model_config_list.config.add(name="x", base_path="/etc")
        assert refused(models.HandleReloadConfigRequest, elsewhere)[0] == grpc.StatusCode.PERMISSION_DENIED
        empty = model_management_pb2.ReloadConfigRequest()
        assert refused(models.HandleReloadConfigRequest, empty)[0] == grpc.StatusCode.INVALID_ARGUMENT
    url = f"{server.url}/labels/canary"
    assert asked(f"{url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [116.0]})
    assert asked(f"{url}/metadata")[1]["model_spec"]["version"] == "2"
    assert asked(f"{server.url}/labels/none:predict", {"instances": [row(8, 0.5)]})[0] == 400


def test_files_that_change_under_a_server_are_not_loaded_later(server):
    # The export answers; TensorFlow would read the SavedModel only now.
    variables = next((server.base / MODEL / "1" / "variables").glob("*.data-*"))
    variables.write_bytes(bytes(byte ^ 1 for byte in variables.read_bytes()))
    body = {"signature_name": "texts", "inputs": {"text": ["a"]}}
    status, told = asked(f"{server.url}:predict", body)
    assert status >= 400
    assert "was changed" in told["error"]
    assert asked(f"{server.url}:predict", {"instances": [row(8, 0.5)]}) == (200, {"predictions": [58.0]})
