"""Which server a request goes to: Envoy's route configuration, of the tracks and the settings.

Each track has two clusters, `<label>-rest` and `<label>-grpc`. Where a challenger has a share, a request of a named
user is answered by the cluster that the hash of the name chooses, so the same one every time; every other by chance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout.gateway.filters import AUTHENTICATION
from bike_pipeline.rollout.tracks import CANARY, CHALLENGER, SHADOW, Track
from bike_pipeline.serving.server.access import server_key

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.gateway import GatewaySettings

# The name of the route configuration, of its metadata and of the clusters'.
NAME, METADATA = "gateway", "bike_pipeline"
_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_OPEN = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig"
# Weights are in hundredths of a percent.
_WHOLE = 10_000
_PREDICTION = "/tensorflow.serving.PredictionService/"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_HEALTH = "/grpc.health.v1.Health/Check"
_METRICS = "/monitoring/prometheus/metrics"
# Nothing was done yet, or a server is about to stop and another one answers.
_RETRY = {"retry_on": "connect-failure,refused-stream,reset-before-request,unavailable", "num_retries": 2}


def route_configuration(tracks: Mapping[str, Track], revision: int, settings: Settings) -> dict[str, Any]:
    """Return the configuration for the tracks; without any, every request is answered with 503.

    Args:
        tracks: a version and its share by label (see `rollout.tracks`), of labels whose servers answer.
        revision: number of the change in the promotion log, which the access log tells of every request.
        settings: the model's name, the names of users, time limits.
    """
    gateway, model = settings.gateway, re.escape(settings.serving.model_name)
    is_open = gateway.authentication.open_health and gateway.authentication.methods
    routes = []
    # Whoever names a label or a version that has a server of its own gets that one.
    for label, track in tracks.items():
        named = f"(?:labels/{label}|versions/{track.version})"
        routes.append(_route(_rest(f"{model}/{named}"), {"cluster": f"{label}-rest"}, revision, gateway))
    if settings.serving.server.ui and STABLE in tracks:
        # The page asks the version that it names, so all of it is of one server.
        routes.append(_route({"path_separated_prefix": "/ui"}, {"cluster": f"{STABLE}-rest"}, revision, gateway))
    for match, api in (
        (_rest(f"{model}(?:/versions/[0-9]+|/labels/[^/:]+)?"), "rest"),
        ({"prefix": _PREDICTION, "grpc": {}}, "grpc"),
        ({"path": _STATUS, "grpc": {}}, "grpc"),
        ({"path": _HEALTH, "grpc": {}}, "grpc"),
        *([({"path": _METRICS}, "rest")] if gateway.metrics else []),
    ):
        if tracks:
            routes.append(_route(match, _shares(tracks, api, gateway), revision, gateway))
        else:
            routes.append({"match": match, "direct_response": {"status": 503}})
        if match.get("path") == _HEALTH and is_open:
            routes[-1]["typed_per_filter_config"] = {AUTHENTICATION: {"@type": _OPEN, "disabled": True}}
    host: dict[str, Any] = {"name": NAME, "domains": ["*"], "routes": routes}
    if key := server_key(settings.serving.server):
        # What a client had to send ended here; the servers ask for a key of their own.
        header = {"key": "authorization", "value": f"Bearer {key}"}
        host["request_headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return {"@type": _TYPE, "name": NAME, "virtual_hosts": [host]}


def discovery_response(configuration: dict[str, Any], version: str) -> bytes:
    """Return a route configuration as the file that Envoy watches; `version` is what it answers when it has it."""
    return json.dumps({"version_info": version, "resources": [configuration]}).encode()


def _rest(model: str) -> dict[str, Any]:
    """Return the match of what may be asked of a model; TF Serving's paths are in any letters."""
    regex = f"(?i:/v1/models/){model}(?::(?:predict|classify|regress|explain)|/(?i:metadata))?"
    return {"safe_regex": {"regex": regex}}


def _route(match: dict[str, Any], action: dict[str, Any], revision: int, gateway: GatewaySettings) -> dict[str, Any]:
    action = {**action, "timeout": f"{gateway.request_timeout_seconds}s", "retry_policy": _RETRY}
    metadata = {"filter_metadata": {METADATA: {"revision": revision}}}
    return {"match": match, "route": action, "metadata": metadata}


def _shares(tracks: Mapping[str, Track], api: str, gateway: GatewaySettings) -> dict[str, Any]:
    # In this order a canary that grows takes users from `stable` and leaves the challenger's where they are.
    weights = {label: round(tracks[label].share * _WHOLE / 100) for label in (CHALLENGER, CANARY) if label in tracks}
    weights[STABLE] = _WHOLE - sum(weights.values())
    clusters = [{"name": f"{label}-{api}", "weight": weight} for label, weight in weights.items() if weight]
    action: dict[str, Any] = {"weighted_clusters": {"clusters": clusters}}
    names: list[dict[str, Any]] = []
    if gateway.user_header:
        names.append({"header": {"header_name": gateway.user_header}, "terminal": True})
    if gateway.user_cookie:
        names.append({"cookie": {"name": gateway.user_cookie}})
    if CHALLENGER in tracks and names:
        action["weighted_clusters"]["use_hash_policy"] = True
        action["hash_policy"] = names
    if shadow := tracks.get(SHADOW):
        fraction = {"numerator": round(shadow.share * _WHOLE), "denominator": "MILLION"}
        mirror = {"cluster": f"{SHADOW}-{api}", "runtime_fraction": {"default_value": fraction}}
        action["request_mirror_policies"] = [mirror]
    return action
