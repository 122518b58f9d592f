"""What a request must pass in Envoy before it is routed: TLS, rates, credentials, sizes, and what a refusal says."""

from __future__ import annotations

import ipaddress
import math
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError, first_words
from bike_pipeline.rollout.gateway import api_keys

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.gateway import GatewayLimitSettings, GatewayServerTlsSettings, GatewaySettings

API = "type.googleapis.com/envoy."
AUTHENTICATION = "envoy.filters.http.jwt_authn"
_AUTHENTICATION_TYPE = f"{API}extensions.filters.http.jwt_authn.v3.JwtAuthentication"
# Where Envoy keeps what a token says while its request is under way.
CLIENT = "client"
# Envoy asks a bucket of a client to be filled at a multiple of the common one's interval.
_TICK = 0.05
_ENDLESS = 4_000_000_000
_BEARER = {"name": "authorization", "value_prefix": "Bearer "}
_REMEMBERED_TOKENS = 4096


def http_filters(settings: Settings, authentication: Path | None) -> list[dict[str, Any]]:
    """Return the filters in the order in which a request passes them; its body is read by the last but one.

    Args:
        settings: the section `gateway`.
        authentication: the file that Envoy reads the keys from, again whenever it changes; None for the keys of now.
    """
    gateway, limits = settings.gateway, settings.gateway.limits
    found = []
    by_address: dict[str, Any] = {"remote_address": {}}
    if limits.address_requests_per_second or limits.total_requests_per_second:
        rates = (limits.address_requests_per_second, limits.total_requests_per_second)
        found.append(_rate("address", by_address, "remote_address", *rates, limits))
    if gateway.authentication.methods:
        if authentication is None:
            found.append({"name": AUTHENTICATION, "typed_config": authentication_of(settings)})
        else:
            source = {"path_config_source": watched(authentication), "resource_api_version": "V3"}
            discovery = {"config_source": source, "type_urls": [_AUTHENTICATION_TYPE]}
            found.append({"name": AUTHENTICATION, "config_discovery": discovery})
        if limits.requests_per_second:
            path = [{"key": CLIENT}, {"key": "sub"}]
            metadata = {"metadata_key": {"key": AUTHENTICATION, "path": path}, "descriptor_key": CLIENT}
            found.append(_rate(CLIENT, {"metadata": metadata}, CLIENT, limits.requests_per_second, 0.0, limits))
    elif limits.requests_per_second:
        found.append(_rate(CLIENT, by_address, "remote_address", limits.requests_per_second, 0.0, limits))
    buffer = {"@type": f"{API}extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": limits.request_bytes}
    router = {"@type": f"{API}extensions.filters.http.router.v3.Router"}
    found.append({"name": "envoy.filters.http.buffer", "typed_config": buffer})
    found.append({"name": "envoy.filters.http.router", "typed_config": router})
    return found


def authentication_of(settings: Settings) -> dict[str, Any]:
    """Return whose tokens are believed now; a ConfigurationError says that a file of keys is unsound."""
    authentication, jwt = settings.gateway.authentication, settings.gateway.authentication.jwt
    common = {"payload_in_metadata": CLIENT, "jwt_cache_config": {"jwt_cache_size": _REMEMBERED_TOKENS}}
    providers = {}
    if "api_keys" in authentication.methods:
        providers["api_keys"] = {
            **common,
            "issuer": api_keys.ISSUER,
            "audiences": [api_keys.AUDIENCE],
            "local_jwks": {"inline_string": api_keys.key_set(settings.gateway_key_file)},
            "from_headers": [{"name": "x-api-key"}, _BEARER],
            "clock_skew_seconds": 1,
        }
    if "jwt" in authentication.methods:
        providers["jwt"] = {
            **common,
            "issuer": jwt.issuer,
            "audiences": [jwt.audience],
            "local_jwks": {"inline_string": api_keys.public_keys(Path(jwt.jwks_file).expanduser())},
            "from_headers": [_BEARER],
            "clock_skew_seconds": jwt.leeway_seconds,
            "require_expiration": True,
        }
    any_of = [{"provider_name": name} for name in providers]
    needed = {"requires_any": {"requirements": any_of}} if len(any_of) > 1 else any_of[0]
    rule = {"match": {"prefix": "/"}, "requires": needed}
    # A browser asks for CORS before it sends credentials.
    return {
        "@type": _AUTHENTICATION_TYPE,
        "providers": providers,
        "rules": [rule],
        "bypass_cors_preflight": True,
        "strip_failure_response": True,
    }


