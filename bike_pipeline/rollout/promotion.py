"""From a pushed version to one that serves: validated, promoted, rolled out to the targets.

The targets are a models.config that servers poll, and running servers. A label may only name a version that is
available, so a server gets two requests (HandleReloadConfigRequest): the first loads the new version beside the ones it
has; when that is available, the second moves the labels and unloads the others. Until then it answers as before.

A BusyError means that another process is changing what is promoted, a StorageError that the state cannot be read or
written, for each of these functions.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ModelError, ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import PUSHED, REFUSED, REPLACED, ROLLED_BACK, STABLE, Change
from bike_pipeline.rollout import validation
from bike_pipeline.rollout.configuration import (
    MODELS_FILE,
    ServedVersions,
    base_path_in_container,
    promoted_config,
    proto_text,
    write,
)
from bike_pipeline.rollout.delivery.position import position_of
from bike_pipeline.settings.section import Section
from bike_pipeline.settings.serving import PromotionSettings, ServingClientSettings
from bike_pipeline.settings.serving_configuration import RequestLoggingSettings

if TYPE_CHECKING:
    from bike_pipeline.serving.clients.connection import Connection
    from bike_pipeline.settings import Settings

_POLL_SECONDS = 0.1


class RolloutTargets(Section):
    """The servers and files that a promotion of a model reaches.

    Attributes:
        model_name: the name that it is served under.
        base_path: its base path as servers see it.
        promotion: the targets, and how long they may take.
        request_logging: the request log that models.config asks for.
        client: how servers are reached; its address and protocol do not count.
        rollout: the label that a run's push gets in place of `stable`; "" for `stable`.
        percent: its first share of the requests.
    """

    model_name: str
    base_path: str
    promotion: PromotionSettings
    request_logging: RequestLoggingSettings
    client: ServingClientSettings = ServingClientSettings()
    rollout: str = ""
    percent: float = 0.0

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
            rollout=(kind := settings.rollout.automatic),
            percent=settings.rollout.first_percent(kind) if kind else 0.0,
        )

    def to_json(self) -> str:
        """Return everything as text, for the parameters of a stage."""
        # The rest of the client's settings does not change a promotion, and must not repeat a stage.
        left_out = set(ServingClientSettings.model_fields) - {"tls", "ca_file", "certificate", "key"}
        unused = {} if self.rollout else {"rollout": True, "percent": True}
        return json.dumps(self.model_dump(mode="json", exclude={"client": left_out, **unused}), sort_keys=True)


def served_versions(base_path: str | Path, keep_loaded: int) -> ServedVersions:
    """Return what servers are to load: versions with a label, and the last `keep_loaded` that were `stable` before."""
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
    """
    served = served_versions(base_path, targets.promotion.keep_loaded)
    if not served.versions:
        return []
    reached = []
    if targets.promotion.models_config:
        path = Path(targets.promotion.models_config).expanduser()
        config = promoted_config(targets.model_name, targets.base_path, served, targets.request_logging)
        write({path.name or MODELS_FILE: proto_text(config)}, path.parent)
        reached.append(str(path))
    errors = []
    for address in targets.promotion.servers:
        try:
            _reload(address, targets, served)
            reached.append(address)
        except ServerError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return reached


def _reload(address: str, targets: RolloutTargets, served: ServedVersions) -> None:
    import grpc

    # A rollback without servers needs none of it.
    from bike_pipeline.serving.clients import rpc
    from bike_pipeline.serving.clients.connection import connection_of

    connection = connection_of(targets.client, targets.model_name, address, "grpc")
    with rpc.channel(connection) as channel:
        server = _Server(rpc.services(channel)[rpc.MODEL], connection, targets)
        try:
            available = {version for version, (state, _) in server.states().items() if state == "AVAILABLE"}
            server.load(ServedVersions(tuple(sorted({*available, *served.versions})), {}))
            server.wait(served)
            server.load(served)
        except grpc.RpcError as error:
            reason = (error.details() if isinstance(error, grpc.Call) else "") or str(error)
            raise ServerError(
                f"the server was not told of the promotion ({reason.splitlines()[0]})",
                where=address,
                fix="mend that, then call `bike-pipeline promote` again, which tells every server anew",
            ) from None


class _Server:
    """A server's ModelService."""

    def __init__(self, service: Any, connection: Connection, targets: RolloutTargets) -> None:
        from bike_pipeline.serving import protos

        self._address, self._targets = connection.authority, targets
        self._options = {"timeout": targets.promotion.server_seconds, "metadata": tuple(connection.credentials.items())}
        self._status, self._management = protos.get_model_status_pb2, protos.model_management_pb2
        self._service = service

    def load(self, served: ServedVersions) -> None:
        """Have it serve these versions and no others."""
        t = self._targets
        request = self._management.ReloadConfigRequest()
        request.config.CopyFrom(promoted_config(t.model_name, t.base_path, served, t.request_logging))
        response = self._service.HandleReloadConfigRequest(request, **self._options)
        if response.status.error_code:
            raise ServerError(
                f"the server refuses what is promoted ({response.status.error_message})",
                where=self._address,
                fix="check the model's name and serving.promotion.server_base_path",
            )

    def states(self) -> dict[int, tuple[str, str]]:
        """Return the state and the error of each version; nothing if the server does not have the model."""
        import grpc

        request = self._status.GetModelStatusRequest()
        request.model_spec.name = self._targets.model_name
        try:
            found = self._service.GetModelStatus(request, **self._options).model_version_status
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        name = self._status.ModelVersionStatus.State.Name
        return {entry.version: (name(entry.state), entry.status.error_message) for entry in found}

    def wait(self, served: ServedVersions) -> None:
        """Return when the versions that have a label are available; one that does not load in time is a ServerError."""
        end = time.monotonic() + self._targets.promotion.server_seconds
        needed = set(served.labels.values()) or set(served.versions)
        while True:
            states = self.states()
            if all(states.get(version, ("", ""))[0] == "AVAILABLE" for version in needed):
                return
            broken = [(v, text) for v, (found, text) in states.items() if v in needed and found == "END" and text]
            if broken or time.monotonic() > end:
                version, reason = broken[0] if broken else (max(needed), "it is not available in time")
                raise ServerError(
                    f"the server did not load version {version} ({reason})",
                    where=self._address,
                    fix="see the server's log; it answers with what it had before",
                )
            time.sleep(_POLL_SECONDS)


