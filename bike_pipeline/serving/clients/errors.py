"""What a model server may answer instead of a prediction: one class for each thing that a caller can do about it."""

from __future__ import annotations

from bike_pipeline.errors import ServerError
from bike_pipeline.serving.statuses import HTTP_STATUSES

# Status codes of REST by the canonical name of the error that TF Serving answers them for, and what proxies add.
CODE_OF_STATUS = {
    **{status: code.name for code, status in reversed(HTTP_STATUSES.items())},
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
}
_TRUST = "check serving.client's ca_file, certificate and key, and whether the server speaks TLS"
# TF Serving answers INVALID_ARGUMENT if a label is not known.
_UNKNOWN_LABEL = "version label"
# gRPC's own words if a message is larger than the server takes.
_TOO_LARGE = "message larger than max"
_LONGEST = 300


class ClientError(ServerError):
    """A request to a model server that was not answered with what was asked for.

    Attributes:
        code: canonical name of the error, as gRPC calls it: "NOT_FOUND".
        retry_after: seconds after which the server wants to be asked again; None if it did not say.
        retryable: whether the same request may succeed when it is sent again.
    """

    code: str = "UNKNOWN"
    retry_after: float | None = None
    retryable: bool = False


class UnavailableError(ClientError):
    """The server cannot be reached, went away before it answered, or says that it cannot serve now."""

    code = "UNAVAILABLE"
    retryable = True


class OverloadedError(ClientError):
    """The server has too much to do, or this client asks too often; sent again only if it says when."""

    code = "RESOURCE_EXHAUSTED"


class TimedOutError(ClientError):
    """There was no answer in the time that the call had."""

    code = "DEADLINE_EXCEEDED"


class UnknownModelError(ClientError):
    """The server does not serve this model, version or label."""

    code = "NOT_FOUND"


class BadRequestError(ClientError):
    """The server does not take the request as it is, and never will."""

    code = "INVALID_ARGUMENT"


class UnauthenticatedError(ClientError):
    """The server does not know who asks, or does not let them."""

    code = "UNAUTHENTICATED"


class ServerFailureError(ClientError):
    """The server failed, or answered what is no answer of a model server."""

    code = "INTERNAL"


_CLASSES: dict[str, tuple[type[ClientError], str]] = {
    **dict.fromkeys(
        ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"),
        (BadRequestError, "compare the request with the model's signature"),
    ),
    "NOT_FOUND": (UnknownModelError, "check serving.model_name, the version or the label, and what the server serves"),
    "UNAUTHENTICATED": (UnauthenticatedError, "set BIKE_SERVING_TOKEN or BIKE_SERVING_API_KEY to what it accepts"),
    "PERMISSION_DENIED": (UnauthenticatedError, "ask for the right, or set another token or API key"),
    "RESOURCE_EXHAUSTED": (OverloadedError, "ask less often, or send more rows in one request"),
    "UNAVAILABLE": (UnavailableError, "check that the server runs and that the address is right"),
    "DEADLINE_EXCEEDED": (TimedOutError, "raise serving.client.timeout_seconds, or look at the server's load"),
}


def unreachable(what: str, where: str) -> UnavailableError:
    """Return the error for a server that did not answer."""
    return UnavailableError(f"cannot be reached ({what})", where=where, fix=_CLASSES["UNAVAILABLE"][1])


def untrusted(error: ClientError) -> ClientError:
    """Return an error of a certificate: another try would end the same way."""
    error.retryable, error.fix = False, _TRUST
    return error


def timed_out(seconds: float, where: str) -> TimedOutError:
    """Return the error for a call that did not end in the time that it had."""
    return TimedOutError(f"no answer within {seconds:g} s", where=where, fix=_CLASSES["DEADLINE_EXCEEDED"][1])


def error_of(code: str, message: str, where: str, retry_after: float | None = None) -> ClientError:
    """Return the error for what a server answered; of its message the first line is kept."""
    lines = message.strip().splitlines()
    text = lines[0].strip().rstrip(".")[:_LONGEST] if lines else ""
    if code == "INVALID_ARGUMENT" and _UNKNOWN_LABEL in text.lower():
        kind, fix = _CLASSES["NOT_FOUND"]
    elif code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in text.lower():
        kind, fix = BadRequestError, "send fewer rows in one request: serving.client.rows_per_request"
    else:
        kind, fix = _CLASSES.get(code, (ServerFailureError, "look at the server's log"))
    error = kind(f"{text or 'no further words'} ({code})", where=where, fix=fix)
    error.code = code
    error.retry_after = retry_after
    error.retryable = kind.retryable or (kind is OverloadedError and retry_after is not None)
    return error
