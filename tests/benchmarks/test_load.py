"""Load on loopback servers that count what they were asked: what is told must be what happened."""

from __future__ import annotations

import itertools
import json

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.load import compiled, generators, measuring
from benchmarks.load.figures import Load, percentiles
from bike_pipeline import cli
from bike_pipeline.errors import ConfigurationError, ServerError
from bike_pipeline.serving import clients
from tests.serving.clients.asking import to
from tests.serving.clients.scripted import Abort, answer, error, outputs, over_grpc, prediction, rest


class InTurns:
    """A REST step that does one of several things after the other, again and again."""

    def __init__(self, *steps):
        self.steps = itertools.cycle(steps)

    def __call__(self, connection, server):
        next(self.steps)(connection, server)


def generator(name):
    found = generators.find(name)
    if found is None:
        pytest.skip(f"{name} is not there: make load-generators")
    return name


@pytest.mark.parametrize("name", ["python", "wrk", "h2load"])
def test_over_rest_answers_and_errors_are_counted_apart(name):
    choice = name if name == "python" else generator(name)
    with rest(outputs(1), InTurns(outputs(1), error(503, "loading"), error(400, "no"))) as server:
        figures = measuring.measure(to(server.port, "rest"), Load(connections=3, seconds=1.0), choice)
    assert figures.generator == name
    # The first request was the probe; those that were under way when the time was over may count or not.
    assert 10 < figures.requests + figures.errors <= len(server.asked) - 1
    assert figures.requests + figures.errors == pytest.approx(len(server.asked), abs=5)
    assert figures.errors == pytest.approx(2 * figures.requests, abs=8)
    assert 0 < figures.p50 <= figures.p90 <= figures.p99
    assert {request[0] for request in server.asked} == {"POST /v1/models/bike_demand:predict HTTP/1.1"}
    assert len({request[2] for request in server.asked}) == 1


@pytest.mark.parametrize("name", ["python", "h2load"])
def test_over_grpc_an_error_is_no_answer(name):
    choice = name if name == "python" else generator(name)
    good, bad = prediction(1), Abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    # The probe and, before and after the load, the length of an answer; the load itself gets errors only.
    before = [good, good] if name == "h2load" else [good]
    with over_grpc(*before, bad) as server:
        connection = to(server.port, "grpc")
        if name == "h2load":
            # The answer after the load is an error, too: nothing is told where nobody knows.
            with pytest.raises(clients.BadRequestError):
                measuring.measure(connection, Load(connections=2, seconds=1.0), choice)
        else:
            figures = measuring.measure(connection, Load(connections=2, seconds=1.0), choice)
            assert figures.requests == 0
            assert figures.errors == len(server.asked) - 1
            assert figures.p50 is None
    with over_grpc(good) as server:
        figures = measuring.measure(to(server.port, "grpc"), Load(connections=2, seconds=1.0), choice)
    assert figures.errors == 0
    assert figures.requests == pytest.approx(len(server.asked), abs=6)


def test_over_grpc_some_errors_among_answers():
    choice = generator("h2load")
    good, bad = prediction(1), Abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    # Two before the load, then 30 errors, then answers for ever.
    with over_grpc(good, good, *[bad] * 30, good) as server:
        figures = measuring.measure(to(server.port, "grpc"), Load(connections=2, seconds=1.0), choice)
    assert 28 <= figures.errors <= 30
    assert figures.requests + figures.errors == pytest.approx(len(server.asked), abs=6)


@pytest.mark.parametrize("name", ["python", "wrk", "h2load"])
def test_no_more_is_asked_than_the_rate(name):
    choice = name if name == "python" else generator(name)
    with rest(outputs(1)) as server:
        load = Load(connections=4, seconds=2.0, rate=40)
        figures = measuring.measure(to(server.port, "rest"), load, choice)
    assert 0 < figures.requests <= 90
    assert len(server.asked) <= 95


