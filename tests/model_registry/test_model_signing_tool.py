"""A pushed version under the eyes of OpenSSF Model Signing's own program, offline, with the public key only.

The tests are skipped, and say so, if the program is not there; if `MODEL_SIGNING` names its environment, it must be.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bike_pipeline.model_registry import ModelRegistry, layout, model_signature, signing, verification
from tests.conftest import ROOT
from tests.model_registry.test_model_signature import EVIDENCE

PLACE = Path(os.environ.get("MODEL_SIGNING", ROOT / ".model-signing"))
VERSION = 1_795_430_256
# The interpreter's own settings for this project's libraries are nothing to another environment.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Call the program."""
    path = PLACE.absolute() / "bin" / "model_signing"
    if not path.exists() and "MODEL_SIGNING" not in os.environ:
        pytest.skip("model_signing is not there: run `make test-signing`")
    command = [str(path), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)


def verified(folder: Path, public_key: Path) -> subprocess.CompletedProcess[str]:
    return tool("verify", "key", folder, "--signature", folder / "model.sig", "--public_key", public_key)


@pytest.fixture(params=["derived", "of the user"])
def key(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The public key of the process's key: derived from a local ed25519 one, or on P-384 and configured."""
    for name in (signing.KEY_VARIABLE, signing.KEY_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(signing, "_default", {})
    path = tmp_path / "keys" / "signing.pem"
    if request.param == "derived":
        signing.use_key_file(path, make=True)
        assert signing.signer() is not None
        return path.parent / "model-signing.pub"
    path.parent.mkdir()
    private = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signing.use_key_file(path, make=False)
    path.with_suffix(".pub").write_bytes(signing._pem(private.public_key()))
    return path.with_suffix(".pub")


@pytest.fixture
def folder(key: Path, tmp_path: Path) -> Path:
    """A pushed version."""
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    (model / "assets").mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    (model / "variables" / "data").write_bytes(b"weights")
    registry = ModelRegistry(tmp_path / "serving" / "bike_demand")
    signer = signing.signer()

    def complete(aside: Path) -> None:
        model_signature.write(aside, EVIDENCE, signer, VERSION)

    registry.add(model, VERSION, {"model_id": 7}, complete)
    return registry.folder(VERSION)


def test_the_tool_verifies_a_pushed_version_with_the_public_key_alone(folder: Path, key: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "model"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    done = verified(elsewhere, key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((elsewhere / layout.EVIDENCE_FILE).read_text())["version"] == VERSION


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: (f / "saved_model.pb").write_bytes(b"grapH"), "saved_model.pb"),
        (lambda f: (f / "variables" / "more").write_bytes(b""), "variables/more"),
        (lambda f: (f / "variables" / "data").unlink(), "variables/data"),
        (lambda f: (f / "push.json").write_text("{}"), "push.json"),
        # The number of another version.
        (
            lambda f: (f / "evidence.json").write_text((f / "evidence.json").read_text().replace(str(VERSION), "7")),
            "evidence.json",
        ),
    ],
)
def test_the_tool_and_this_product_tell_the_same_file(
    folder: Path, key: Path, change: Callable[[Path], Any], named: str
) -> None:
    change(folder)
    done = verified(folder, key)
    assert done.returncode != 0
    assert named in done.stdout + done.stderr
    assert named in verification.verify(folder).problem


def test_the_tool_refuses_another_key(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(signing._pem(ec.generate_private_key(ec.SECP256R1()).public_key()))
    assert verified(folder, other).returncode != 0
