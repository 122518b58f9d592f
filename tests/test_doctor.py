"""`bike-pipeline doctor`: what is needed and absent is a problem with an exit code, what is optional is not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from bike_pipeline import extras
from bike_pipeline.commands.set_up import doctor_command as command
from bike_pipeline.data import embedded_dataset
from bike_pipeline.errors import (
    ConfigurationError,
    DataError,
    InstallationError,
    MissingExtraError,
    StorageError,
)
from bike_pipeline.use_cases import doctor

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def examine(tmp_path, monkeypatch):
    """Return a function that runs the command in an empty folder: its error, and its checks by name."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        result = CliRunner().invoke(command, ["--json", *arguments])
        report = json.loads(result.stdout)
        assert report["ok"] is (result.exception is None)
        return result.exception, {check["name"]: check for check in report["checks"]}

    return call


def test_a_sound_installation_has_no_problem_and_says_what_is_there(examine, tmp_path):
    error, checks = examine()
    assert error is None
    for name in ("tfx", "tensorflow", "ml-metadata", "apache-beam", "tensorflow-serving-api"):
        assert checks[name] == {
            "group": "packages",
            "name": name,
            "state": "ok",
            "found": importlib.metadata.version(name),
            "fix": "",
        }
    assert checks["workspace"]["found"].startswith(f"{tmp_path}/workspace, writable")
    assert list(tmp_path.iterdir()) == []


def test_the_table_names_every_check(examine):
    _, checks = examine()
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    for name in checks:
        assert name in result.stdout
    assert "PROBLEM" not in result.stdout


def test_an_absent_extra_is_no_problem_unless_required(examine, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "exports", ("json", "no_such_module"))
    error, checks = examine()
    assert error is None
    assert checks["exports"]["state"] == "absent"
    assert checks["exports"]["found"] == "missing: no_such_module"
    assert "make setup EXTRAS=exports" in checks["exports"]["fix"]
    error, checks = examine("--require", "exports")
    assert isinstance(error, MissingExtraError)
    assert checks["exports"]["state"] == "problem"


def test_a_required_extra_that_is_there_passes(examine, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "exports", ("json",))
    error, checks = examine("--require", "exports")
    assert error is None
    assert checks["exports"]["state"] == "ok"


def test_an_extra_that_does_not_exist_is_a_wrong_command_line():
    result = CliRunner().invoke(command, ["--require", "caffe2"])
    assert result.exit_code == 2
    assert "'caffe2' is not one of" in result.output


