"""`push edge` from the command line, to a device that follows the channel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bike_pipeline.model_registry import ModelRegistry
from tests.edge import making
from tests.edge.web import serving


@pytest.fixture(scope="module")
def key() -> making.Key:
    """The key that signs the model and the bundle."""
    return making.new_key()


@pytest.fixture(scope="module")
def workspace(key: making.Key, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a blessed version 5 and a version 6 that the edge gate refused."""
    folder = tmp_path_factory.mktemp("push")
    making.export_small_model(folder / "small")
    base = folder / "workspace" / "serving" / "bike_demand"
    making.push(folder / "small", base, 5, key)
    making.push(folder / "small", base, 6, key, edge_gate={**making.GATE, "blessed": False, "reason": "mae too high"})
    return folder / "workspace"


def push(workspace: Path, key: making.Key, *arguments: str) -> Any:
    private = key.signer._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    call = [sys.executable, "-m", "bike_pipeline.cli", "push", "edge", "--set", f"workspace={workspace}", *arguments]
    environment = {**os.environ, "BIKE_PIPELINE_SIGNING_KEY": private}
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=300, env=environment)


def test_from_the_command_line_to_a_device(workspace: Path, key: making.Key, tmp_path: Path) -> None:
    done = push(workspace, key, "--model", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert (told["changed"], told["sequence"], told["forced"], told["model"]["version"]) == (True, 1, False, 5)
    assert json.loads(push(workspace, key, "--model", "5", "--json").stdout)["changed"] is False
    (tmp_path / "signing.pub").write_bytes(key.pem)
    with serving(workspace / "edge") as web:
        call = [
            sys.executable,
            "-m",
            "bike_pipeline.edge.device",
            "update",
            "--channel-url",
            f"{web.url}/stable",
        ]
        options = ["--key", str(tmp_path / "signing.pub"), "--state", str(tmp_path / "state")]
        taken = subprocess.run([*call, *options], capture_output=True, text=True, check=True)
    assert json.loads(taken.stdout)["model"]["version"] == 5


def test_the_edge_gate_stops_the_newest_and_force_marks_it(workspace: Path, key: making.Key, tmp_path: Path) -> None:
    refused = push(workspace, key, "--output", str(tmp_path))
    assert (refused.returncode, refused.stdout) == (19, "")
    assert "the edge gate did not bless this model: mae too high. Mend what it names" in refused.stderr
    assert not list(tmp_path.iterdir())
    forced = push(workspace, key, "--output", str(tmp_path), "--channel", "beta", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "FORCED: mae too high" in forced.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beta"]


def test_what_goes_to_devices_is_what_serves(workspace: Path, key: making.Key, tmp_path: Path) -> None:
    """Version 6 is pushed, but not promoted."""
    base = tmp_path / "serving" / "bike_demand"
    shutil.copytree(workspace / "serving" / "bike_demand" / "5", base / "5")
    ModelRegistry(base).begin()
    shutil.copytree(workspace / "serving" / "bike_demand" / "6", base / "6")
    done = push(tmp_path, key, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["version"] == 5


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "9"], 11, "version 9 is not there. Choose one of 5, 6."),
        (["--set", "serving.model_name=other"], 11, "no model is served"),
        (["--channel", "nightly"], 2, "'nightly' is not one of 'stable', 'beta'"),
        (["--model", "5", "--output", "/dev/null"], 8, "/dev/null/stable: cannot write it: not a directory"),
        (["--model", "5", "--output", "/proc/none"], 8, "/proc/none/stable: cannot write it"),
    ],
    ids=["version", "model", "channel", "file", "folder"],
)
def test_bad_arguments_are_one_line(
    workspace: Path, key: making.Key, arguments: list[str], code: int, told: str
) -> None:
    done = push(workspace, key, *arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
