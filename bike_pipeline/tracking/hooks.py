"""What follows a run or an ingest: one line, bounded in time, and never an error of theirs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import traceback
import urllib.request
from dataclasses import asdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bike_pipeline import extras
from bike_pipeline.errors import BikePipelineError, ConfigurationError, TrackingError

if TYPE_CHECKING:
    from bike_pipeline.data.manifest import SpanVersion
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.lineage.queries.tracking_payload import TrackingPayload
    from bike_pipeline.settings import Settings
    from bike_pipeline.tracking.mlflow_sender import Sent

# A server that does not even accept a connection is given up before MLflow is imported.
_CONNECT_SECONDS = 3.0
_LATER = "look at the server, then send it with `bike-pipeline track`; nothing is sent twice"


def send_to_mlflow(settings: Settings, run: TrackingPayload) -> Sent:
    """Send a run to MLflow, unless it is there; TrackingError if the server does not take it in the time it has."""
    from bike_pipeline.tracking.mlflow_sender import Message, Sent

    tracking = settings.tracking.mlflow
    if not tracking.uri:
        raise ConfigurationError(
            "no MLflow server is named", where="tracking.mlflow.uri", fix="set it, such as to http://127.0.0.1:5000"
        )
    extras.require("tracking", "sending runs to MLflow")
    _connect(tracking.uri)
    experiment, model = tracking.experiment or settings.pipeline_name, tracking.registered_model
    message = Message(tracking.uri, experiment, model or settings.serving.model_name, asdict(run))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bike_pipeline.tracking.mlflow_sender"],
            input=json.dumps(asdict(message), default=str),
            stdout=subprocess.PIPE,
            text=True,
            timeout=tracking.timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrackingError(
            f"MLflow did not take the run within {tracking.timeout_seconds:g} seconds", where=tracking.uri, fix=_LATER
        ) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"the sender ended with exit code {done.returncode}"}
    if "error" in answer:
        raise TrackingError(f"MLflow did not take the run ({answer['error']})", where=tracking.uri, fix=_LATER)
    return Sent(**answer)


def _connect(uri: str) -> None:
    """Stop at once if nothing listens."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    # Where there is a proxy, only that may be able to reach it.
    proxied = parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
    if proxied or parts.scheme not in ("http", "https"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise TrackingError(f"MLflow cannot be reached ({error.strerror or error})", where=uri, fix=_LATER) from None


def after_run(settings: Settings, run_id: str) -> str:
    """Send a run that has just ended, if a server is named; return what came of it, or went wrong, in one line."""
    if not settings.tracking.mlflow.uri:
        return ""
    try:
        from bike_pipeline.lineage.queries.tracking_payload import tracking_payload
        from bike_pipeline.lineage.store.connection import open_at
        from bike_pipeline.lineage.store.metadata_store import Lineage

        run = tracking_payload(Lineage(open_at(settings.metadata_address)), run_id)
        return send_to_mlflow(settings, run).in_words()
    except Exception as error:  # noqa: BLE001 (the run is over and stays what it is)
        return _warning(error)


def after_ingest(settings: Settings, store: SpanStore, span: int, version: int) -> str:
    """Write a span version for DVC, if that is on; return what came of it in one line, "" for nothing."""
    if not settings.tracking.dvc.enabled:
        return ""
    from bike_pipeline.tracking.dvc import write_version

    try:
        return f"for DVC: {write_version(store, span, version, settings.dvc_path, settings.dvc_remote)}"
    except (BikePipelineError, OSError) as error:
        return _warning(error)


def after_withdrawal(settings: Settings, version: SpanVersion) -> None:
    """Take a withdrawn version's `.dvc` file away, so that what is pulled does not count it either."""
    from bike_pipeline.storage.atomic_files import one_error
    from bike_pipeline.tracking.dvc import dvc_file

    written = dvc_file(settings.dvc_path, version)
    with one_error("remove", written):
        written.unlink(missing_ok=True)


def _warning(error: Exception) -> str:
    if not isinstance(error, BikePipelineError):
        traceback.print_exception(error)
    sys.stderr.write(f"tracking: {error}\n")
    return f"warning: not tracked: {error}"
