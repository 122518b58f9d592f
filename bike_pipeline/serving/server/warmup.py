"""TF Serving's warm-up requests: `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLogs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.server.statuses import Code, StatusError

FILE = Path("assets.extra", "tf_serving_warmup_requests")
# TF Serving's own limit (servables/tensorflow/saved_model_warmup_util.h).
MAX_RECORDS = 1000


def requests(folder: Path) -> Iterator[Any]:
    """Yield the PredictRequests among a version's warm-up requests; none if there is no such file."""
    path = folder / FILE
    if not path.exists():
        return
    for number, content in enumerate(_records(path)):
        if number == MAX_RECORDS:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path.name}"
            )
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(content)
        except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
            raise StatusError(
                Code.DATA_LOSS, f"Failed to parse warmup record {number} from {path.name} ({type(error).__name__})"
            ) from None
        if log.HasField("predict_log"):
            yield log.predict_log.request


def _records(path: Path) -> Iterator[bytes]:
    """Yield a TFRecord file's records: length, its checksum, the content, its checksum (tensorflow/core/lib/io).

    The checksums are not looked at: a pushed version's files are held to its fingerprint as a whole.
    """
    content = path.read_bytes()
    start = 0
    while start < len(content):
        head = content[start : start + 12]
        length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else len(content)
        if start + 12 + length + 4 > len(content):
            raise StatusError(Code.DATA_LOSS, f"{path.name} is cut short")
        yield content[start + 12 : start + 12 + length]
        start += 12 + length + 4
