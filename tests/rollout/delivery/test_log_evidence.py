"""What is read from the logs, and that lines which are none of theirs change nothing."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from bike_pipeline.rollout.delivery.evidence import Evidence, Share, Tracked
from bike_pipeline.rollout.delivery.log_evidence import LogEvidence
from tests.rollout.delivery.logged import CANDIDATE, MODEL, STABLE, Logs, access, answered

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
CANARY, SHADOW = Tracked("canary", CANDIDATE, STABLE), Tracked("shadow", CANDIDATE, STABLE)
SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def read(logs, tracked=CANARY, first=NOW, last=NOW + 600 * SECOND):
    return LogEvidence(logs.gateway, [logs.requests], MODEL, 0.5).read(tracked, first, last)


def test_without_logs_nothing_is_known(tmp_path):
    reader = LogEvidence(tmp_path / "none.jsonl", [tmp_path / "none"], MODEL, 0.5)
    assert reader.read(CANARY, NOW, NOW + SECOND) == Evidence()


def test_requests_errors_latency_and_answers_are_counted_by_track(logs):
    logs.ask(30, NOW, track="stable")
    logs.ask(20, NOW + SECOND, failed=5, milliseconds=8.0)
    logs.ask(5, NOW + 2 * SECOND, answer=None)
    found = read(logs)
    assert (found.stable.requests, found.stable.errors, found.stable.answers) == (30, 0, 30)
    assert (found.candidate.requests, found.candidate.errors) == (25, 5)
    assert (found.candidate.answers, found.candidate.not_finite) == (20, 5)
    assert found.candidate.latency.rows == 20
    assert found.candidate.latency.quantile(0.99) == pytest.approx(8.0, rel=0.05)
    assert found.different == Share(5, 20)


def test_only_requests_from_the_first_moment_until_before_the_last_count(logs):
    logs.ask(1, NOW - SECOND, track="canary")
    logs.ask(1, NOW, track="canary")
    logs.ask(1, NOW + 5 * SECOND, track="canary")
    assert read(logs, last=NOW + 5 * SECOND).candidate.requests == 1


@pytest.mark.parametrize(
    ("about", "failed"),
    [
        ({"status": 499}, False),
        ({"status": 429}, False),
        ({"status": 500}, True),
        ({"status": 504}, True),
        ({"grpc_status": "OK"}, False),
        ({"grpc_status": "INVALID_ARGUMENT"}, False),
        ({"grpc_status": "RESOURCE_EXHAUSTED"}, False),
        ({"grpc_status": "UNAVAILABLE"}, True),
        ({"grpc_status": "INTERNAL"}, True),
    ],
)
def test_an_error_is_one_of_the_servers_and_not_of_who_asks(logs, about, failed):
    logs.add([access("a", "canary", NOW, **about)])
    assert read(logs).candidate.errors == failed


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/v1/models/bike_demand/versions/2:classify", True),
        ("/tensorflow.serving.PredictionService/Predict", True),
        ("/v1/models/bike_demand/metadata", False),
        ("/grpc.health.v1.Health/Check", False),
        ("/monitoring/prometheus/metrics", False),
    ],
)
def test_what_asks_for_no_prediction_is_no_traffic(logs, path, counts):
    logs.add([{**access("a", "canary", NOW), "url": {"path": path}}])
    assert read(logs).candidate.requests == counts


def test_a_request_without_a_status_counts_as_failed(logs):
    line = access("a", "canary", NOW)
    del line["http"]["response"]
    logs.add([line])
    assert (read(logs).candidate.requests, read(logs).candidate.errors) == (1, 1)


def test_answers_are_held_against_the_mean_of_the_same_hour(logs):
    rows = [answered(f"s{hour}", STABLE, NOW, 100.0 * (hour + 1), hour=hour) for hour in range(3)]
    rows += [answered("same", CANDIDATE, NOW, 210.0, hour=1), answered("other", CANDIDATE, NOW, 100.0, hour=2)]
    # An hour that the stable version was not asked about tells nothing.
    rows += [answered("alone", CANDIDATE, NOW, 9.0, hour=7)]
    logs.add(rows=rows)
    assert read(logs).different == Share(1, 2)


def test_a_client_that_says_no_day_is_compared_by_its_weekday(logs):
    rows = [answered("a", STABLE, NOW), answered("b", CANDIDATE, NOW)]
    for row in rows:
        del row["bike"]["features"]["day"]
        row["bike"]["features"]["weekday"] = 3
    logs.add(rows=rows)
    assert read(logs).different == Share(0, 1)


def test_a_shadow_is_compared_request_by_request(logs):
    names = [f"r{number}" for number in range(10)]
    logs.add(
        [access(name, "stable", NOW) for name in names],
        # The means of both are the same.
        [answered(name, STABLE, NOW, 100.0 if number % 2 else 300.0) for number, name in enumerate(names)]
        + [answered(name, CANDIDATE, NOW, 300.0 if number % 2 else 100.0) for number, name in enumerate(names)],
    )
    found = read(logs, SHADOW)
    assert found.different == Share(10, 10)
    assert (found.candidate.requests, found.stable.requests) == (10, 10)
    assert read(logs, CANARY).different == Share(0, 10)


def test_what_fails_although_the_client_was_answered_failed_in_the_shadow(logs):
    logs.add(
        [access("a", "stable", NOW), access("b", "stable", NOW, 503)],
        [
            answered("a", STABLE, NOW),
            answered("a", CANDIDATE, NOW, code="UNAVAILABLE"),
            answered("b", STABLE, NOW, code="UNAVAILABLE"),
        ],
    )
    found = read(logs, SHADOW)
    assert (found.candidate.requests, found.candidate.errors) == (1, 1)
    assert (found.stable.requests, found.stable.errors) == (2, 1)


def test_pairs_are_of_minutes_in_which_both_were_asked(logs):
    start = NOW.replace(second=0)
    minute = 60 * SECOND
    logs.ask(4, start, track="stable", milliseconds=2.0)
    logs.ask(4, start + SECOND, failed=1, milliseconds=4.0)
    logs.ask(4, start + minute, track="stable")
    logs.ask(4, start + 2 * minute)
    found = read(logs, first=start, last=start + 3 * minute)
    assert found.pairs["error share"] == [0.25]
    assert found.pairs["latency"] == pytest.approx([0.693], abs=0.01)


HOSTILE = [
    b"",
    b"\n",
    b"{",
    b"[]",
    b"null",
    b'"a line"',
    b"\xff\xfe\x00",
    b"{}",
    b'{"event": 3, "http": [], "bike": null}',
    json.dumps({**access("x", "canary", NOW), "@timestamp": "yesterday"}).encode(),
    json.dumps({**access("x", "canary", NOW), "event": {"dataset": "another"}}).encode(),
    json.dumps({**answered("x", CANDIDATE, NOW), "bike": {"model": "another", "version": 2, "answer": 1}}).encode(),
    json.dumps({**answered("x", CANDIDATE, NOW), "bike": {"model": MODEL, "version": "two", "answer": 1}}).encode(),
]


@pytest.mark.parametrize("line", HOSTILE)
def test_a_line_that_is_none_of_these_logs_is_passed_over(logs, line):
    logs.ask(10, NOW, track="stable")
    logs.ask(10, NOW)
    before = read(logs)
    for path in (logs.gateway, logs.requests / "r.jsonl"):
        with path.open("ab") as file:
            file.write(line + b"\n")
    assert read(logs) == before


def test_a_line_that_stands_there_twice_counts_once(logs):
    logs.ask(10, NOW, track="stable")
    logs.ask(10, NOW)
    before = read(logs)
    for path in (logs.gateway, logs.requests / "r.jsonl"):
        path.write_bytes(path.read_bytes() * 2)
    assert read(logs) == before


def test_clients_that_give_every_request_the_same_name_are_counted(logs):
    moments = [NOW + number * dt.timedelta(milliseconds=1) for number in range(10)]
    logs.add(
        [access("same", "canary", moment) for moment in moments],
        [answered("same", CANDIDATE, moment) for moment in moments],
    )
    assert (read(logs).candidate.requests, read(logs).candidate.answers) == (10, 10)


def test_a_line_that_is_half_written_waits_for_its_rest(logs):
    logs.ask(10, NOW)
    whole = logs.gateway.read_bytes()
    for cut in range(len(whole) - 200, len(whole), 13):
        logs.gateway.write_bytes(whole[:cut])
        assert read(logs).candidate.requests == 9
    logs.gateway.write_bytes(whole)
    assert read(logs).candidate.requests == 10


def test_a_log_that_was_rotated_is_read_with_its_successor(logs):
    logs.ask(10, NOW)
    (logs.requests / "r.jsonl").rename(logs.requests / "older.jsonl")
    logs.gateway.rename(logs.gateway.with_name("gateway.jsonl.1"))
    logs.ask(5, NOW + SECOND)
    assert (read(logs).candidate.answers, read(logs).candidate.requests) == (15, 15)


def test_what_a_server_refuses_is_counted_and_has_no_latency(logs):
    logs.ask(30, NOW, track="stable", refused=2)
    logs.ask(20, NOW + SECOND, failed=1, refused=4)
    over_grpc = [
        access("g1", "canary", NOW, grpc_status="INVALID_ARGUMENT"),
        access("g2", "canary", NOW, grpc_status="UNAVAILABLE"),
    ]
    logs.add(over_grpc)
    found = read(logs)
    assert (found.stable.requests, found.stable.errors, found.stable.client_errors) == (30, 0, 2)
    assert (found.candidate.requests, found.candidate.errors, found.candidate.client_errors) == (22, 2, 5)
    assert (found.stable.latency.rows, found.candidate.latency.rows) == (28, 15)


def test_what_the_gateway_refuses_by_itself_is_no_request_to_a_version(logs):
    logs.add(
        [
            access("a", "canary", NOW, 401, reason="jwt_authn_access_denied{Jwt_is_missing}"),
            access("b", "canary", NOW, 200, grpc_status="UNAUTHENTICATED", reason="jwt_authn_access_denied{x}"),
            access("c", "canary", NOW, 413, reason="request_payload_too_large"),
            access("d", "canary", NOW, 400, reason="via_upstream"),
            # A server that is gone is a fault of its version, whoever says so.
            access("e", "canary", NOW, 503, reason="upstream_reset_before_response_started{connection_failure}"),
        ]
    )
    found = read(logs).candidate
    assert (found.requests, found.errors, found.client_errors) == (2, 1, 1)


def test_refusals_are_the_shadows_where_the_client_was_answered_or_both_refused(logs):
    logs.add(
        [access("a", "stable", NOW), access("b", "stable", NOW, 400), access("c", "stable", NOW, 400)],
        [
            answered("a", STABLE, NOW),
            answered("a", CANDIDATE, NOW, code="INVALID_ARGUMENT"),
            answered("b", STABLE, NOW, code="INVALID_ARGUMENT"),
            answered("b", CANDIDATE, NOW + SECOND, code="INVALID_ARGUMENT"),
            answered("c", STABLE, NOW, code="INVALID_ARGUMENT"),
            answered("c", CANDIDATE, NOW),
        ],
    )
    found = read(logs, SHADOW)
    assert (found.candidate.requests, found.candidate.client_errors) == (3, 2)
    assert (found.stable.requests, found.stable.client_errors) == (3, 2)
    assert not found.only_refused
