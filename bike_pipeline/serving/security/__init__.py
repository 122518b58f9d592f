"""Who may ask the embedded server, over what connection, and how much: TLS, keys, tokens, limits.

A server asks for what it needs with one and the same `Settings` object, before it listens; what is wrong with a file is
a `ConfigurationError` then. `docs/serving-security.md` says what each setting does.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    from bike_pipeline.serving.security.guard import Guard
    from bike_pipeline.settings import Settings

_last: list[tuple[Settings, Guard]] = []


def _guard(settings: Settings) -> Guard:
    """Return the guard of these settings: REST and gRPC of one server share it, and so its rates."""
    from bike_pipeline.serving.security.guard import Guard

    if not _last or _last[0][0] is not settings:
        _last[:] = [(settings, Guard(settings))]
    return _last[0][1]


def rest_middlewares(settings: Settings) -> list[Any]:
    """Return the aiohttp middlewares: authentication, rates, limits of a body, and no traceback to a client."""
    from bike_pipeline.serving.security.rest import middleware_of

    return [middleware_of(_guard(settings))]


def grpc_interceptors(settings: Settings) -> list[Any]:
    """Return the `grpc.aio.ServerInterceptor`s: the same for gRPC, and HandleReloadConfigRequest for admins only."""
    from bike_pipeline.serving.security.rpc import GuardInterceptor

    return [GuardInterceptor(_guard(settings))]


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for REST, which follows renewed files; None if no certificate is configured."""
    tls = settings.serving.security.tls
    if not tls.certificate_file:
        return None
    from bike_pipeline.serving.security.certificates import context_of, watch

    return context_of(watch(tls))


def grpc_credentials(settings: Settings) -> Any:
    """Return gRPC's `ServerCredentials`, which follow renewed files; None if no certificate is configured."""
    tls = settings.serving.security.tls
    if not tls.certificate_file:
        return None
    from bike_pipeline.serving.security.certificates import credentials_of, watch

    return credentials_of(watch(tls))


def rest_options(settings: Settings) -> dict[str, Any]:
    """Return keyword arguments for aiohttp's `web.AppRunner`: sizes of headers, patience with slow clients."""
    limits = settings.serving.security.limits
    return {
        "max_line_size": limits.header_bytes,
        "max_field_size": limits.header_bytes,
        "max_headers": limits.headers,
        # Bodies are unpacked after it is known whose they are (see `bodies`).
        "auto_decompress": False,
        "keepalive_timeout": limits.idle_seconds,
        # What is left of a body that was refused is not waited for any longer than that.
        "lingering_time": min(limits.read_seconds, 5.0),
    }


def grpc_options(settings: Settings) -> list[tuple[str, int]]:
    """Return options for `grpc.aio.server`: the size of metadata, idle connections, abuse of pings."""
    limits = settings.serving.security.limits
    return [
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", 2 * limits.header_bytes),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", int(limits.read_seconds * 1000)),
        # A connection that was lost without a word is found out and freed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_concurrent_streams", 1000),
    ]


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
