"""The canonical error codes, as gRPC and TF Serving's REST API say them."""

from __future__ import annotations

import functools
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Canonical codes; the numbers are gRPC's (grpc/status.h) and those of `tensorflow.error.Code`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# TF Serving's table (model_servers/http_server.cc); what is not in it is 500.
HTTP_STATUSES = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}

# Bytes of a message.
_LONGEST = 2000


class StatusError(Exception):
    """A request that is answered with an error.

    Attributes:
        code: the canonical code.
        message: what the client is told.
        status: the HTTP status, by default the one that TF Serving answers with.
        retry_after: seconds to wait before asking again; 0 if waiting does not help.
    """

    def __init__(self, code: Code, message: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        self.code = code
        self.message = _sendable(message)
        self.status = status or HTTP_STATUSES.get(code, 500)
        self.retry_after = retry_after
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # The process that parses large messages raises them, too.
        made = functools.partial(type(self), status=self.status, retry_after=self.retry_after)
        return made, (self.code, self.message)


def _sendable(message: str) -> str:
    # A message may quote the request. As a gRPC trailer each of its bytes may take three, and clients take 8 KiB.
    if message.isascii() and len(message) <= _LONGEST:
        return message
    # Half of a surrogate pair, which JSON can say, is no text that can be sent.
    content = message.encode("utf-8", "replace")
    return content[:_LONGEST].decode("utf-8", "ignore") + ("…" if len(content) > _LONGEST else "")


def invalid(message: str) -> StatusError:
    """Return the error of a request that cannot be right."""
    return StatusError(Code.INVALID_ARGUMENT, message)
