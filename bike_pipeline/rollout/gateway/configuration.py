"""Envoy's configuration: one listener for both protocols, a cluster a track and protocol, the access log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bike_pipeline.rollout.gateway import filters
from bike_pipeline.rollout.gateway.filters import API
from bike_pipeline.rollout.gateway.routes import METADATA, NAME

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

DATASET = "bike_pipeline.gateway"
_REST_PORT, _GRPC_PORT = 8501, 8500
# What Envoy reads of a connection at once, and holds of one whose request it has refused already. A body that is let in
# may have `limits.request_bytes` whatever this is; 8 MiB each way are as fast with it as with 1 MiB.
BUFFER_BYTES = 64 * 1024
# More than the servers answer at once; the rest waits in their queues or is refused there, not here.
_AT_ONCE = 10_000


class Files(NamedTuple):
    """The files that a running Envoy reads again when others are renamed into their places, and its own interface."""

    routes: Path
    authentication: Path
    secrets: Path
    admin: Path


class Upstream(NamedTuple):
    """A model server as Envoy reaches it: `HOST:PORT` of each API, or the path of a Unix socket."""

    rest: str
    grpc: str

    @staticmethod
    def of(address: str) -> Upstream:
        """Return the server of an address `HOST` or `HOST:REST_PORT:GRPC_PORT`; of IPv6, with brackets."""
        found = re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d+):(\d+))?", address)
        host, rest, grpc = found.groups() if found else (f"[{address}]", None, None)
        return Upstream(f"{host}:{rest or _REST_PORT}", f"{host}:{grpc or _GRPC_PORT}")

    @staticmethod
    def below(folder: Path) -> Upstream:
        """Return the embedded server whose Unix sockets are in a folder."""
        return Upstream(f"{folder}/rest.sock", f"{folder}/grpc.sock")


def bootstrap(
    settings: Settings,
    upstreams: Mapping[str, Upstream],
    *,
    routes: Mapping[str, Any] | None = None,
    files: Files | None = None,
    access_log: str = "/dev/stdout",
) -> dict[str, Any]:
    """Return what Envoy is started with.

    Args:
        settings: the sections `gateway` and `serving`.
        upstreams: the servers by label; a label without requests may have a server that is not there.
        routes: the routes, if no file has them.
        files: where Envoy reads what changes while it runs; None: what is there now is a part of the configuration.
        access_log: the file of the access log.
    """
    found: dict[str, Any] = {
        "node": {"id": NAME, "cluster": NAME},
        # Of a regular expression, whose search takes linear time whatever its size: a model's name may be long.
        "layered_runtime": {"layers": [{"name": "own", "static_layer": {"re2.max_program_size.error_level": 5000}}]},
        "static_resources": {
            "listeners": [_listener(settings, routes or {}, files, access_log)],
            "clusters": [
                _cluster(label, api, address, settings, files)
                for label, upstream in upstreams.items()
                for api, address in upstream._asdict().items()
            ],
        },
    }
    found["overload_manager"] = filters.overload_manager(settings.gateway.limits)
    if files:
        found["admin"] = {"address": {"pipe": {"path": str(files.admin), "mode": 0o600}}}
    return found


def _listener(settings: Settings, routes: Mapping[str, Any], files: Files | None, access_log: str) -> dict[str, Any]:
    gateway = settings.gateway
    manager: dict[str, Any] = {
        "@type": f"{API}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": NAME,
        "codec_type": "AUTO",
        # A client's own name of a request counts, in the log of each server that gets it and in the answer.
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "access_log": [_access_log(access_log)],
        "http_filters": filters.http_filters(settings, files.authentication if files else None),
        **filters.connection_limits(gateway.limits),
    }
    if files:
        config = {"path_config_source": filters.watched(files.routes), "resource_api_version": "V3"}
        manager["rds"] = {"route_config_name": NAME, "config_source": config}
    else:
        manager["route_config"] = {key: value for key, value in routes.items() if key != "@type"}
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if gateway.tls.certificate_file:
        chain["transport_socket"] = filters.listener_tls(gateway, files.secrets if files else None)
        chain["transport_socket_connect_timeout"] = f"{gateway.limits.read_seconds}s"
    return {
        "name": NAME,
        "address": _address(f"{gateway.host}:{gateway.port}"),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
    }


def _access_log(path: str) -> dict[str, Any]:
    """Return the log: a line a request in the words of the Elastic Common Schema, ours below `bike`.

    No header but the request's id, no body, no address of a client.
    """
    line = {
        "@timestamp": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
        "ecs": {"version": "8.11.0"},
        "event": {
            "dataset": DATASET,
            "kind": "event",
            "duration": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%",
        },
        "http": {
            "request": {"id": "%REQ(X-REQUEST-ID)%", "method": "%REQ(:METHOD)%", "bytes": "%BYTES_RECEIVED%"},
            "response": {"status_code": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%"},
        },
        "url": {"path": "%PATH(NQ)%"},
        "network": {"protocol": "%PROTOCOL%"},
        "service": {"name": "bike-pipeline-gateway"},
        "bike": {
            "client": f"%DYNAMIC_METADATA({filters.AUTHENTICATION}:{filters.CLIENT}:sub)%",
            "track": f"%METADATA(CLUSTER:{METADATA}:track)%",
            "revision": f"%METADATA(ROUTE:{METADATA}:revision)%",
            "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
            "upstream_duration": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ns)%",
            "reason": "%RESPONSE_CODE_DETAILS%",
        },
    }
    kind = f"{API}extensions.access_loggers.file.v3.FileAccessLog"
    form = {"json_format": line, "omit_empty_values": True}
    return {"name": "envoy.access_loggers.file", "typed_config": {"@type": kind, "path": path, "log_format": form}}


def _cluster(label: str, api: str, address: str, settings: Settings, files: Files | None) -> dict[str, Any]:
    name, protocol = f"{label}-{api}", "http2_protocol_options" if api == "grpc" else "http_protocol_options"
    thresholds = {"max_connections": _AT_ONCE, "max_pending_requests": _AT_ONCE, "max_requests": _AT_ONCE}
    tls = {}
    if settings.gateway.server_tls.ca_file and not address.startswith("/"):
        host, secrets = address.rpartition(":")[0].strip("[]"), files.secrets if files else None
        tls = {"transport_socket": filters.server_tls(settings.gateway, secrets, host, api)}
    return {
        **tls,
        "name": name,
        "type": "STATIC" if address.startswith("/") else "STRICT_DNS",
        # Of a host with addresses of both kinds, a server is most often at the older one.
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "metadata": {"filter_metadata": {METADATA: {"track": label}}},
        "circuit_breakers": {"thresholds": [thresholds]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{API}extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {protocol: {}},
                # Shorter than the server's own, which would end a connection while a request is on its way.
                "common_http_protocol_options": {"idle_timeout": "30s"},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}],
        },
    }


def _address(text: str) -> dict[str, Any]:
    """Return an address as Envoy has it: a Unix socket's path, or `HOST:PORT`."""
    if text.startswith("/"):
        return {"pipe": {"path": text}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def named(settings: Settings) -> dict[str, Upstream]:
    """Return the servers that the settings name, by label."""
    return {label: Upstream.of(address) for label, address in settings.gateway.servers.items()}
