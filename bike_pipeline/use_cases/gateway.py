"""The gateway: its settings with what a command line says otherwise, and Envoy's configuration as of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings with fields of the section `gateway` changed; a ConfigurationError says what is wrong."""
    from pydantic import ValidationError

    from bike_pipeline.settings.gateway import GatewaySettings

    try:
        gateway = GatewaySettings.model_validate({**settings.gateway.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "gateway"
        raise ConfigurationError(
            f"{name}: {first['msg'].removeprefix('Value error, ')}",
            where="gateway",
            fix="write it as in --servers stable=tf-serving,canary=10.0.0.2:8501:8500",
        ) from None
    return settings.model_copy(update={"gateway": gateway})


def exposure(settings: Settings) -> str:
    """Return what is open to others where the gateway listens, as a line to print; empty for nothing."""
    from bike_pipeline.serving.server.access import is_loopback

    gateway = settings.gateway
    proven = gateway.authentication.methods or gateway.tls.client_ca_file
    missing = [
        *(["TLS (gateway.tls)"] if not gateway.tls.certificate_file else []),
        *(["authentication (gateway.authentication)"] if not proven else []),
    ]
    if is_loopback(gateway.host) or not missing:
        return ""
    return f"warning: {gateway.host} is reached from other machines, without {' and without '.join(missing)}"


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Envoy's configuration as of now, complete in itself, for an Envoy that somebody else runs.

    Raises:
        ConfigurationError: no servers are named.
        ServerError: what is promoted cannot be routed.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.model_registry.deployment import STABLE
    from bike_pipeline.rollout.gateway.configuration import bootstrap, named
    from bike_pipeline.rollout.gateway.routes import route_configuration
    from bike_pipeline.rollout.tracks import Track, tracks

    upstreams = named(settings)
    if not upstreams:
        raise ConfigurationError(
            "no server is named that Envoy could ask",
            where="gateway.servers",
            fix="name them with --servers stable=HOST, or run `bike-pipeline gateway`, which starts them",
        )
    deployment = ModelRegistry(settings.serving_path).deployment()
    promoted = tracks(deployment, settings) or {STABLE: Track(0, 100.0)}
    routed = {label: track for label, track in promoted.items() if label in upstreams}
    routes = route_configuration(routed, deployment.revision if deployment else 0, settings)
    return bootstrap(settings, upstreams, routes=routes, access_log=settings.gateway.access_log or "/dev/stdout")
