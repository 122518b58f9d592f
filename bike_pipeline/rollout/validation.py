"""Tries a pushed version before it is promoted: in a process of its own, over the wire, as a client would use it.

The embedded server loads the version, replays its warm-up requests and answers golden rows through the served signature
over REST. The answers must be the model's own, in time, and the process must keep within its memory.

That process is `python -m bike_pipeline.rollout.validation PARENT_PID KEY=VALUE …`, with settings.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import logging
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import ServerError, first_words
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.serving.server.access import KEY_VARIABLE
from bike_pipeline.settings.serving import ValidationSettings

if TYPE_CHECKING:
    from bike_pipeline.serving.server.app import Server

LOG_FILE, REQUEST_FILE = "server.log", "first_failing_request.json"
# Beside the versions; TF Serving passes over what is no number.
FAILED_TRIALS_FOLDER = ".validation"
GOLDEN_FILE = "assets.extra/exports/golden.json"
_MODEL = "candidate"
_PERCENTILE = 0.95
_STOP_SECONDS = 20
# From linux/prctl.h: the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1

Rows = list[dict[str, int | float]]


@dataclass(frozen=True)
class TrialReport:
    """What the trial of a version measured.

    Attributes:
        rows: golden rows that were answered, one a request.
        load_seconds: from the start of the process until the version was ready.
        latency_ms: 95th percentile of a request.
        memory_mb: most that the process had in memory (peak resident set).
        difference: largest |answer - model's own answer| / max(rentals, 1).
    """

    rows: int
    load_seconds: float
    latency_ms: float
    memory_mb: float
    difference: float

    def in_words(self) -> str:
        """Return it as a line for people."""
        return (
            f"{self.rows} golden rows answered as the model does, 95 % within {self.latency_ms:.1f} ms, "
            f"{self.memory_mb:,.0f} MB, loaded in {self.load_seconds:.1f} s"
        )


class _TrialError(Exception):
    """Why a version does not pass; `record` holds the first failing request, if it came to one."""

    def __init__(self, what: str, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(what)
        self.record = record


def failed_trial_folder(base_path: str | Path, version: int) -> Path:
    """Return where the log and the first failing request of a version that did not pass are kept."""
    if local := ModelRegistry(base_path).local:
        return local / FAILED_TRIALS_FOLDER / str(version)
    return Path(tempfile.gettempdir()) / "bike-validation" / Path(str(base_path)).name / str(version)


def validate(base_path: str | Path, version: int, settings: ValidationSettings) -> TrialReport:
    """Try a version of a model; what an earlier trial kept is replaced.

    Raises:
        ServerError: it does not load or does not pass; the log and the first failing request are kept, and named.
    """
    folder = ModelRegistry(base_path).folder(version)
    kept = failed_trial_folder(base_path, version)
    with tempfile.TemporaryDirectory(prefix="bike-validation-") as scratch:
        log = Path(scratch) / LOG_FILE
        try:
            rows, expected = _golden(folder, settings.rows)
            with _trial_server(folder, Path(scratch), log, version, settings) as (process, port, load_seconds):
                answers = _ask(port, rows, expected, version, settings)
                memory = _peak_memory(process.pid)
            times = sorted(answer.milliseconds for answer in answers)
            latency = times[math.ceil(len(times) * _PERCENTILE) - 1]
            difference = max(answer.difference for answer in answers)
            report = TrialReport(len(rows), load_seconds, latency, memory, difference)
            if latency > (limit := settings.latency_limit_ms):
                slow = next(answer for answer in answers if answer.milliseconds > limit)
                problem = f"95 % of the requests took up to {latency:.1f} ms, the limit is {limit:g}"
                raise _TrialError(problem, asdict(slow))
            if memory > (most := settings.memory_limit_mb):
                raise _TrialError(f"it took {memory:,.0f} MB of memory, at most {most:,.0f} may be")
        except _TrialError as error:
            names = _keep(kept, log, error, version)
            raise ServerError(
                f"version {version} does not pass: {error}",
                where=str(kept),
                fix=f"see {' and '.join(names)} there; what was promoted before still is",
            ) from None
    with contextlib.suppress(OSError):
        shutil.rmtree(kept)
    return report


def _golden(folder: Path, count: int) -> tuple[Rows, list[float]]:
    """Return golden rows and the model's own answers: those on record, or the SavedModel's in this process.

    Rows with a number that is not finite come beside the `count` others, last, with NaN for their answer.
    """
    from bike_pipeline.modeling.golden import golden_rows, read_golden

    try:
        columns, answers = read_golden(folder / GOLDEN_FILE)
    except FileNotFoundError:
        columns = {name: _spread(values.tolist(), count) for name, values in golden_rows(1000).items()}
        answers = _own_answers(folder, columns)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _TrialError(f"its golden rows cannot be read ({type(error).__name__}: {error})") from None
    names = [feature.name for feature in features.MODEL_INPUTS if feature.name in columns]
    broken = [row for row, answer in enumerate(answers) if math.isnan(answer)]
    chosen = [*_spread(range(len(answers) - len(broken)), count), *broken]
    return [{name: columns[name][i] for name in names} for i in chosen], [float(answers[i]) for i in chosen]


def _spread(values: Any, count: int) -> list[Any]:
    """Return `count` of the values, evenly spread over all of them."""
    step = max(len(values) / count, 1.0)
    return [values[int(i * step)] for i in range(min(count, len(values)))]


def _own_answers(folder: Path, columns: Mapping[str, Any]) -> list[float]:
    from bike_pipeline.modeling.loaded_model import LoadedModel

    try:
        answers = [float(value) for value in LoadedModel(folder).predict(columns)]
    except Exception as error:  # whatever TensorFlow has to say about a broken model
        raise _TrialError(f"the SavedModel does not answer ({first_words(error)})") from error
    if not all(map(math.isfinite, answers)):
        raise _TrialError("the SavedModel answers a sound row with what is no number")
    return answers


@dataclass(frozen=True)
class _Answer:
    request: Mapping[str, Any]
    answer: float
    expected: float
    milliseconds: float

    @property
    def difference(self) -> float:
        if math.isnan(self.expected) or math.isnan(self.answer):
            return 0.0 if math.isnan(self.expected) and math.isnan(self.answer) else math.inf
        return abs(self.answer - self.expected) / max(abs(self.expected), 1.0)

    def check(self, settings: ValidationSettings) -> None:
        """Raise a _TrialError if it is not the model's own answer."""
        if not self.difference <= settings.max_relative_difference:
            raise _TrialError(
                f"it answers {self.answer:g} where the model itself answers {self.expected:g}", asdict(self)
            )


