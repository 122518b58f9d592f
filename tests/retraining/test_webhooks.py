"""Webhooks: everything once or more, in order, signed as the specification's own library checks it."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from bike_pipeline.model_registry.deployment import Change
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.webhooks import Webhooks
from bike_pipeline.settings.retraining import WebhookSettings
from tests.retraining.conftest import event

SECRET = base64.b64encode(bytes(range(32))).decode()


class Receiver:
    def __init__(self):
        self.got, self.status = [], 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers.items()), body))
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?token=private"

    def types(self):
        return [json.loads(body)["type"] for _, body in self.got]


@pytest.fixture
def receiver():
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def log():
    return []


@pytest.fixture
def webhooks(ledger, receiver, log, clock, tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"whsec_{SECRET}\n")

    def made(**more):
        hook = WebhookSettings.model_validate({"url": receiver.url, "secret_file": str(file), "attempts": 3, **more})
        return Webhooks(ledger, (hook,), "/serving/model", lambda: log, clock)

    made().deliver()
    return made


def change(revision, action, version, at="1970-01-12T13:46:40+00:00"):
    return Change(revision, at, "ann@here", action, "stable", None, version, "because")


def test_a_run_and_its_promotion_are_told_in_order_and_the_library_of_the_specification_agrees(
    ledger, make_loop, receiver, webhooks, log
):
    ledger.see(event("a", hops=1))
    make_loop().work()
    log += [change(1, "validate", 100), change(2, "promote", 100)]
    webhooks().deliver()
    runs = [kind for kind in receiver.types() if kind.startswith("run.")]
    assert runs == ["run.claimed", "run.ingested", "run.trained", "run.promoted"]
    assert [kind for kind in receiver.types() if kind.startswith("model.")] == ["model.validate", "model.promote"]
    for headers, body in receiver.got:
        low = {name.lower(): value for name, value in headers.items()}
        assert Webhook(SECRET).verify(body, low)["data"]["hops"] == 2
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 6
    webhooks().deliver()
    assert len(receiver.got) == 6


@pytest.mark.parametrize("status", [500, 302])
def test_one_that_is_not_taken_is_sent_again_under_its_id_and_given_up_in_the_end(
    ledger, receiver, webhooks, log, clock, status
):
    receiver.status = status
    log += [change(1, "promote", 100), change(2, "rollback", 99)]
    for attempt in range(3):
        webhooks().deliver()
        webhooks().deliver()
        # The pause between two attempts is not over.
        assert len(receiver.got) == attempt + 1 or attempt == 2
        clock.now += 4000
    assert receiver.types()[:3] == ["model.promote"] * 3
    assert len({headers["webhook-id"] for headers, _ in receiver.got[:3]}) == 1
    (noted,) = [row for row in ledger.rows(tables.checks) if row["trigger_name"] == "webhook"]
    receiver.status = 200
    clock.now += 4000
    webhooks().deliver()
    assert receiver.types()[-1] == "model.rollback"
    assert "private" not in noted["source"] + noted["note"]
    assert SECRET not in repr(ledger.rows(tables.checks))


def test_a_process_that_dies_behind_sending_sends_the_same_again(ledger, receiver, webhooks, log, monkeypatch):
    log += [change(1, "promote", 100), change(2, "rollback", 99)]
    real = ledger.set_control

    def dies(name, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, "set_control", dies)
    with pytest.raises(KeyboardInterrupt):
        webhooks().deliver()
    monkeypatch.setattr(ledger, "set_control", real)
    webhooks().deliver()
    assert receiver.types() == ["model.promote", "model.promote", "model.rollback"]
    first, again, _ = (headers["webhook-id"] for headers, _ in receiver.got)
    assert first == again


def test_only_what_is_asked_for_is_told_and_a_short_secret_signs_nothing(receiver, webhooks, log, ledger, tmp_path):
    log += [change(1, "validate", 100), change(2, "promote", 100)]
    (tmp_path / "short").write_text(base64.b64encode(b"too short").decode())
    webhooks(secret_file=str(tmp_path / "short"), on=["promote"]).deliver()
    assert receiver.got == []
    assert "24 bytes" in ledger.rows(tables.checks)[-1]["note"]


def test_a_failed_and_a_refused_run_are_told_too(ledger, make_loop, executor, receiver, webhooks):
    executor.bad_rows = {event("bad").digest}
    ledger.see(event("bad"))
    assert make_loop().work().state is State.REFUSED
    webhooks(on=["run"]).deliver()
    assert receiver.types() == ["run.claimed", "run.refused"]


def test_what_goes_over_a_network_goes_by_https():
    for url in ("http://example.org/hook", "ftp://127.0.0.1/", "no address"):
        with pytest.raises(ValidationError):
            WebhookSettings(url=url, secret_file="secret")
    for url in ("https://example.org/hook", "http://127.0.0.1:8000/", "http://localhost/hook"):
        assert WebhookSettings(url=url, secret_file="secret").url == url
    assert WebhookSettings(url="http://example.org/hook", secret_file="secret", allow_http=True)