def after_push(base_path: str | Path, version: int, targets: RolloutTargets, reason: str = "a run pushed it") -> str:
    """Validate and promote what was pushed, if promotion is automatic; return why it is not promoted, or "".

    Where the targets say so, a rollout is started in its place, and ends that of an older version. What somebody rolled
    back or replaced by hand is not promoted again. `reason` is for the history.

    Raises:
        ServerError: it does not pass, or a target does not take it.
        ModelError: its files are not those that were pushed.
    """
    if not targets.promotion.automatic:
        serves = ModelRegistry(base_path).serving() == version
        return "" if serves else "not promoted: `bike-pipeline promote` does that"
    if _was_withdrawn(base_path, version):
        return "not promoted again: somebody went back from it; `bike-pipeline promote` does that"
    registry = ModelRegistry(base_path)
    if not targets.rollout or registry.serving() in (None, version):
        promote(base_path, version, targets, reason=reason)
        return ""
    going_on = position_of(registry)
    if going_on is None or going_on.version != version:
        if going_on is not None:
            registry.abort(going_on.label, f"version {version} is newer")
        start(base_path, version, targets.rollout, targets.percent, targets, reason)
    return f"not promoted at once: version {version} is being rolled out as {targets.rollout}"


def _was_withdrawn(base_path: str | Path, version: int) -> bool:
    registry = ModelRegistry(base_path)
    deployment = registry.deployment()
    if deployment is None:
        return False
    if deployment.status(version) in (ROLLED_BACK, REPLACED):
        return True
    record = registry.push_record(version) or {}
    withdrawn = [v for v, status in deployment.statuses.items() if status == ROLLED_BACK]
    # The same model under another number, since the files of its first push were lost.
    return any((registry.push_record(v) or {}).get("fingerprint", "") == record.get("fingerprint") for v in withdrawn)


def promote(
    base_path: str | Path, version: int, targets: RolloutTargets, label: str = STABLE, reason: str = ""
) -> Change | None:
    """Validate a version unless that was done, promote it and roll it out; return None if it had the label already.

    Raises:
        ServerError: it does not pass, or a target does not take it.
        ModelError: there is no such version, or its files are not those that were pushed.
    """
    validate(base_path, version, targets)
    change = ModelRegistry(base_path).promote(version, label, reason)
    roll_out(base_path, targets)
    return change


def start(
    base_path: str | Path, version: int, label: str, percent: float, targets: RolloutTargets, reason: str
) -> Change:
    """Validate a version unless that was done, and give it its first share; tell the servers.

    Raises:
        ModelError: another rollout goes on, nothing is stable, or the version may not serve.
        ServerError: it does not pass its validation, or a server does not follow.
    """
    registry = ModelRegistry(base_path)
    going_on, fix = position_of(registry), "`bike-pipeline rollout abort --reason …` ends it"
    if going_on is not None:
        what = f"version {going_on.version} is being rolled out as {going_on.label}"
        raise ModelError(what, where=str(base_path), fix=fix)
    registry.begin()
    if registry.serving() is None:
        what, fix = "nothing is stable, so nobody would answer the rest", f"`bike-pipeline promote {version}`"
        raise ModelError(what, where=str(base_path), fix=fix)
    validate(base_path, version, targets)
    state = registry.deployment()
    change = ModelRegistry(base_path, revision=state.revision if state else 0).shift(version, label, percent, reason)
    assert change is not None
    roll_out(base_path, targets)
    return change


def validate(base_path: str | Path, version: int, targets: RolloutTargets) -> None:
    """Validate a version unless that was done, and record what came of it; errors as of `promote`."""
    registry = ModelRegistry(base_path)
    registry.require_sound(version)
    registry.begin()
    deployment = registry.deployment()
    if deployment is not None and deployment.status(version) in (PUSHED, REFUSED):
        try:
            result = "validation is switched off"
            if targets.promotion.validation.enabled:
                result = validation.validate(base_path, version, targets.promotion.validation).in_words()
        except ServerError as error:
            registry.set_validated(version, passed=False, reason=str(error))
            raise
        registry.set_validated(version, passed=True, reason=result)


def rollback(
    base_path: str | Path, targets: RolloutTargets, to: int | None = None, label: str = STABLE, reason: str = ""
) -> Change:
    """Give a label back to a version that had it before, and roll that out. Nothing is loaded for it here.

    Raises:
        ServerError: a target does not take it.
        ModelError: nothing had the label before, or that version is gone or damaged.
    """
    change = ModelRegistry(base_path).rollback(to, label, reason)
    roll_out(base_path, targets)
    return change
