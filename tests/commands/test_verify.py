"""`verify`: a pushed folder against its signature, from the command line."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.lineage import verify_command
from bike_pipeline.errors import ConfigurationError, MetadataError, ModelError, VerificationError
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature, signing
from tests.model_registry.test_model_signature import EVIDENCE
from tests.recording import Recorder

OLDER, SIGNED = 1_790_000_002, 1_790_000_003


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is configured, whatever the tests' surroundings say."""
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(signing.KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setattr(signing, "_default", {})


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace whose newest version is signed, and whose older one is not."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    signing.use_key_file(tmp_path / "w" / "keys" / "signing.pem", make=True)
    signer = signing.signer()
    base = tmp_path / "w" / "serving" / "bike_demand"
    ModelRegistry(base).add(tmp_path / "model", OLDER, {"model_id": 1})
    ModelRegistry(base).add(
        tmp_path / "model",
        SIGNED,
        {"model_id": 5},
        lambda folder: model_signature.write(folder, EVIDENCE, signer, SIGNED),
    )
    return tmp_path / "w"


def call(workspace: Path, *arguments: str) -> str:
    done = CliRunner().invoke(verify_command, ["--set", f"workspace={workspace}", *arguments])
    if done.exception:
        raise done.exception
    return done.output


def test_the_newest_version_a_version_and_a_folder_are_verified(workspace: Path) -> None:
    folder = workspace / "serving" / "bike_demand" / str(SIGNED)
    for arguments in ((), (str(SIGNED),), (str(folder),)):
        shown = call(workspace, *arguments)
        assert shown.startswith(str(folder))
        assert "✘" not in shown
    result = json.loads(call(workspace, "--json"))
    assert result["passed"] is True
    assert {check["name"] for check in result["checks"]} >= {"signature", "files", "evidence: gates"}


def test_a_models_number_is_looked_up(workspace: Path) -> None:
    recorder = Recorder(workspace / "metadata.sqlite")
    model = recorder.model("a")
    recorder.push("a", model, SIGNED, str(workspace / "serving" / "bike_demand" / str(SIGNED)))
    assert "✘" not in call(workspace, str(model.id))
    unpushed = recorder.model("b")
    with pytest.raises(ModelError, match="never pushed"):
        call(workspace, str(unpushed.id))
    with pytest.raises(ModelError, match="no model '99'"):
        call(workspace, "99")


def test_what_was_changed_or_never_signed_fails_with_one_line(workspace: Path) -> None:
    with pytest.raises(VerificationError, match="before models were signed"):
        call(workspace, str(OLDER))
    (workspace / "serving" / "bike_demand" / str(SIGNED) / "saved_model.pb").write_bytes(b"grapH")
    with pytest.raises(VerificationError) as error:
        call(workspace)
    assert "saved_model.pb was changed" in str(error.value)
    assert "\n" not in str(error.value)


def test_whose_signature_is_believed(workspace: Path, tmp_path: Path) -> None:
    public = workspace / "keys" / "signing.pub"
    kept = tmp_path / "release.pub"
    kept.write_bytes(public.read_bytes())
    assert "✘" not in call(workspace, "--public-key", str(kept))
    assert "✘" not in call(tmp_path / "elsewhere", "--set", f"signing.trusted_keys=[{kept}]", str(
        workspace / "serving" / "bike_demand" / str(SIGNED)
    ))  # fmt: skip
    for path in (public, public.with_suffix(".pem"), public.with_name("model-signing.pub")):
        path.unlink()
    with pytest.raises(VerificationError, match="no public key"):
        call(workspace)
    assert not public.with_suffix(".pem").exists()
    with pytest.raises(ConfigurationError, match="absent"):
        call(workspace, "--public-key", str(tmp_path / "absent.pub"))


def test_without_a_model_or_a_store_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model is served"):
        call(tmp_path)
    with pytest.raises(MetadataError, match="no metadata store"):
        call(tmp_path, "7")
    assert not list(tmp_path.iterdir())


def test_it_needs_no_tensorflow(workspace: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom bike_pipeline.commands.lineage import verify_command\n"
        "done = CliRunner().invoke(verify_command, ['--set', 'workspace=' + sys.argv[1]])\n"
        "assert done.exit_code == 0, done\n"
        "print(*sorted({'tensorflow', 'tfx', 'apache_beam', 'pandas', 'keras'} & set(sys.modules)))"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", code, str(workspace)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_a_change_of_keys_is_told_from_damage(workspace: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.pub"
    (workspace / "keys" / "signing.pub").rename(before)
    (workspace / "keys" / "signing.pem").unlink()
    signing.signer()
    with pytest.raises(
        VerificationError, match=r"signed with another key.*Nothing else is wrong.*trusted_keys"
    ) as error:
        call(workspace)
    assert "damage" not in str(error.value)
    assert "✘" not in call(workspace, "--public-key", str(before))
    assert "✘" not in call(workspace, "--set", f"signing.trusted_keys=[{before}]")
    folder = workspace / "serving" / "bike_demand" / str(SIGNED)
    (folder / "saved_model.pb").write_bytes(b"grapH")
    with pytest.raises(VerificationError, match=r"and 1 more.*pushes a damaged model anew"):
        call(workspace)
    bundle = json.loads((folder / layout.SIGNATURE_FILE).read_bytes())
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    changed = bytearray(base64.b64decode(signature["sig"]))
    changed[-1] ^= 1
    signature["sig"] = base64.b64encode(changed).decode()
    (folder / layout.SIGNATURE_FILE).write_text(json.dumps(bundle), encoding="utf-8")
    with pytest.raises(VerificationError, match="signature: damaged: the manifest or its signature was changed"):
        call(workspace, "--public-key", str(before))