def test_what_the_generators_say_is_read():
    said = (
        "finished in 3.04s, 637.33 req/s, 82.42KB/s\n"
        "requests: 1912 total, 1976 started, 1912 done, 1900 succeeded, 12 failed, 0 errored, 0 timeout\n"
        "status codes: 1900 2xx, 0 3xx, 0 4xx, 12 5xx\n"
        "traffic: 247.25KB (253181) total, 10.29KB (10536) headers (space savings 93.20%), 119.50KB (122368) data\n"
    )
    assert compiled._summary(said, "here") == (3.04, 1976, 1912, 1900, 122368)
    with pytest.raises(ServerError, match="no figures"):
        compiled._summary("no route to host", "here")


def test_percentiles():
    assert percentiles([]) == (None, None, None)
    assert percentiles(range(101)) == (50.0, 90.0, 99.0)


@pytest.mark.parametrize(
    ("options", "choice", "said"),
    [
        ({"protocol": "grpc"}, "wrk", "cannot make this load"),
        ({"protocol": "rest", "tls": True}, "h2load", "cannot make this load"),
        ({"protocol": "rest", "token": "t"}, "wrk", "cannot make this load"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused(options, choice, said):
    with pytest.raises(ServerError, match=said):
        measuring.generator_for(to(1, **options), choice)


@pytest.mark.parametrize("options", [{"tls": True}, {"token": "t"}, {"api_key": "k"}])
def test_secrets_and_certificates_stay_in_this_process(options):
    assert measuring.generator_for(to(1, "rest", **options), "auto") is None
    assert measuring.generator_for(to(1, "grpc", **options), "auto") is None


def test_a_program_that_does_not_start_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert generators.find("wrk", tmp_path) is None
    program = tmp_path / "wrk" / "usr" / "bin" / "wrk"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho wrk: error while loading shared libraries >&2\nexit 127\n", encoding="utf-8")
    program.chmod(0o755)
    assert generators.find("wrk", tmp_path) is None
    program.write_text("#!/bin/sh\necho wrk 4.1.0\nexit 1\n", encoding="utf-8")
    assert generators.find("wrk", tmp_path).program == program


def test_rows_stay_within_the_contract_and_differ():
    from bike_pipeline import features

    found = measuring.rows(300)
    for feature in features.REQUIRED_INPUTS:
        values = found[feature.name]
        assert values.shape == (300,)
        assert (values >= feature.minimum).all()
        assert feature.maximum is None or (values <= feature.maximum).all()
    assert len(np.unique(found["hr"])) == 24


def test_the_command_prints_a_table_or_json():
    runner = CliRunner()
    with rest(outputs(1)) as server:
        address = f"127.0.0.1:{server.port}"
        options = ["bench-serving", address, "--seconds", "1", "--connections", "2", "--generator", "python"]
        table = runner.invoke(cli.command, options)
        found = json.loads(runner.invoke(cli.command, [*options, "--json"]).stdout)
    assert table.exit_code == 0
    assert f"http://{address}" in table.stdout
    assert "measure both" in table.stdout
    assert found["figures"]["errors"] == 0
    assert found["figures"]["per_second"] == pytest.approx(
        found["figures"]["requests"] / found["figures"]["seconds"], rel=1e-6
    )


def test_a_server_that_does_not_answer_is_not_measured():
    with rest(answer(404, b'{"error": "Servable not found for request: Latest(bike_demand)"}')) as server:
        found = CliRunner().invoke(cli.command, ["bench-serving", f"127.0.0.1:{server.port}"])
    assert isinstance(found.exception, clients.UnknownModelError)
    assert len(server.asked) == 1


def test_an_installed_package_without_the_source_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("bike_pipeline.settings.PROJECT_ROOT", tmp_path)
    with pytest.raises(ConfigurationError, match="clone of the repository"):
        CliRunner().invoke(cli.command, ["bench-serving"], catch_exceptions=False)
