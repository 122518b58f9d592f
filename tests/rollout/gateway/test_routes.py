"""Requests through the real Envoy: who answers them, in which shares, and what the access log says of it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline.rollout.gateway import envoy
from bike_pipeline.serving.server.access import KEY_VARIABLE
from tests.rollout.gateway.running import promoted, running_gateway, shared
from tests.serving.running import MODEL, push, row, running_server
from tests.serving.server.asking import answer_of, asked, request_of, wait_until

ASKED = {"instances": [row(8, 0.5)]}


@pytest.fixture(scope="module")
def tracks(simple_models, tmp_path_factory):
    """A gateway with a stable version 1, and version 2, 3 and 4 of other scales that may get a share."""
    folder = tmp_path_factory.mktemp("tracks")
    for version, scale in ((1, 1), (2, 2), (3, 3)):
        push(folder / "models", simple_models[scale], version)
    registry = promoted(folder / "models", 1)
    shared(registry, 2, "canary", 25)
    with running_gateway(folder / "models", folder / "workspace") as gateway:
        wait_until(lambda: "canary 25 %" in gateway.errors.read_text())
        yield gateway, registry


def by_rest(gateway, **headers):
    body = json.dumps(ASKED).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{gateway.url}:predict", body, headers), timeout=60) as found:
        return json.load(found)["predictions"][0]


def test_a_canary_gets_its_share_over_both_protocols(tracks):
    gateway, _ = tracks
    answers = Counter(by_rest(gateway) for _ in range(400))
    assert set(answers) == {58.0, 116.0}
    # The chance of a count that far from 100 is below one in a million.
    assert 55 <= answers[116.0] <= 150
    with grpc.insecure_channel(gateway.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answers = Counter(answer_of(stub.Predict(request_of(row(8, 0.5)), timeout=60))[0] for _ in range(400))
    assert set(answers) == {58.0, 116.0}
    assert 55 <= answers[116.0] <= 150
    # The servers are one each, so what a request names is what answers.
    label = f"{gateway.url}/labels/canary:predict"
    assert [asked(label, ASKED)[1] for _ in range(20)] == [{"predictions": [116.0]}] * 20
    assert asked(f"{gateway.url}/versions/1:predict", ASKED) == (200, {"predictions": [58.0]})
    assert asked(f"{gateway.url}/metadata")[0] == 200


def test_the_access_log_says_who_answered_and_how_long_it_took(tracks):
    gateway, registry = tracks
    for number in range(30):
        by_rest(gateway, **{"X-Request-Id": f"own-{number}", "Authorization": "Bearer s3cret"})
    with grpc.insecure_channel(gateway.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request_of(row(8, 0.5)), metadata=(("x-request-id", "over-grpc"),), timeout=60)
        with pytest.raises(grpc.RpcError):
            stub.Predict(request_of(row(8, 0.5), version=9), metadata=(("x-request-id", "refused"),), timeout=60)
    names = {*(f"own-{number}" for number in range(30)), "over-grpc", "refused"}
    wait_until(lambda: names <= {line["http"]["request"]["id"] for line in gateway.lines()})
    lines = {name: line for line in gateway.lines() if (name := line["http"]["request"]["id"]) in names}
    assert {line["bike"]["track"] for line in lines.values()} == {"stable", "canary"}
    revision = registry.deployment().revision
    for name, line in lines.items():
        assert line["bike"]["revision"] == revision
        assert line["http"]["response"]["status_code"] == 200
        assert 0 < line["bike"]["upstream_duration"] <= line["event"]["duration"] < 60e9
        assert line["bike"].get("grpc_status") == {"over-grpc": "OK", "refused": "NOT_FOUND"}.get(name)
        assert line["event"]["dataset"] == "bike_pipeline.gateway"
    assert "s3cret" not in gateway.access_log.read_text()


def test_a_user_of_a_challenger_always_gets_the_same_side_and_the_shares_are_right(tracks):
    gateway, registry = tracks
    shared(registry, 3, "challenger", 30)
    wait_until(lambda: "challenger 30 %" in gateway.errors.read_text())
    users = [f"user-{number}" for number in range(400)]
    sides = [{user: by_rest(gateway, **{"X-User-Id": user}) for user in users} for _ in range(3)]
    assert sides[0] == sides[1] == sides[2]
    counts = Counter(sides[0].values())
    assert set(counts) == {58.0, 116.0, 174.0}
    assert 75 <= counts[174.0] <= 170
    assert 55 <= counts[116.0] <= 150
    # Over gRPC it is the same side, and a canary that grows takes nobody from the challenger.
    shared(registry, 2, "canary", 60)
    wait_until(lambda: "canary 60 %" in gateway.errors.read_text())
    with grpc.insecure_channel(gateway.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for user in users:
            answer = answer_of(stub.Predict(request_of(row(8, 0.5)), metadata=(("x-user-id", user),), timeout=60))[0]
            assert (answer == 174.0) == (sides[0][user] == 174.0)
            assert answer == 116.0 or sides[0][user] != 116.0
    # Who has no name is answered by chance.
    assert len({by_rest(gateway) for _ in range(60)}) == 3
    registry.abort("challenger", "a test")


def test_a_shadow_is_asked_the_same_under_the_same_name_and_nobody_waits_for_it(tracks):
    gateway, registry = tracks
    registry.abort("canary", "a test")
    shared(registry, 2, "shadow", 100)
    wait_until(lambda: "shadow 100 %" in gateway.errors.read_text())
    asked_for = {f"mirrored-{number}" for number in range(20)}
    for name in asked_for:
        assert by_rest(gateway, **{"X-Request-Id": name}) == 58.0
    with grpc.insecure_channel(gateway.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(request_of(row(8, 0.5)), metadata=(("x-request-id", "mirrored-grpc"),), timeout=60)
        assert answer_of(response) == [58.0]
    asked_for.add("mirrored-grpc")
    folder = gateway.access_log.parents[1] / "monitoring"

    def logged(name):
        lines = [json.loads(line) for file in (folder / name).glob("*.jsonl") for line in file.read_text().splitlines()]
        return {line["http"]["request"]["id"]: line for line in lines if "http" in line}

    wait_until(lambda: asked_for <= logged("requests").keys() and asked_for <= logged("requests-shadow").keys())
    registry.abort("shadow", "a test")
    wait_until(lambda: gateway.errors.read_text().strip().endswith("routed: stable 100 % (version 1)"))


def test_a_hundred_changes_of_the_share_lose_no_request(tracks):
    gateway, registry = tracks
    shared(registry, 2, "canary", 1)
    wait_until(lambda: "canary 1 %" in gateway.errors.read_text())
    ended, failures, answers = threading.Event(), [], Counter()

    def over_rest():
        host, _, port = gateway.address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        body = json.dumps(ASKED).encode()
        while not ended.is_set():
            try:
                connection.request("POST", f"/v1/models/{MODEL}:predict", body)
                response = connection.getresponse()
                content = response.read()
                answers["rest", json.loads(content)["predictions"][0]] += 1
            except Exception as error:  # noqa: BLE001 (every failure counts)
                failures.append(repr(error))

    def over_grpc():
        with grpc.insecure_channel(gateway.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not ended.is_set():
                try:
                    answers["grpc", answer_of(stub.Predict(request_of(row(8, 0.5)), timeout=60))[0]] += 1
                except grpc.RpcError as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=one) for one in (over_rest, over_rest, over_grpc, over_grpc)]
    for thread in threads:
        thread.start()
    try:
        for number in range(100):
            before = gateway.errors.read_text().count("routed: ")
            if number % 40 == 39:
                # Its server goes and comes, too.
                stopped = gateway.errors.read_text().count("canary is stopped")
                registry.abort("canary", "a test")
                wait_until(lambda stopped=stopped: gateway.errors.read_text().count("canary is stopped") > stopped)
            else:
                shared(registry, 2, "canary", 2 + number % 20 * 5)
            wait_until(lambda before=before: gateway.errors.read_text().count("routed: ") > before)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {answer for _, answer in answers} == {58.0, 116.0}
    assert min(answers.values()) > 0
    assert len(answers) == 4


def test_servers_that_run_elsewhere_are_asked_and_a_sigterm_answers_what_is_under_way(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    with running_server(tmp_path / "models", tmp_path / "server") as server:
        address = f"{server.rest}:{server.grpc.rpartition(':')[2]}"
        options = ("--servers", f"stable={address}")
        with running_gateway(tmp_path / "nothing", tmp_path / "workspace", options=options) as gateway:
            assert by_rest(gateway) == 58.0
            with grpc.insecure_channel(gateway.address) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                assert answer_of(stub.Predict(request_of(row(8, 0.5)), timeout=60)) == [58.0]
                large = request_of(*[row(8, 0.5)] * 20_000)
                pending = [stub.Predict.future(large, timeout=60) for _ in range(4)]
                statistic = "/stats?filter=^http.gateway.downstream_rq_active$"
                wait_until(lambda: b": 0" not in envoy.asked(statistic, gateway.admin))
                gateway.process.terminate()
                assert [len(answer_of(one.result())) for one in pending] == [20_000] * 4
            assert gateway.process.wait(60) == 0
            host, _, port = gateway.address.partition(":")
            with socket.socket() as asking:
                assert asking.connect_ex((host, int(port))) != 0


def test_the_page_for_people_is_that_of_the_stable_server(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    push(tmp_path / "models", simple_models[2], 2)
    registry = promoted(tmp_path / "models", 1)
    shared(registry, 2, "canary", 50)
    with running_gateway(tmp_path / "models", tmp_path / "workspace", "serving.server.ui=true") as gateway:
        wait_until(lambda: "canary 50 %" in gateway.errors.read_text())
        states = [asked(f"http://{gateway.address}/ui/state.json")[1] for _ in range(10)]
        assert [state["serving"] for state in states] == ["1"] * 10
        assert (states[0]["labels"]["canary"]["version"], states[0]["labels"]["canary"]["percent"]) == ("2", 50.0)
        # What the page asks.
        assert asked(f"{gateway.url}/versions/1:predict", ASKED) == (200, {"predictions": [58.0]})
        assert asked(f"http://{gateway.address}/ui/nothing")[0] == 404


def test_where_no_server_has_the_page_the_gateway_has_none(tracks):
    gateway, _ = tracks
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{gateway.address}/ui/", timeout=60)


def test_servers_that_ask_for_a_key_get_it_from_the_gateway_whatever_a_client_sends(
    simple_models, tmp_path, monkeypatch
):
    for version, scale in ((1, 1), (2, 2)):
        push(tmp_path / "models", simple_models[scale], version)
    registry = promoted(tmp_path / "models", 1)
    shared(registry, 2, "canary", 0)
    monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdef" * 2)
    with running_server(tmp_path / "models", tmp_path / "server", "serving.server.poll_seconds=0.05") as server:
        address = f"{server.rest}:{server.grpc.rpartition(':')[2]}"
        assert asked(f"{server.url}:predict", ASKED)[0] == 401
        options = ("--servers", f"stable={address},canary={address}")
        with running_gateway(tmp_path / "models", tmp_path / "workspace", options=options) as gateway:
            wait_until(lambda: "canary 0 %" in gateway.errors.read_text())
            assert by_rest(gateway, Authorization="Bearer a-client's-own") == 58.0
            with grpc.insecure_channel(gateway.address) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                assert answer_of(stub.Predict(request_of(row(8, 0.5)), timeout=60)) == [58.0]
        # Embedded servers are on sockets that this user alone reaches.
        with running_gateway(tmp_path / "models", tmp_path / "embedded") as gateway:
            assert by_rest(gateway) == 58.0


def test_its_answer_comes_before_what_it_logs(server, tmp_path):
    address = f"stable={server.rest}:{server.grpc.rpartition(':')[2]}"
    command = [sys.executable, "-m", "bike_pipeline.cli", "gateway", "--port", "0", "--servers", address]
    with subprocess.Popen(
        [*command, "--set", f"workspace={tmp_path}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = [process.stdout.readline() for _ in range(5)]
        process.terminate()
    assert [line.split()[0] for line in lines[:4]] == ["REST", "gRPC", "access", "stable:"]
    assert lines[4].strip().endswith("routed: stable 100 % (version 0)")
