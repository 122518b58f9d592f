"""Who may ask the embedded server, over what connection, and how much: TLS, keys, tokens, limits.

What is wrong with a file is a `ConfigurationError` before a server listens. `docs/serving-security.md` says what each
setting does.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

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
    scopes: frozenset[str]


def exposure(settings: Settings, host: str) -> str:
    """Return what is open to others if the server listens on that host, as a line to print; empty for nothing."""
    if _is_loopback(host):
        return ""
    security = settings.serving.security
    known = security.authentication.methods or security.tls.client_ca_file
    missing = [
        *(["TLS (serving.security.tls)"] if not security.tls.certificate_file else []),
        *(["authentication (serving.security.authentication)"] if not known else []),
    ]
    if not missing:
        return ""
    return f"warning: {host} is reached from other machines, without {' and without '.join(missing)}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