def _rate(
    name: str, action: dict[str, Any], key: str, of_each: float, of_all: float, limits: GatewayLimitSettings
) -> dict[str, Any]:
    """Return a filter with a bucket of requests for each value of a key, and one for all."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    wait = max(1, math.ceil(1 / min(rate for rate in (of_each, of_all) if rate)))
    config: dict[str, Any] = {
        "@type": f"{API}extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": f"rate_{name}",
        "token_bucket": _bucket(of_all, limits.burst),
        "filter_enabled": always,
        "filter_enforced": always,
        "rate_limited_as_resource_exhausted": True,
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": str(wait)}}],
    }
    if of_each:
        config["rate_limits"] = [{"actions": [action]}]
        # An entry without a value stands for each value.
        config["descriptors"] = [{"entries": [{"key": key}], "token_bucket": _bucket(of_each, limits.burst)}]
        config["max_dynamic_descriptors"] = limits.clients
    return {"name": f"envoy.filters.http.local_ratelimit.{name}", "typed_config": config}


def _bucket(rate: float, burst: int) -> dict[str, Any]:
    if not rate:
        return {"max_tokens": _ENDLESS, "tokens_per_fill": _ENDLESS, "fill_interval": f"{_TICK}s"}
    seconds = max(1, math.ceil(1 / rate))
    return {"max_tokens": burst, "tokens_per_fill": max(1, round(rate * seconds)), "fill_interval": f"{seconds}s"}


def _tls(
    kind: str,
    names: tuple[str, str],
    gateway: GatewaySettings,
    secrets: Path | None,
    common: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Return what speaks TLS by the secrets of two names: the certificate that is shown, and the peer's authorities.

    With a folder of `secrets` (see `secrets_of`) Envoy watches the files that they name; else they are read once.
    """
    found = secrets_of(gateway)
    shown, trusted = (found.get(name) for name in names)

    def watched_secret(name: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": f"{secrets}/{name}.json"}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    expected = {"match_typed_subject_alt_names": more.pop("expected")} if "expected" in more else {}
    if shown and secrets:
        common["tls_certificate_sds_secret_configs"] = [watched_secret(names[0])]
    elif shown:
        common["tls_certificates"] = [shown["tls_certificate"]]
    if trusted and secrets:
        secret = watched_secret(names[1])
        both = {"default_validation_context": expected, "validation_context_sds_secret_config": secret}
        common["combined_validation_context"] = both
    elif trusted:
        common["validation_context"] = trusted["validation_context"] | expected
    kind = f"{API}extensions.transport_sockets.tls.v3.{kind}TlsContext"
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": kind, "common_tls_context": common, **more},
    }


def listener_tls(gateway: GatewaySettings, secrets: Path | None) -> dict[str, Any]:
    """Return what speaks TLS with clients; see `_tls`."""
    oldest = {"tls_minimum_protocol_version": f"TLSv{gateway.tls.minimum_version.replace('.', '_')}"}
    return _tls(
        "Downstream",
        ("certificate", "clients"),
        gateway,
        secrets,
        {"alpn_protocols": ["h2", "http/1.1"], "tls_params": oldest},
        require_client_certificate=bool(gateway.tls.client_ca_file),
        # A resumed session would skip the check of the client's certificate against renewed authorities.
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )


def server_tls(gateway: GatewaySettings, secrets: Path | None, host: str, api: str) -> dict[str, Any]:
    """Return what speaks TLS with a server, whose certificate must name the host that it is asked by; see `_tls`."""
    try:
        ipaddress.ip_address(host)
        san, sni = "IP_ADDRESS", {}
    except ValueError:
        san, sni = "DNS", {"sni": host}
    common = {
        "alpn_protocols": ["h2" if api == "grpc" else "http/1.1"],
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
    }
    expected = [{"san_type": san, "matcher": {"exact": host}}]
    return _tls("Upstream", ("shown", "servers"), gateway, secrets, common, expected=expected, **sni)


def client_context(tls: GatewayServerTlsSettings) -> ssl.SSLContext | None:
    """Return what Python asks a server over TLS with, from the files as they are now; None without TLS."""
    if not tls.ca_file:
        return None
    context = ssl.create_default_context(cafile=Path(tls.ca_file).expanduser())
    if tls.certificate_file:
        context.load_cert_chain(Path(tls.certificate_file).expanduser(), Path(tls.key_file).expanduser())
    return context


