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
