"""A candidate is tried in a process of its own, over the wire; what it fails at is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bike_pipeline import features
from bike_pipeline.errors import ExitCode, ServerError
from bike_pipeline.exporting.acceptance.report import write_golden
from bike_pipeline.model_registry import ModelRegistry, layout
from bike_pipeline.modeling.golden import broken_rows, golden_rows
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.rollout import validation
from bike_pipeline.settings.serving import ValidationSettings
from tests.serving.running import with_export

ROOT = Path(__file__).resolve().parents[2]
VERSION = 5


@pytest.fixture(scope="module")
def model(exported, tmp_path_factory):
    """A small real model with an export, and its own answers to golden rows beside it."""
    folder = with_export(exported.path, tmp_path_factory.mktemp("candidate") / "model")
    columns = golden_rows(200)
    write_golden((folder / validation.GOLDEN_FILE).parent, columns, LoadedModel(folder).predict(columns))
    return folder


@pytest.fixture
def base(model, tmp_path):
    """A base path with that model."""
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).add(model, VERSION, {"fingerprint": layout.fingerprint(model)})
    return base


def settings_of(**changes):
    # Generous: other tests may work on the same cores.
    return ValidationSettings(**{"rows": 8, "latency_limit_ms": 5000.0, **changes})


def refused(base, **changes):
    with pytest.raises(ServerError) as error:
        validation.validate(base, VERSION, settings_of(**changes))
    assert error.value.exit_code == ExitCode.SERVER
    assert error.value.where == str(validation.failed_trial_folder(base, VERSION))
    return str(error.value), Path(error.value.where)


def test_a_sound_version_passes_and_is_measured(base):
    left = validation.failed_trial_folder(base, VERSION)
    left.mkdir(parents=True)
    report = validation.validate(base, VERSION, settings_of(rows=16))
    # Those of a broken sensor are asked besides.
    assert report.rows == 16 + len(broken_rows()["temp"])
    assert report.difference <= 1e-5
    assert 0 < report.latency_ms <= 5000
    assert 20 < report.memory_mb < 2048
    # Nothing stays of it, nor of what failed before.
    assert not left.exists()
    assert ModelRegistry(base).versions() == [VERSION]


def test_what_tf_serving_loads_is_tried_where_that_is_asked(base):
    report = validation.validate(base, VERSION, settings_of(backends=("saved_model",)))
    assert report.difference <= 1e-5


def test_a_version_that_is_too_slow_is_refused_with_its_request(base):
    said, kept = refused(base, latency_limit_ms=0.001)
    assert "the limit is 0.001" in said
    record = json.loads((kept / validation.REQUEST_FILE).read_text(encoding="utf-8"))
    assert record["version"] == VERSION
    assert record["milliseconds"] > 0.001
    assert set(record["request"]["instances"][0]) == {feature.name for feature in features.MODEL_INPUTS}
    assert "is available" in (kept / validation.LOG_FILE).read_text(encoding="utf-8")


def test_a_version_that_takes_too_much_memory_is_refused(base):
    said, kept = refused(base, memory_limit_mb=1.0)
    assert "MB of memory" in said
    assert [path.name for path in kept.iterdir()] == [validation.LOG_FILE]


def test_a_version_that_answers_otherwise_is_refused_with_the_first_request(model, tmp_path):
    other, base = tmp_path / "other", tmp_path / "serving" / "bike_demand"
    shutil.copytree(model, other)
    golden = json.loads((other / validation.GOLDEN_FILE).read_text(encoding="utf-8"))
    # Less than what the server itself would refuse to load.
    golden[features.LABEL] = [value * 1.0005 + 0.0002 for value in golden[features.LABEL]]
    (other / validation.GOLDEN_FILE).write_text(json.dumps(golden), encoding="utf-8")
    ModelRegistry(base).add(other, VERSION, {"fingerprint": layout.fingerprint(other)})
    said, kept = refused(base)
    assert "where the model itself answers" in said
    record = json.loads((kept / validation.REQUEST_FILE).read_text(encoding="utf-8"))
    assert record["answer"] != record["expected"]


def test_a_version_that_answers_a_broken_sensor_is_refused_with_the_first_request(model, tmp_path):
    other, base = tmp_path / "other", tmp_path / "serving" / "bike_demand"
    shutil.copytree(model, other)
    golden = json.loads((other / validation.GOLDEN_FILE).read_text(encoding="utf-8"))
    golden["not_finite"]["columns"]["temp"] = [0.5] * len(golden["not_finite"]["columns"]["temp"])
    (other / validation.GOLDEN_FILE).write_text(json.dumps(golden), encoding="utf-8")
    ModelRegistry(base).add(other, VERSION, {"fingerprint": layout.fingerprint(other)})
    said, _ = refused(base)
    assert "answers the golden rows otherwise than when it was pushed" in said


def test_a_version_that_does_not_load_is_refused_with_the_log(base):
    path = base / str(VERSION) / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:100])
    said, kept = refused(base)
    assert "cannot be served" in said
    assert (kept / validation.LOG_FILE).stat().st_size > 0


def test_a_version_that_is_not_ready_in_time_is_refused(base):
    said, _ = refused(base, start_seconds=0.01)
    assert "not ready in time" in said


def test_a_process_that_dies_is_told(base, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    said, _ = refused(base)
    assert "ended with status 1" in said


def test_unreadable_golden_rows_refuse_the_version(base):
    (base / str(VERSION) / validation.GOLDEN_FILE).write_text("{", encoding="utf-8")
    said, _ = refused(base)
    assert "golden rows cannot be read" in said


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_process_ends_with_whoever_started_it(base, tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from bike_pipeline.rollout import validation\n"
        "from bike_pipeline.settings.serving import ValidationSettings\n"
        "def ask(port, *_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "ready = validation._ready_message\n"
        "def noted(process, *rest):\n"
        "    found = ready(process, *rest)\n    Path(sys.argv[2]).write_text(str(process.pid))\n    return found\n"
        "validation._ready_message, validation._ask = noted, ask\n"
        f"validation.validate(sys.argv[1], {VERSION}, ValidationSettings(rows=1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(base), str(tmp_path / "pid")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    for _ in range(300):
        if not _alive(pid):
            return
        time.sleep(0.1)
    raise AssertionError("the trial's process outlived its parent")