def test_a_missing_package_is_a_problem(examine, monkeypatch):
    genuine = importlib.metadata.version

    def version(name):
        if name == "tfx":
            raise importlib.metadata.PackageNotFoundError(name)
        return genuine(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    error, checks = examine()
    assert isinstance(error, InstallationError)
    assert error.exit_code == 14
    assert checks["tfx"]["found"] == "tfx is not installed"
    assert checks["tfx"]["fix"] == "run `make setup`"


def test_a_package_of_another_version_is_a_problem(examine, monkeypatch):
    genuine = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.16.0" if name == "tfx" else genuine(name))
    error, checks = examine()
    assert isinstance(error, InstallationError)
    assert "tfx 1.16.0 is installed" in checks["tfx"]["found"]


@pytest.mark.parametrize("found", [(2, 36), None])
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_c_library_that_is_too_old_is_a_problem(examine, monkeypatch, found):
    monkeypatch.setattr(doctor, "_glibc", lambda: found)
    error, checks = examine()
    assert isinstance(error, InstallationError)
    assert checks["C library"]["state"] == "problem"


def test_an_unsupported_python_is_a_problem(examine, monkeypatch):
    monkeypatch.setattr(doctor, "SUPPORTED_PYTHON", ((3, 1), (3, 2)))
    error, checks = examine()
    assert isinstance(error, InstallationError)
    assert "3.1 to 3.2 are" in checks["Python"]["found"]


def test_changed_embedded_data_is_a_problem(examine, monkeypatch, tmp_path):
    changed = tmp_path / "hour.csv"
    changed.write_bytes(embedded_dataset.EMBEDDED_FILE.read_bytes().replace(b"2011-01-01", b"2011-01-02", 1))
    genuine = embedded_dataset.embedded_bytes
    monkeypatch.setattr(embedded_dataset, "embedded_bytes", lambda: genuine(changed))
    error, checks = examine()
    assert isinstance(error, DataError)
    assert str(changed) in checks["embedded data"]["found"]


def test_an_invalid_configuration_is_a_problem(examine, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("training: {epoch: 3}\n", encoding="utf-8")
    error, checks = examine("--config", str(overlay))
    assert isinstance(error, ConfigurationError)
    assert "unknown setting 'training.epoch'" in checks["configuration"]["found"]
    assert "workspace" not in checks
    error, _ = examine("--set", "training.epochs=-1")
    assert isinstance(error, ConfigurationError)


def test_a_workspace_that_cannot_be_written_is_a_problem(examine, tmp_path):
    (tmp_path / "file").touch()
    error, checks = examine("--set", f"workspace={tmp_path}/file/below")
    assert isinstance(error, StorageError)
    assert "cannot write there" in checks["workspace"]["found"]
    assert "--set workspace=FOLDER" in checks["workspace"]["fix"]


def test_a_full_disk_is_a_problem(examine, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**8, 10**8))
    error, checks = examine()
    assert isinstance(error, StorageError)
    assert "only 0.10 GB are free" in checks["workspace"]["found"]


def test_programs_of_optional_parts_may_be_absent_or_broken(examine, monkeypatch, tmp_path):
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "java").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (folder / "git").write_text("#!/bin/sh\necho 'git version 9.9'\n", encoding="utf-8")
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    error, checks = examine()
    assert error is None
    assert (checks["git"]["state"], checks["git"]["found"]) == ("ok", "git version 9.9")
    assert checks["Java"]["state"] == "absent"
    assert "does not work (exit code 1)" in checks["Java"]["found"]
    assert checks["Go"]["found"] == "not on the PATH"


def test_the_job_server_of_the_engine_in_use_must_be_there(examine, tmp_path):
    error, checks = examine("--set", f"beam.job_server.folder={tmp_path}")
    assert error is None
    assert checks["Flink job server"]["state"] == checks["Spark job server"]["state"] == "absent"
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n", encoding="utf-8")
    java.chmod(0o755)
    jar = tmp_path / "own.jar"
    chosen = ("--set", "beam.engine=flink", "--set", f"beam.job_server.java={java}")
    error, checks = examine(*chosen, "--set", f"beam.flink.job_server_jar={jar}")
    assert isinstance(error, MissingExtraError)
    assert checks["Flink job server"]["found"].startswith(f"{jar}: engine flink needs Beam's job server")
    assert "make flink" in checks["Flink job server"]["fix"]
    jar.touch()
    error, checks = examine(*chosen, "--set", f"beam.flink.job_server_jar={jar}")
    assert error is None
    assert (checks["Flink job server"]["state"], checks["Flink job server"]["found"]) == ("ok", str(jar))
    error, checks = examine("--set", "beam.engine=spark", "--set", "beam.job_server.endpoint=localhost:8099")
    assert error is None
    assert checks["Spark job server"]["found"] == "expected at localhost:8099"


def test_several_problems_are_all_listed_and_the_first_decides(examine, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "exports", ("no_such_module",))
    error, checks = examine("--require", "exports", "--set", "training.epochs=0")
    assert isinstance(error, MissingExtraError)
    assert [name for name, check in checks.items() if check["state"] == "problem"] == ["exports", "configuration"]


def test_nothing_heavy_is_imported(tmp_path):
    code = """
import sys
from bike_pipeline.commands.set_up import doctor_command as command
command(["--json"], standalone_mode=False)
heavy = {"apache_beam", "keras", "numpy", "pandas", "pyarrow", "tensorflow", "tfx"}
print(" ".join(sorted(heavy & set(sys.modules))), file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == []
