"""All clients against a real `bike-pipeline serve` with mutual TLS, API keys and a limit of its rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.modeling.golden import golden_rows
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.rollout.gateway import api_keys
from bike_pipeline.serving import clients
from tests.rollout.gateway.attacking import gateway_before
from tests.rollout.gateway.authorities import Authority
from tests.serving.clients.asking import ask, both_ways, to
from tests.serving.running import push, running_server, with_export

# A model is exported and a server started.
pytestmark = [both_ways, pytest.mark.parametrize("protocol", ["rest", "grpc"]), pytest.mark.slow]
ROWS = {name: values[:100] for name, values in golden_rows(200).items()}
REQUIRED = [feature.name for feature in features.REQUIRED_INPUTS]


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory):
    """A connection over each protocol, and what the model itself answers."""
    folder = tmp_path_factory.mktemp("served")
    base = folder / "models"
    push(base, with_export(exported.path, folder / "model"), 1)
    authority = Authority(folder)
    server, client = authority.sign("server"), authority.sign("client", client=True)
    key = api_keys.create(folder / "workspace" / "keys" / "gateway-keys.json", "tests")[1]
    tls = (
        f"certificate_file: {server.certificate}",
        f"key_file: {server.key}",
        f"client_ca_file: {authority.certificate}",
    )
    settings = (
        f"tls={{{', '.join(tls)}}}",
        "authentication.methods=[api_keys]",
        "limits={requests_per_second: 3, burst: 2}",
    )
    files = {
        "ca_file": str(authority.certificate),
        "certificate": str(client.certificate),
        "key": str(client.key),
    }
    with running_server(base, folder / "server") as running, gateway_before(running, folder, *settings) as gateway:
        ports = {"rest": gateway.address, "grpc": gateway.address}
        connections = {
            protocol: to(
                int(place.rpartition(":")[2]),
                protocol,
                tls=True,
                api_key=key,
                timeout=60.0,
                retries=clients.RetryPolicy(attempts=20, first=0.01, longest=0.1),
                **files,
            )
            for protocol, place in ports.items()
        }
        model = LoadedModel(exported.path)
        yield connections, {len(names): model.predict({n: ROWS[n] for n in names}) for names in (ROWS, REQUIRED)}


@pytest.mark.parametrize("names", [list(ROWS), REQUIRED], ids=["all-inputs", "required"])
def test_it_answers_what_the_model_answers(served, way, protocol, names):
    connections, expected = served
    found = ask(way, connections[protocol], "predict", {name: ROWS[name] for name in names})
    np.testing.assert_allclose(found, expected[len(names)], rtol=1e-5, atol=1e-4)


def test_many_requests_wait_for_the_rate_that_the_server_allows(served, way, protocol):
    connections, expected = served
    found = ask(way, replace(connections[protocol], rows_per_request=25), "predict", ROWS)
    np.testing.assert_allclose(found, expected[len(ROWS)], rtol=1e-5, atol=1e-4)
    impatient = replace(connections[protocol], rows_per_request=5, retries=clients.RetryPolicy(attempts=1))
    with pytest.raises(clients.OverloadedError) as caught:
        ask(way, impatient, "predict", ROWS)
    assert caught.value.retry_after > 0


def test_it_tells_of_itself(served, way, protocol):
    connection = served[0][protocol]
    assert [(one.version, one.available) for one in ask(way, connection, "status")] == [(1, True)]
    found = ask(way, connection, "metadata")
    assert set(found.signatures["serving_default"].inputs) == {feature.name for feature in features.REQUIRED_INPUTS}
    assert set(found.signatures["serving_all_inputs"].inputs) == set(ROWS)
    assert ask(way, connection, "healthy") is True


def test_what_it_refuses_has_a_class_of_its_own(served, way, protocol):
    connection = served[0][protocol]
    with pytest.raises(clients.UnauthenticatedError):
        ask(way, replace(connection, api_key=""), "predict", ROWS)
    with pytest.raises(clients.UnknownModelError):
        ask(way, replace(connection, model="nothing"), "predict", ROWS)
    with pytest.raises(clients.UnknownModelError):
        ask(way, replace(connection, version=9), "predict", ROWS)
    with pytest.raises(clients.UnknownModelError):
        ask(way, replace(connection, label="nobody"), "predict", ROWS)
    with pytest.raises(clients.BadRequestError):
        ask(way, replace(connection, signature="serving_examples"), "predict", ROWS)
