"""A device killed at any file operation of an update serves the model before or the new one, and updates again."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bike_pipeline.edge import bundle, channel
from bike_pipeline.edge.updates import MANIFEST, SIGNATURE, archive_of
from tests.conftest import ROOT
from tests.edge import making
from tests.edge.web import serving


def small_bundle(version: int, key: making.Key) -> bundle.Bundle:
    """Return a bundle of three files: each of them costs every point of the test."""
    files = {"golden.json": b"{}", "models/one/model.tflite": bytes([version]) * 3000, "README.md": b"# A bundle\n"}
    manifest = {
        "format": 1,
        "model": {"name": "bike_demand", "version": version},
        "forced": False,
        "minimum": {"python": "3.11"},
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    content = json.dumps(manifest).encode()
    return bundle.Bundle(archive_of({MANIFEST: content, SIGNATURE: key.signer.sign(content)}, files), manifest)


@pytest.mark.slow
def test_killed_at_any_point(tmp_path: Path) -> None:
    key = making.new_key()
    (tmp_path / "signing.pub").write_bytes(key.pem)
    for last in (1, 2):
        for version in range(1, last + 1):
            base = tmp_path / "web" / str(last)
            channel.publish(base, "stable", small_bundle(version, key), key.signer, key.trusted, making.DAYS)
    (tmp_path / "device").mkdir()
    with serving(tmp_path / "web") as web:
        call = [sys.executable, "-m", "tests.edge.crashing"]
        done = subprocess.run(
            [*call, web.url, str(tmp_path / "signing.pub"), str(tmp_path / "device")],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    points = json.loads(done.stdout.splitlines()[-1])
    assert points["1"] > 30
    assert points["2"] > 40