def check(gateway: GatewaySettings) -> None:
    """Refuse files that Envoy would start with and then let nobody in by; a ConfigurationError says why."""
    from cryptography import x509

    where = ""
    try:
        for one in (gateway.tls, gateway.server_tls):
            if where := one.certificate_file:
                files = Path(one.certificate_file).expanduser(), Path(one.key_file).expanduser()
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files, password="")
        files_of_tls = (gateway.tls.certificate_file, gateway.tls.client_ca_file)
        for where in filter(None, (*files_of_tls, gateway.server_tls.certificate_file, gateway.server_tls.ca_file)):
            for each in x509.load_pem_x509_certificates(Path(where).expanduser().read_bytes()):
                if not each.not_valid_before_utc <= datetime.now(UTC) <= each.not_valid_after_utc:
                    raise ValueError(f"the certificate of {each.subject.rfc4514_string()} is not valid now")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or first_words(error)
        raise ConfigurationError(
            f"it is no certificate to speak TLS with ({reason})",
            where=where,
            fix="correct gateway.tls or gateway.server_tls, or renew the file",
        ) from None


def secrets_of(gateway: GatewaySettings) -> dict[str, dict[str, Any]]:
    """Return certificates and authorities as Envoy's secrets by name, with the folders to watch.

    A renewal is seen whether a file is renamed into its place or, as in Kubernetes, a link beside it is (`..data`).
    """

    def file(name: str) -> dict[str, Any]:
        return {"filename": str(Path(name).expanduser().absolute())}

    def folder(name: str) -> dict[str, Any]:
        return {"watched_directory": {"path": str(Path(name).expanduser().absolute().parent)}}

    found: dict[str, dict[str, Any]] = {}
    for name, pair in (("certificate", gateway.tls), ("shown", gateway.server_tls)):
        if shown := pair.certificate_file:
            files = {"certificate_chain": file(shown), "private_key": file(pair.key_file)}
            found[name] = {"tls_certificate": files | folder(shown)}
    for name, trusted in (("clients", gateway.tls.client_ca_file), ("servers", gateway.server_tls.ca_file)):
        if trusted:
            found[name] = {"validation_context": {"trusted_ca": file(trusted)} | folder(trusted)}
    kind = f"{API}extensions.transport_sockets.tls.v3.Secret"
    return {name: {"@type": kind, "name": name, **secret} for name, secret in found.items()}


def connection_limits(limits: GatewayLimitSettings) -> dict[str, Any]:
    """Return the fields of Envoy's connection manager that bound headers, time and paths."""
    return {
        "max_request_headers_kb": limits.header_bytes // 1024,
        "common_http_protocol_options": {
            "idle_timeout": f"{limits.idle_seconds}s",
            "max_headers_count": limits.headers,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 1000,
            "initial_stream_window_size": 1024 * 1024,
            "initial_connection_window_size": 4 * 1024 * 1024,
            # A connection that was lost without a word is found out and freed.
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        "request_headers_timeout": f"{limits.read_seconds}s",
        "request_timeout": f"{limits.read_seconds}s",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        # What a client says of addresses before it is not believed.
        "use_remote_address": True,
        # TF Serving's errors are JSON; why credentials are refused is for their owner to look up.
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": _value("status", 401)}}},
                    "body": {"inline_string": "The credentials are missing, or not valid, or not any more."},
                }
            ],
            "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
        },
    }


def overload_manager(limits: GatewayLimitSettings) -> dict[str, Any]:
    """Return what Envoy does where its memory or the number of connections comes to its bound."""
    heap, most = "envoy.resource_monitors.fixed_heap", "envoy.resource_monitors.global_downstream_max_connections"

    def at(share: float) -> dict[str, Any]:
        return {"name": heap, "threshold": {"value": share}}

    def monitor(name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "typed_config": {"@type": f"{API}extensions.resource_monitors.{kind}", **config}}

    scaled = {"name": heap, "scaled": {"scaling_threshold": 0.8, "saturation_threshold": 0.98}}
    return {
        "refresh_interval": "0.1s",
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "resource_monitors": [
            monitor(heap, "fixed_heap.v3.FixedHeapConfig", {"max_heap_size_bytes": limits.memory_megabytes * 2**20}),
            monitor(
                most,
                "downstream_connections.v3.DownstreamConnectionsConfig",
                {"max_active_downstream_connections": limits.connections},
            ),
        ],
        # Of HTTP/1 Envoy does not know which request holds much: who goes on sending is cut off, of either protocol.
        "loadshed_points": [
            {"name": "envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch", "triggers": [at(0.95)]}
        ],
        "actions": [
            {"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": [scaled]},
            {"name": "envoy.overload_actions.shrink_heap", "triggers": [at(0.9)]},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [at(0.95)]},
        ],
    }


def _value(name: str, number: int) -> dict[str, Any]:
    return {"default_value": number, "runtime_key": f"own.{name}"}


def watched(path: Path) -> dict[str, Any]:
    """Return a file that Envoy reads again when another is renamed into its place, which is seen in its folder."""
    return {"path": str(path), "watched_directory": {"path": str(path.parent)}}
