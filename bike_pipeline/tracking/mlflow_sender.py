"""Sends one run to MLflow, as a process of its own: `python -m bike_pipeline.tracking.mlflow_sender`.

Standard input is one JSON object: `Message`, with the run as a dictionary. Standard output is one JSON object, a `Sent`
or {"error": …}; everything else goes to standard error. A process of its own can be given up on, and what MLflow
imports and sets stays in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import first_words
from bike_pipeline.lineage.queries.tracking_payload import RUN_ID_TAG, TAG_PREFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "serving"
PUSHED_VERSION_TAG = f"{TAG_PREFIX}pushed_version"
# MLflow's limit for the value of a parameter; a tag may be longer.
_LONGEST_VALUE = 6000
_DATABASE_FILE = "sqlite:///"
# Seconds for one request; the whole is bounded by whoever started this process.
_REQUEST_SECONDS = "10"


@dataclass(frozen=True)
class Message:
    """A run (a `TrackingPayload` as a dictionary) for a server; experiment and registered model are made if need be."""

    uri: str
    experiment: str
    registered_model: str
    run: dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """What came of it: versions that were registered now, the one that the alias names (or 0), what was not taken."""

    mlflow_run: str
    created: bool
    registered: list[int] = field(default_factory=list)
    serving: int = 0
    notes: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """Return it as one line."""
        line = f"tracked in MLflow as run {self.mlflow_run}" + ("" if self.created else " (was there already)")
        if self.registered:
            line += f"; registered: version {', '.join(map(str, self.registered))}"
        if self.serving:
            line += f"; serving: version {self.serving}"
        return "; ".join([line, *self.notes])


def send(message: Message) -> Sent:
    """Send the run; what the server has already is left as it is, so that it may be sent again."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _REQUEST_SECONDS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    # Nothing but the server that was named is asked.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_TRACKING_URI"] = message.uri
    from mlflow import MlflowClient

    client = MlflowClient(message.uri, message.uri)
    notes: list[str] = []
    run, created = _run(client, message, notes)
    registered, serving = _register(client, message, run, notes)
    return Sent(run.info.run_id, created, registered, serving, notes)


def _run(client: MlflowClient, message: Message, notes: list[str]) -> tuple[Any, bool]:
    """Return the server's copy of the run, and whether it was made now; one that was cut off is filled up."""
    from mlflow.entities import Metric, Param, RunTag

    own = message.run
    experiment = _experiment(client, message)
    found = client.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{own['run_id']}'", max_results=1)
    if found and found[0].info.status == "FINISHED":
        return found[0], False
    tags = {RUN_ID_TAG: own["run_id"]}
    run = found[0] if found else client.create_run(experiment, own["started_ms"], tags, own["run_id"])
    client.log_batch(
        run.info.run_id,
        # One time for all, so that a number that is sent again is the same number to the server.
        [Metric(name, value, own["ended_ms"], 0) for name, value in own["metrics"].items()],
        [Param(name, value[:_LONGEST_VALUE]) for name, value in own["parameters"].items()],
        [RunTag(name, value) for name, value in own["tags"].items()],
    )
    with _noting(notes, "artifacts"):
        client.log_dict(run.info.run_id, own["decisions"], "decisions.json")
    client.set_terminated(run.info.run_id, "FINISHED", own["ended_ms"])
    return run, True


@contextlib.contextmanager
def _noting(notes: list[str], what: str) -> Iterator[None]:
    """Note what the server does not take, and go on: an artifact store may be elsewhere, or absent."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (each kind of artifact store has errors of its own)
        sys.stderr.write(f"tracking: {what}: {error}\n")
        notes.append(f"{what} not taken ({first_words(error, 200)})")


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Pass over what exists already: another process may be a moment faster."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(client: MlflowClient, message: Message) -> str:
    location = None
    if message.uri.startswith(_DATABASE_FILE):
        # Beside the file; MLflow would take the folder that a run happens to be called in.
        file = Path(message.uri.removeprefix(_DATABASE_FILE))
        location = (file.absolute().parent / "artifacts").as_uri()
    if client.get_experiment_by_name(message.experiment) is None:
        with _unless_there():
            client.create_experiment(message.experiment, location)
    found: Any = client.get_experiment_by_name(message.experiment)
    return str(found.experiment_id)


def _register(client: MlflowClient, message: Message, run: Any, notes: list[str]) -> tuple[list[int], int]:
    """Register each push that the registry does not know, and move the alias to the newest; it never goes back."""
    name, pushes = message.registered_model, message.run["pushes"]
    if not pushes:
        return [], 0
    with _unless_there():
        client.create_registered_model(name)
    versions = _versions(client, name)
    registered = []
    for push in pushes:
        version = int(push["version"])
        if version in versions:
            continue
        folder, place = push["destination"], f"pushed/{version}"
        if Path(folder).is_dir():
            with _noting(notes, "the model's files"):
                client.log_artifacts(run.info.run_id, folder, place)
        else:
            notes.append(f"the files of version {version} are not on this machine, so they were not sent")
        tags = {
            PUSHED_VERSION_TAG: str(version),
            f"{TAG_PREFIX}destination": folder,
            f"{TAG_PREFIX}fingerprint": push["fingerprint"],
            RUN_ID_TAG: message.run["run_id"],
        }
        source = f"{run.info.artifact_uri}/{place}"
        made = client.create_model_version(name, source, run.info.run_id, tags=tags, await_creation_for=0)
        versions[version] = str(made.version)
        registered.append(version)
    newest = max(versions)
    current = client.get_registered_model(name).aliases.get(ALIAS)
    if str(current) != versions[newest]:
        client.set_registered_model_alias(name, ALIAS, versions[newest])
    return registered, newest


def _versions(client: MlflowClient, name: str) -> dict[int, str]:
    """Return the registry's version by pushed version; those that others registered are none of ours."""
    entries: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name='{name}'", max_results=1000, page_token=token or None)
        entries += page
        token = page.token or None
    pushed = {entry.tags.get(PUSHED_VERSION_TAG, ""): str(entry.version) for entry in entries}
    return {int(version): registered for version, registered in pushed.items() if version.isdigit()}


def main() -> int:
    """Read a message, send it, and print what came of it; return the process's exit code."""
    # Libraries print; the answer must stay alone on standard output.
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        answer: dict[str, Any] = asdict(send(Message(**json.load(sys.stdin))))
    except Exception as error:  # noqa: BLE001 (whoever waits for this process gets one line)
        traceback.print_exc()
        answer = {"error": first_words(error, 200)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
