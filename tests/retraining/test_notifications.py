"""What others send: read strictly, and believed no further than that there is something to look at."""

import json
import uuid

import pytest

from bike_pipeline.errors import DataError
from bike_pipeline.retraining.notifications import Hint, Queue, of_cloud_event, of_s3_message, summary_of_webhook
from bike_pipeline.retraining.triggers.storage import RepositoryData, Storage
from tests.retraining.alerts import alert, message
from tests.rollout.storages import s3

GOOGLE = {"bucket": "rides", "name": "rows/may 1.csv", "generation": "17", "size": "120"}
S3_RECORD = {
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "rides"}, "object": {"key": "rows/may+1.csv", "eTag": "a"}},
}


def attributes(kind, **more):
    return {"specversion": "1.0", "id": "1", "source": "//storage.googleapis.com/projects/_", "type": kind, **more}


def binary(event, data):
    headers = {f"ce-{name}": value for name, value in event.items()} | {"Content-Type": "application/json"}
    return headers, json.dumps(data).encode()


def structured(event, data):
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    return headers, json.dumps({**event, "data": data}).encode()


@pytest.mark.parametrize("mode", [binary, structured])
@pytest.mark.parametrize(
    ("kind", "data", "hints"),
    [
        ("google.cloud.storage.object.v1.finalized", GOOGLE, ["gs://rides/rows/may 1.csv"]),
        ("com.amazonaws.s3.ObjectCreated:Put", S3_RECORD, ["s3://rides/rows/may 1.csv"]),
        ("com.amazonaws.s3.objectcreated.put", {"Records": [S3_RECORD, S3_RECORD]}, ["s3://rides/rows/may 1.csv"] * 2),
        ("google.cloud.storage.object.v1.deleted", GOOGLE, []),
        ("io.seldon.serving.inference.request", {"instances": []}, []),
    ],
)
def test_cloud_events_name_objects_in_both_modes(mode, kind, data, hints):
    assert of_cloud_event(*mode(attributes(kind, hops="2"), data)) == [Hint(address, 2) for address in hints]


def test_the_projects_own_library_makes_events_that_are_read():
    http = pytest.importorskip("cloudevents.core.bindings.http")
    from cloudevents.core.v1.event import CloudEvent

    event = CloudEvent(attributes("google.cloud.storage.object.v1.finalized"), GOOGLE)
    for made in (http.to_binary_event(event), http.to_structured_event(event)):
        body = made.body if isinstance(made.body, bytes) else made.body.encode()
        headers = {"Content-Type" if name.lower() == "content-type" else name: v for name, v in made.headers.items()}
        assert of_cloud_event(headers, body) == [Hint("gs://rides/rows/may 1.csv")]


FINALIZED = "google.cloud.storage.object.v1.finalized"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({}, b""),
        (*binary(attributes(FINALIZED), GOOGLE)[:1], b"not json"),
        binary(attributes(FINALIZED) | {"specversion": "0.3"}, GOOGLE),
        binary(attributes(FINALIZED) | {"id": ""}, GOOGLE),
        binary({name: value for name, value in attributes(FINALIZED).items() if name != "source"}, GOOGLE),
        binary(attributes(FINALIZED, hops="-1"), GOOGLE),
        binary(attributes(FINALIZED, hops="many"), GOOGLE),
        structured(attributes(FINALIZED, hops=[]), GOOGLE),
        binary(attributes(FINALIZED), {"bucket": "rides"}),
        binary(attributes(FINALIZED), {"bucket": "rides", "name": 7}),
        binary(attributes(FINALIZED), []),
        structured(attributes("com.amazonaws.s3.objectcreated.put"), None),
        structured(attributes("com.amazonaws.s3.objectcreated.put"), {"Records": [1]}),
        ({"Content-Type": "application/cloudevents+json"}, b"[" * 100_000),
        ({"Content-Type": "application/cloudevents+json"}, b"[]"),
    ],
)
def test_what_is_no_cloud_event_is_one_error(headers, body):
    with pytest.raises(DataError):
        of_cloud_event(headers, body)


