"""Who asks, and what they may ask."""

from __future__ import annotations

from dataclasses import dataclass

PREDICT = "predict"
ADMIN = "admin"
SCOPES = {
    PREDICT: "predictions, metadata, status and metrics",
    ADMIN: "changing what is served (HandleReloadConfigRequest)",
}


@dataclass(frozen=True)
class Client:
    """Who asks, and what they may ask.

    Attributes:
        id: names the client in logs and for its rate: `key:ID`, `jwt:SUBJECT` or `peer:ADDRESS`.
    """

    id: str
    name: str
    scopes: frozenset[str]


class Refusal(Exception):  # noqa: N818 (an answer, not a fault)
    """A request that is answered with an error on purpose; its message is for the client.

    Attributes:
        status: the HTTP status; `rest` and `rpc` translate it.
        code: name of the gRPC status code.
        retry_after: seconds to wait before asking again; 0 if waiting does not help.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[Refusal], tuple[int, str, str, float]]:
        """Rebuild it from its parts: large messages are refused by another process."""
        return type(self), (self.status, self.code, self.message, self.retry_after)
