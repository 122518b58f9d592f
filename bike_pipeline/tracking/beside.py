"""What happens beside a run or an ingest: told in one line, bounded in time, and never an error of theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bike_pipeline import extras
from bike_pipeline.errors import BikePipelineError, ConfigurationError, TrackingError

if TYPE_CHECKING:
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.lineage.queries.tracking_payload import TrackedRun
    from bike_pipeline.settings import Settings

# A server that does not even accept a connection is given up before MLflow is imported.
_CONNECT_SECONDS = 3.0


def tell_mlflow(settings: Settings, run: TrackedRun) -> dict[str, Any]:
    """Tell a run to MLflow and return the sender's `Sent`; a run that is there already is told no second time.

    Raises:
        ConfigurationError: no server is named.
        MissingExtraError: the extra `tracking` is not installed.
        TrackingError: the server cannot be reached, refuses, or takes longer than the settings allow.
    """
    tracking = settings.tracking.mlflow
    if not tracking.uri:
        raise ConfigurationError(
            "no MLflow server is named", where="tracking.mlflow.uri", fix="set it, such as to http://127.0.0.1:5000"
        )
    extras.require("tracking", "sending runs to MLflow")
    _connect(tracking.uri)
    message = {
        "uri": tracking.uri,
        "experiment": tracking.experiment or settings.pipeline_name,
        "registered_model": tracking.registered_model or settings.serving.model_name,
        "run": asdict(run),
    }
    command = [sys.executable, "-m", "bike_pipeline.tracking.mlflow_sender"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(message),
            stdout=subprocess.PIPE,
            text=True,
            timeout=tracking.timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrackingError(
            f"MLflow did not take the run within {tracking.timeout_seconds:g} seconds",
            where=tracking.uri,
            fix=_LATER,
        ) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"the sender ended with exit code {done.returncode}"}
    if "error" in answer:
        raise TrackingError(f"MLflow did not take the run ({answer['error']})", where=tracking.uri, fix=_LATER)
    return answer


_LATER = "look at the server, then send it with `bike-pipeline track`; nothing is sent twice"


def _connect(uri: str) -> None:
    """Stop at once where nothing listens.

    Raises:
        TrackingError: no connection comes to be.
    """
    import socket
    import urllib.request

    parts = urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        return
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        # Only the proxy may be able to reach it.
        return
    address = (host, parts.port or (443 if parts.scheme == "https" else 80))
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()
    except OSError as error:
        raise TrackingError(f"MLflow cannot be reached ({error.strerror or error})", where=uri, fix=_LATER) from None


def in_words(sent: Mapping[str, Any]) -> str:
    """Return what came of telling a run, as one line."""
    line = f"tracked in MLflow as run {sent['mlflow_run']}" + ("" if sent["created"] else " (was there already)")
    if sent["registered"]:
        line += f"; registered: version {', '.join(map(str, sent['registered']))}"
    if sent["serving"]:
        line += f"; serving: version {sent['serving']}"
    return "; ".join([line, *sent["notes"]])


def after_run(settings: Settings, run_id: str) -> str:
    """Tell a run that has just ended, where a server is named; return what to tell a person, "" for nothing.

    Whatever goes wrong is one line, and its traceback goes to standard error, the run's log.
    """
    if not settings.tracking.mlflow.uri:
        return ""
    try:
        from bike_pipeline.lineage.queries.tracking_payload import tracked_run
        from bike_pipeline.lineage.store.connection import open_at
        from bike_pipeline.lineage.store.metadata_store import Lineage

        return in_words(tell_mlflow(settings, tracked_run(Lineage(open_at(settings.metadata_address)), run_id)))
    except Exception as error:  # noqa: BLE001 (the run is over and stays what it is)
        return _warning(error)


def after_ingest(settings: Settings, store: SpanStore, span: int, version: int) -> str:
    """Write a span version for DVC, where that is on; return what to tell a person, "" for nothing."""
    if not settings.tracking.dvc.enabled:
        return ""
    from bike_pipeline.tracking.dvc import write_version

    try:
        return f"for DVC: {write_version(store, span, version, settings.dvc_path, settings.dvc_remote)}"
    except (BikePipelineError, OSError) as error:
        return _warning(error)


def _warning(error: Exception) -> str:
    import traceback

    if not isinstance(error, BikePipelineError):
        traceback.print_exception(error)
    sys.stderr.write(f"tracking: {error}\n")
    return f"warning: not tracked: {error}"
