"""Who may notify, what is taken, and that a trigger looks at once."""

import http.client
import json
import threading

import pytest

from bike_pipeline.errors import ConfigurationError, ServerError, StorageError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.listener import MOST_BYTES, listening, read_token
from bike_pipeline.retraining.notifications import Hint
from bike_pipeline.retraining.triggers.concept_drift import ALERT
from bike_pipeline.use_cases import retraining
from tests.retraining.alerts import alert, message
from tests.rollout.storages import gcs

TOKEN = "what-only-both-of-them-know"
EVENT = {
    "specversion": "1.0", "id": "1", "source": "//storage.googleapis.com/projects/_/buckets/models",
    "type": "google.cloud.storage.object.v1.finalized", "data": {"bucket": "models", "name": "serving/may.csv"},
}  # fmt: skip


@pytest.fixture
def sent(ledger):
    """Return a function that sends something to a listener, and what hints came of it."""
    hints = []

    def hint(one):
        hints.append(one)
        return one.address.startswith("gs://models/")

    with listening("127.0.0.1:0", TOKEN.encode(), ledger, hint) as address:

        def send(path, content, token=f"Bearer {TOKEN}", method="POST", kind="application/cloudevents+json"):
            return post(address, path, content, token, method, kind)

        send.hints, send.address = hints, address
        yield send


def post(address, path, content, token=f"Bearer {TOKEN}", method="POST", kind="application/cloudevents+json"):
    connection = http.client.HTTPConnection(address, timeout=60)
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    connection.request(method, path, body, {"Content-Type": kind, **({"Authorization": token} if token else {})})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize("path", ["/events", "/retraining"])
@pytest.mark.parametrize(
    "token", ["", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ÿ"]
)
def test_without_the_token_nothing_is_taken(path, token, sent, ledger):
    assert sent(path, EVENT if path == "/events" else message(alert()), token) == 401
    assert sent.hints == []
    assert ledger.control(ALERT) is None


def test_an_event_makes_a_trigger_look_and_one_of_another_bucket_is_told(sent, ledger):
    assert sent("/events", EVENT | {"hops": 2}) == 202
    assert sent.hints == [Hint("gs://models/serving/may.csv", 2)]
    elsewhere = EVENT | {"data": {"bucket": "others", "name": "may.csv"}}
    assert sent("/events", elsewhere) == 202
    (row,) = ledger.rows(tables.checks)
    assert (row["source"], row["trigger_name"]) == ("gs://others/may.csv", "storage")
    assert "does not name its folder" in row["note"]


def test_an_alert_is_kept_and_what_is_none_is_refused(sent, ledger):
    assert sent("/retraining", message(alert(summary="Moved apart.")), kind="application/json") == 200
    assert ledger.control(ALERT)["summary"] == "Moved apart."
    assert sent("/retraining", message(), kind="application/json") == 400
    assert sent("/retraining", b"{", kind="application/json") == 400
    assert sent("/events", b"{") == 400


def test_what_is_too_large_or_elsewhere_is_refused(sent):
    assert sent("/events", b" " * (MOST_BYTES + 1)) == 413
    assert sent("/events", EVENT, method="GET") == 405
    assert sent("/", EVENT) == 404
    assert sent.hints == []


def test_a_ledger_that_cannot_be_written_is_an_error_after_which_senders_try_again(sent, ledger, monkeypatch):
    def fail(*_):
        raise StorageError("the ledger cannot be used: database is locked")

    monkeypatch.setattr(ledger, "set_control", fail)
    assert sent("/retraining", message(alert()), kind="application/json") == 503


def test_without_a_token_it_does_not_start(tmp_path, settings_of):
    for content in ("", "short", "long enough but ünlike ascii"):
        path = tmp_path / "token"
        path.write_text(content)
        with pytest.raises(ConfigurationError, match="hard to guess"):
            read_token(str(path))
    with pytest.raises(StorageError):
        read_token(str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="who may notify"):
        retraining.watch(settings_of(listen="127.0.0.1:0", triggers="[storage]"))


@pytest.mark.parametrize("address", ["", "9095", "localhost", "localhost:99999", ":9095"])
def test_what_is_no_address_is_refused(address, ledger):
    with pytest.raises(ConfigurationError), listening(address, TOKEN.encode(), ledger, lambda _: True):
        pass


def test_an_address_that_is_taken_is_refused(sent, ledger):
    with pytest.raises(ServerError, match="cannot listen"), listening(sent.address, b"", ledger, lambda _: True):
        pass


def test_a_process_that_watches_sees_an_object_when_it_is_told_of_it(settings_of, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    with gcs(monkeypatch) as bucket:
        import fsspec

        settings = settings_of(
            listen="127.0.0.1:0", token_file=token, triggers="[storage]", poll_seconds=0.05,
            storage__sources=f"[{bucket}]", storage__remote_seconds=3600,
        )  # fmt: skip
        # Nothing is to be trained here.
        retraining.pause(settings, "a test")
        ledger = retraining.open_ledger(settings)
        stop, begun, address = threading.Event(), threading.Event(), []

        def started(at):
            address.append(at)
            begun.set()

        watching = threading.Thread(
            target=retraining.watch, args=(settings,), kwargs={"started": started, "stop": stop}
        )
        watching.start()
        try:
            assert begun.wait(60)
            wait_for(lambda: ledger.rows(tables.checks))
            with fsspec.open(f"{bucket}/may.csv", "wb") as file:
                file.write(b"rows")
            assert post(address[0], "/events", EVENT) == 202
            (one,) = wait_for(ledger.events)
        finally:
            stop.set()
            watching.join()
    assert (one.event.name, one.event.source, one.state) == ("may.csv", bucket, State.SEEN)
    assert isinstance(ledger, Ledger)


def wait_for(look, seconds=60):
    end = threading.Event()
    for _ in range(seconds * 20):
        if found := look():
            return found
        end.wait(0.05)
    raise AssertionError("it did not come")
