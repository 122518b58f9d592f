"""What others send to say that there is something to look at: CloudEvents, S3's notifications, Alertmanager's webhook.

None of it is believed further than that: a trigger looks, and what it finds counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from bike_pipeline.errors import DataError, first_words
from bike_pipeline.extras import require
from bike_pipeline.settings import PROJECT_ROOT

_GOOGLE = "google.cloud.storage.object.v1.finalized"
# S3's notifications as the CloudEvents project's adapter names them; its data are one record, or all of them.
_AMAZON = "com.amazonaws.s3.objectcreated"
_STRUCTURED = "application/cloudevents+json"
_MOST_HOPS = 1000


class Hint(NamedTuple):
    """An object that somebody says is new.

    Attributes:
        address: such as gs://bucket/rows/may.csv.
        hops: how many runs stand in the chain of causes before it.
    """

    address: str
    hops: int = 0


def of_cloud_event(headers: Mapping[str, str], body: bytes) -> list[Hint]:
    """Return the objects of a CloudEvent in binary or structured mode; none if it is of another type.

    Raises:
        DataError: it is no CloudEvent of version 1.0, or not what its type says.
    """
    event = data = _json(body)
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != _STRUCTURED:
        event = {key[3:].lower(): value for key, value in headers.items() if key.lower().startswith("ce-")}
    elif isinstance(event, dict):
        data = event.get("data")
    if not isinstance(event, dict) or event.get("specversion") != "1.0":
        raise DataError("this is no CloudEvent of version 1.0")
    try:
        kind, hops = str(event["type"]), int(event.get("hops", 0))
        if not (event["id"] and event["source"]) or not 0 <= hops <= _MOST_HOPS:
            raise ValueError("no id, no source or no such number of hops")
        if kind == _GOOGLE:
            return [Hint(f"gs://{_text(data['bucket'])}/{_text(data['name'])}", hops)]
        if kind.lower().startswith(_AMAZON):
            return [Hint(_of_record(one), hops) for one in data.get("Records", [data])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the CloudEvent is not what its type says: {first_words(error)}") from None
    return []


def of_s3_message(body: str) -> list[Hint]:
    """Return the objects of a message that S3, SNS or EventBridge put into a queue; none if it is of something else.

    Raises:
        DataError: it cannot be read.
    """
    content = _json(body.encode())
    try:
        if "Message" in content:
            content = _json(content["Message"].encode())
        if "detail" in content:
            detail, created = content["detail"], content["detail-type"] == "Object Created"
            # EventBridge does not escape the name.
            return [Hint(f"s3://{detail['bucket']['name']}/{detail['object']['key']}")] if created else []
        return [
            Hint(_of_record(one))
            for one in content.get("Records", [])
            if str(one["eventName"]).removeprefix("s3:").startswith("ObjectCreated:")
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"it is no notification of S3 ({first_words(error)})") from None


def _of_record(one: Any) -> str:
    return f"s3://{_text(one['s3']['bucket']['name'])}/{unquote_plus(_text(one['s3']['object']['key']))}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a name is no text")
    return value


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise DataError("this is no JSON") from None


def summary_of_webhook(body: bytes) -> str:
    """Return what Alertmanager says of concept drift, in words; a DataError for anything but its contract."""
    from jsonschema import Draft202012Validator

    message = _json(body)
    schema = json.loads((PROJECT_ROOT / "configs" / "monitoring" / "retraining-webhook.schema.json").read_bytes())
    error = next(Draft202012Validator(schema).iter_errors(message), None)
    if error is not None:
        raise DataError(f"it is not what Alertmanager sends of concept drift, at {error.json_path}")
    told = [one["annotations"]["summary"] for one in message["alerts"] if one["status"] == "firing"]
    return " ".join(dict.fromkeys(told)) or "an alert that is over"


class Queue:
    """S3's notifications in a queue of SQS; a message is deleted when what it tells of was looked at."""

    def __init__(self, url: str) -> None:
        """Use a queue; a MissingExtraError if AWS's client is not there."""
        require("object-storage", "a queue of SQS")
        from botocore.config import Config
        from botocore.session import get_session

        # Nothing waits long for it: folders are listed anyway, if later.
        config = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})
        self.url = url
        self._client: Any = get_session().create_client("sqs", config=config)
        self._taken: list[str] = []

    def receive(self) -> list[str]:
        """Return the texts of messages; a DataError if the queue cannot be asked."""
        try:
            found = self._client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", [])
        except Exception as error:  # the library's errors are made while it runs
            raise DataError(f"the queue cannot be asked: {first_words(error)}") from error
        self._taken += [one["ReceiptHandle"] for one in found]
        return [one["Body"] for one in found]

    def looked(self) -> None:
        """Delete what was received; what cannot be deleted comes again, and tells of what is known."""
        while self._taken:
            try:
                self._client.delete_message(QueueUrl=self.url, ReceiptHandle=self._taken.pop())
            except Exception as error:  # as above
                raise DataError(f"a message cannot be deleted: {first_words(error)}") from error
