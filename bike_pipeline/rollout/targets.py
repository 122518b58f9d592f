"""Brings what is promoted to the rollout targets: a models.config that servers poll, and running servers.

A label may only name a version that is available, so a server gets two requests (HandleReloadConfigRequest): the first
loads the new version beside the ones it has; when that is available, the second moves the labels and unloads the
others. Until then it answers as before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout.configuration import (
    MODELS_FILE,
    ServedVersions,
    base_path_in_container,
    promoted_config,
    proto_text,
    write,
)
from bike_pipeline.settings.section import Section
from bike_pipeline.settings.serving import PromotionSettings, ServingClientSettings
from bike_pipeline.settings.serving_configuration import RequestLoggingSettings

if TYPE_CHECKING:
    from bike_pipeline.serving.clients.connection import Connection
    from bike_pipeline.settings import Settings

_POLL_SECONDS = 0.1
_IDENTITY = {"tls", "ca_file", "certificate", "key"}


class RolloutTargets(Section):
    """The servers and files that a promotion of a model reaches.

    Attributes:
        model_name: the name that it is served under.
        base_path: its base path as servers see it.
        promotion: the targets, and how long they may take.
        request_logging: the request log that models.config asks for.
        client: how servers are reached; its address and protocol do not count.
    """

    model_name: str
    base_path: str
    promotion: PromotionSettings
    request_logging: RequestLoggingSettings
    client: ServingClientSettings = ServingClientSettings()

    @staticmethod
    def of(settings: Settings) -> RolloutTargets:
        """Return those of the settings."""
        promotion = settings.serving.promotion
        return RolloutTargets(
            model_name=settings.serving.model_name,
            base_path=promotion.server_base_path or base_path_in_container(settings),
            promotion=promotion,
            request_logging=settings.serving.configuration.request_logging,
            client=settings.serving.client,
        )

    def to_json(self) -> str:
        """Return everything as text, for the parameters of a stage."""
        values = self.model_dump(mode="json", exclude={"client"})
        # The rest of the client's settings does not change a promotion, and must not repeat a stage.
        return json.dumps({**values, "client": self.client.model_dump(mode="json", include=_IDENTITY)}, sort_keys=True)


def served_versions(base_path: str | Path, keep_loaded: int) -> ServedVersions:
    """Return what servers are to load: versions with a label, and the last `keep_loaded` that were `stable` before.

    Raises:
        StorageError: the state cannot be read.
    """
    registry = ModelRegistry(base_path)
    deployment = registry.deployment()
    if deployment is None:
        promoted = registry.serving()
        return ServedVersions(() if promoted is None else (promoted,), {})
    present, stable = set(registry.versions()), deployment.labels.get(STABLE, 0)
    # A request that names no version gets the newest one that is loaded, so only older ones may stay.
    earlier = [v for v in deployment.previous.get(STABLE, ()) if v in present and v < stable]
    kept = earlier[-keep_loaded:] if keep_loaded else []
    return ServedVersions(tuple(sorted({*deployment.labels.values(), *kept})), dict(deployment.labels))


def roll_out(base_path: str | Path, targets: RolloutTargets) -> list[str]:
    """Bring what is promoted to every target; return the files and addresses that have it.

    Raises:
        ServerError: a server cannot be reached, refuses, or does not load the version; all others have it.
        StorageError: the state cannot be read, or models.config not be written.
    """
    wanted = served_versions(base_path, targets.promotion.keep_loaded)
    if not wanted.versions:
        return []
    reached = []
    if targets.promotion.models_config:
        path = Path(targets.promotion.models_config).expanduser()
        config = promoted_config(targets.model_name, targets.base_path, wanted, targets.request_logging)
        write({path.name or MODELS_FILE: proto_text(config)}, path.parent)
        reached.append(str(path))
    errors = []
    for address in targets.promotion.servers:
        try:
            _reload(address, targets, wanted)
            reached.append(address)
        except ServerError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return reached


def _reload(address: str, targets: RolloutTargets, wanted: ServedVersions) -> None:
    import grpc

    # A rollback without servers needs none of it.
    from bike_pipeline.serving.clients import rpc
    from bike_pipeline.serving.clients.connection import connection_of

    connection = connection_of(targets.client, targets.model_name, address, "grpc")
    with rpc.channel(connection) as channel:
        server = _Server(channel, connection, targets)
        try:
            server.load(ServedVersions(tuple(sorted({*server.available(), *wanted.versions})), {}))
            server.wait(wanted)
            server.load(wanted)
        except grpc.RpcError as error:
            reason = (error.details() if isinstance(error, grpc.Call) else "") or str(error)
            raise ServerError(
                f"the server was not told of the promotion ({reason.splitlines()[0]})",
                where=address,
                fix="mend that, then call `bike-pipeline promote` again, which tells every server anew",
            ) from None


class _Server:
    """A server's ModelService."""

    def __init__(self, channel: Any, connection: Connection, targets: RolloutTargets) -> None:
        from bike_pipeline.serving import protos
        from bike_pipeline.serving.clients import rpc

        self._address, self._targets = connection.authority, targets
        self._options = {"timeout": targets.promotion.server_seconds, "metadata": tuple(connection.credentials.items())}
        self._status, self._management = protos.get_model_status_pb2, protos.model_management_pb2
        self._service = rpc.services(channel)[rpc.MODEL]

    def load(self, wanted: ServedVersions) -> None:
        """Have it serve these versions and no others."""
        t = self._targets
        request = self._management.ReloadConfigRequest()
        request.config.CopyFrom(promoted_config(t.model_name, t.base_path, wanted, t.request_logging))
        response = self._service.HandleReloadConfigRequest(request, **self._options)
        if response.status.error_code:
            raise ServerError(
                f"the server refuses what is promoted ({response.status.error_message})",
                where=self._address,
                fix="check the model's name and serving.promotion.server_base_path",
            )

    def _states(self) -> Mapping[int, tuple[int, str]]:
        request = self._status.GetModelStatusRequest()
        request.model_spec.name = self._targets.model_name
        found = self._service.GetModelStatus(request, **self._options).model_version_status
        return {entry.version: (entry.state, entry.status.error_message) for entry in found}

    def available(self) -> list[int]:
        """Return the versions that answer; none if it does not have the model."""
        import grpc

        try:
            states = self._states()
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.NOT_FOUND:
                return []
            raise
        ready = self._status.ModelVersionStatus.AVAILABLE
        return [version for version, (found, _) in states.items() if found == ready]

    def wait(self, wanted: ServedVersions) -> None:
        """Return when the versions that have a label are available; one that does not load in time is a ServerError."""
        kinds = self._status.ModelVersionStatus
        end = time.monotonic() + self._targets.promotion.server_seconds
        needed = set(wanted.labels.values()) or set(wanted.versions)
        while True:
            states = self._states()
            if all(states.get(version, (0, ""))[0] == kinds.AVAILABLE for version in needed):
                return
            broken = [(v, text) for v, (found, text) in states.items() if v in needed and found == kinds.END and text]
            if broken or time.monotonic() > end:
                version, reason = broken[0] if broken else (max(needed), "it is not available in time")
                raise ServerError(
                    f"the server did not load version {version} ({reason})",
                    where=self._address,
                    fix="see the server's log; it answers with what it had before",
                )
            time.sleep(_POLL_SECONDS)