@pytest.mark.parametrize(
    ("content", "addresses"),
    [
        ({"Records": [S3_RECORD]}, ["s3://rides/rows/may 1.csv"]),
        ({"Records": [S3_RECORD | {"eventName": "ObjectRemoved:Delete"}]}, []),
        ({"Type": "Notification", "Message": json.dumps({"Records": [S3_RECORD]})}, ["s3://rides/rows/may 1.csv"]),
        (
            {"source": "aws.s3", "detail-type": "Object Created",
             "detail": {"bucket": {"name": "rides"}, "object": {"key": "rows/may+1.csv"}}},
            ["s3://rides/rows/may+1.csv"],
        ),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent"}, []),
    ],
)  # fmt: skip
def test_messages_of_s3_by_itself_by_sns_and_by_eventbridge_name_objects(content, addresses):
    assert [one.address for one in of_s3_message(json.dumps(content))] == addresses


@pytest.mark.parametrize(
    "body", ["", "[]", "7", '{"Records": 7}', '{"Records": [{}]}', '{"Message": 7}', '{"detail": 1}']
)
def test_messages_that_cannot_be_read_are_one_error(body):
    with pytest.raises(DataError):
        of_s3_message(body)


def test_alertmanagers_contract_is_taken_and_told_in_words():
    told = message(
        alert(summary="Moved apart (cusum)."), alert(summary="Moved apart (cusum)."), alert(status="resolved")
    )
    assert summary_of_webhook(json.dumps(told).encode()) == "Moved apart (cusum)."


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "5"},
        {"status": "resolved"},
        {"receiver": "tickets"},
        {"truncatedAlerts": 2},
        {"alerts": []},
        {"more": 1},
        {"groupKey": ""},
        {"alerts": [alert(fingerprint="short")]},
        {"alerts": [alert(labels={"alertname": "DataDrift", "trigger": "concept-drift"})]},
    ],
)
def test_anything_else_is_refused(changed):
    with pytest.raises(DataError, match="concept drift, at"):
        summary_of_webhook(json.dumps(message(alert()) | changed).encode())


@pytest.fixture
def queue(monkeypatch):
    """A bucket and a queue on loopback; yield both addresses, and a client."""
    with s3(monkeypatch) as bucket:
        import boto3

        client = boto3.client("sqs")
        made = client.create_queue(QueueName=f"rows-{uuid.uuid4().hex}", Attributes={"VisibilityTimeout": "0"})
        yield bucket, made["QueueUrl"], client
        # The server's content outlives it in this process.
        boto3.client("s3").delete_object(Bucket="models", Key="serving/new.csv")


def count(client, url):
    return int(client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
               ["Attributes"]["ApproximateNumberOfMessages"])  # fmt: skip


def test_a_message_makes_a_folder_be_listed_and_is_deleted_when_that_is_done(queue, settings_of, ledger, monkeypatch):
    import boto3

    bucket, url, client = queue
    monkeypatch.setattr("bike_pipeline.retraining.triggers.storage._QUEUE_SECONDS", 0.0)
    settings = settings_of(storage__sources=f"[{bucket}]", storage__queue=url, storage__remote_seconds=3600)
    trigger = Storage(settings, ledger)
    trigger.look()
    boto3.client("s3").put_object(Bucket="models", Key="serving/new.csv", Body=b"rows")
    assert trigger.look().events == ()
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "models"}, "object": {"key": "serving/new.csv"}},
    }
    client.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [record]}))
    client.send_message(QueueUrl=url, MessageBody="no json")
    look = trigger.look()
    assert [event.name for event in look.events] == ["new.csv"]
    assert [note.text for note in look.notes if note.source == url] == ["this is no JSON"]
    # A process that died here would be told again.
    assert count(client, url) == 2
    trigger.look()
    assert count(client, url) == 0


def test_a_queue_that_cannot_be_asked_is_told_and_the_folders_are_listed(settings_of, ledger, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(Queue, "receive", lambda _: (_ for _ in ()).throw(DataError("the queue cannot be asked: gone")))
    (tmp_path / "a.csv").write_text("hr\n")
    settings = settings_of(
        storage__sources=f"[{tmp_path}]", storage__queue="https://sqs/1/rows", storage__settle_seconds=3600
    )
    look = Storage(settings, ledger).look()
    texts = {note.name or note.source: note.text for note in look.notes}
    assert "cannot be asked" in texts["https://sqs/1/rows"]
    assert "may not be finished" in texts["a.csv"]
    assert "queue" not in str(RepositoryData(settings, ledger).look().notes)