@contextlib.contextmanager
def _trial_server(
    folder: Path, scratch: Path, log: Path, version: int, settings: ValidationSettings
) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """Start the process; yield it with its REST port and the seconds until the version was ready."""
    # A folder of its own that holds this version alone, so that nothing else is loaded.
    base = scratch / "serving" / _MODEL
    base.mkdir(parents=True)
    (base / str(version)).symlink_to(folder.absolute(), target_is_directory=True)
    assignments = (
        f"workspace={scratch}",
        f"serving.base_path={scratch / 'serving'}",
        f"serving.model_name={_MODEL}",
        "serving.server.version_policy=latest",
        "serving.server.rest_port=0",
        "serving.server.grpc_port=0",
        f"serving.server.backends={json.dumps(list(settings.backends))}",
        # The signature is checked before, where the keys are.
        "signing.require_signature=false",
    )
    command = [sys.executable, "-m", "bike_pipeline.rollout.validation", str(os.getpid()), *assignments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR"}
    # On this machine alone, and asked by us: a key of the servers is none of its.
    environment.pop(KEY_VARIABLE, None)
    begin = time.monotonic()
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process,
    ):
        try:
            ready = _ready_message(process, begin + settings.start_seconds)
            seconds = time.monotonic() - begin
            if version not in ready["versions"]:
                raise _TrialError(f"it cannot be served ({'; '.join(ready['problems']) or 'no reason is known'})")
            yield process, int(ready["rest_port"]), seconds
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready_message(process: subprocess.Popen[bytes], deadline: float) -> Any:
    """Return what the trial server prints when it is ready."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise _TrialError("it was not ready in time")
        read = os.read(process.stdout.fileno(), 65_536)
        if not read:
            raise _TrialError(f"its process ended with status {process.wait()} before it was ready")
        line += read
    return json.loads(line)


def _ask(port: int, rows: Rows, expected: list[float], version: int, settings: ValidationSettings) -> list[_Answer]:
    """Ask one row a request, then all of them at once, which counts for the answers and not for the latency."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=settings.request_seconds)
    # Golden rows of an earlier release have no optional inputs, and their model no signature that takes some.
    signature = features.SERVING_ALL_INPUTS if features.OPTIONAL_NAMES[0] in rows[0] else features.SERVING_DEFAULT
    with contextlib.closing(connection):
        answers = []
        for row, own in zip(rows, expected, strict=True):
            request: dict[str, Any] = {"signature_name": signature, "instances": [row]}
            begin = time.perf_counter()
            (value,) = _predictions(connection, request, version)
            answers.append(_Answer(request, value, own, (time.perf_counter() - begin) * 1000))
            answers[-1].check(settings)
        together: dict[str, Any] = {"signature_name": signature, "instances": rows}
        for row, value, own in zip(rows, _predictions(connection, together, version), expected, strict=True):
            request = {**together, "instances": [row], "in_a_batch_of": len(rows)}
            _Answer(request, value, own, 0.0).check(settings)
        return answers


def _predictions(connection: http.client.HTTPConnection, request: Mapping[str, Any], version: int) -> list[float]:
    """Return one prediction for each row of the request."""
    try:
        path = f"/v1/models/{_MODEL}/versions/{version}:predict"
        connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = f"a request was not answered ({type(error).__name__}: {error})"
        raise _TrialError(reason, {"request": request}) from None
    record = {"request": request, "response": content.decode(errors="replace")[:1000]}
    if response.status != http.client.OK:
        raise _TrialError(f"a request was refused with status {response.status}", record)
    try:
        predictions = [float(value) for value in json.loads(content)["predictions"]]
    except (ValueError, KeyError, TypeError):
        predictions = []
    if len(predictions) != len(request["instances"]):
        raise _TrialError("an answer holds no predictions of the rows", record)
    return predictions


def _peak_memory(pid: int) -> float:
    """Return a process's peak resident set in megabytes, as the kernel counts it."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise _TrialError("its process ended while it was asked")


def _keep(kept: Path, log: Path, error: _TrialError, version: int) -> list[str]:
    """Keep what tells why a version did not pass; return the names of the files."""
    names = []
    try:
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        if log.exists():
            shutil.copyfile(log, kept / LOG_FILE)
            names.append(LOG_FILE)
        if error.record is not None:
            record = {"version": version, "problem": str(error), **error.record}
            (kept / REQUEST_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
            names.append(REQUEST_FILE)
    except OSError as failure:
        return [f"nothing, since it could not be written ({failure.strerror or failure}),"]
    return names or ["nothing: the model itself could not be asked,"]


def main() -> None:
    """Serve one version until the parent stops this process or ends.

    The REST port and the versions that serve are printed as one line of JSON.
    """
    parent, *assignments = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        # The parent died before the line above.
        return
    from bike_pipeline.serving.server import app
    from bike_pipeline.settings import load_settings

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = load_settings(None, tuple(assignments))

    def print_ready(server: Server) -> None:
        model = server.versions.models[_MODEL]
        ready = {
            "rest_port": server.rest_port,
            "versions": [version.number for version in model.available()],
            "problems": [str(version.error) for version in model.failed],
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()

    app.run(settings, print_ready)


if __name__ == "__main__":
    main()
