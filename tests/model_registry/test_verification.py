"""Whether a version may be used: the files that answer, the version's number, the signature."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.lineage import verify_command
from bike_pipeline.commands.release import promote_command, rollback_command
from bike_pipeline.edge import bundle
from bike_pipeline.errors import ConfigurationError, EdgeError, ModelError, VerificationError
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature, signing, verification
from bike_pipeline.serving.server import served_version
from bike_pipeline.serving.statuses import StatusError
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.serving import ServerSettings

OLDER, NEWER = 1_790_000_001, 1_790_000_002
ANSWERS = Path("assets.extra", "exports", "tflite_float32", "model.tflite")


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process believes the key of the workspace, and no other one."""
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(signing.KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setattr(signing, "_default", {})
    signing.use(load_settings(assignments=(f"workspace={tmp_path}",)))


def push(base: Path, version: int, signer: signing.Signer | None, manifest: bool = True) -> Path:
    """Push a version whose files say which one it is, as the Pusher does."""
    model = base.parents[1] / f"model-{version}"
    (model / ANSWERS).parent.mkdir(parents=True)
    (model / "saved_model.pb").write_text(f"graph {version}", encoding="utf-8")
    (model / ANSWERS).write_text(f"answers {version}", encoding="utf-8")
    record = {
        "model_id": version,
        "fingerprint": layout.fingerprint(model),
        "exports_fingerprint": layout.exports_fingerprint(model),
    }

    def complete(folder: Path) -> None:
        if manifest:
            model_signature.write(folder, {}, signer, version)

    return Path(ModelRegistry(base).add(model, version, record, complete))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two signed versions, the newer one promoted after the older one."""
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).begin()
    for version in (OLDER, NEWER):
        push(base, version, signing.signer())
        ModelRegistry(base).set_validated(version, passed=True, reason="")
        ModelRegistry(base).promote(version)
    return base


def require(tmp_path: Path, **more: Any) -> None:
    """Let the process use nothing that is not signed."""
    named = [f"{key}={json.dumps(value)}" for key, value in more.items()]
    signing.use(load_settings(assignments=(f"workspace={tmp_path}", "signing.require_signature=true", *named)))


def as_an_earlier_release(folder: Path, *, with_version: bool) -> None:
    """Give a version the files that releases up to 0.1 wrote: a manifest, and an ed25519 signature of its own."""
    for name in (layout.EVIDENCE_FILE, layout.SIGNATURE_FILE):
        (folder / name).unlink()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest: dict[str, Any] = {
        "format": 1,
        "files": {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()},
        "folders": [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir()],
        **({"version": int(folder.name)} if with_version else {}),
    }
    content = json.dumps(manifest).encode()
    (folder / layout.OLD_MANIFEST_FILE).write_bytes(content)
    signer = signing.signer()
    assert signer is not None
    (folder / layout.OLD_SIGNATURE_FILE).write_bytes(signer.sign(content))


def refused_by_serve(folder: Path) -> str:
    """Return why the embedded server does not load a version."""
    with pytest.raises(StatusError) as error:
        served_version.load(folder, ServerSettings())
    return error.value.message


def call(command: Any, workspace: Path, *arguments: str) -> str:
    done = CliRunner().invoke(command, ["--set", f"workspace={workspace}", *arguments])
    if done.exception:
        raise done.exception
    return done.output


def test_a_version_that_was_pushed_and_signed_is_proven(base: Path, tmp_path: Path) -> None:
    assert verification.verify(base / str(NEWER)) == verification.Soundness("")
    require(tmp_path)
    assert verification.verify(base / str(NEWER)) == verification.Soundness("")


@pytest.mark.parametrize("manifest", [True, False], ids=["signed", "pushed before models were signed"])
def test_the_file_that_answers_may_not_be_another_models(base: Path, manifest: bool) -> None:
    folder = base / str(NEWER) if manifest else push(base, NEWER + 1, None, manifest=False)
    shutil.copy(base / str(OLDER) / ANSWERS, folder / ANSWERS)
    said = refused_by_serve(folder)
    assert (f"{ANSWERS} was changed" if manifest else "the exported files are not those that were pushed") in said
    with pytest.raises(ModelError, match="may not serve"):
        ModelRegistry(base).require_sound(int(folder.name))


def test_without_its_push_record_a_version_does_not_pass(base: Path) -> None:
    (base / str(NEWER) / layout.PUSH_FILE).unlink()
    assert "push.json is gone" in refused_by_serve(base / str(NEWER))
    ModelRegistry(base).rollback()
    with pytest.raises(ModelError, match=r"push\.json is gone"):
        ModelRegistry(base).rollback(NEWER)


def test_a_version_that_nothing_tells_of_is_named_as_such(base: Path, tmp_path: Path) -> None:
    folder = base / str(NEWER)
    for name in (layout.PUSH_FILE, layout.EVIDENCE_FILE, layout.SIGNATURE_FILE):
        (folder / name).unlink()
    found = verification.verify(folder)
    assert (found.problem, len(found.unproven)) == ("", 1)
    assert "nothing tells what was pushed" in found.unproven[0]
    require(tmp_path)
    assert "nothing tells what was pushed" in refused_by_serve(folder)


@pytest.mark.parametrize("old", [False, True], ids=["this release", "an earlier release"])
def test_a_manifest_that_was_taken_away_is_missed_if_what_belongs_to_it_is_left(base: Path, old: bool) -> None:
    folder = base / str(NEWER)
    if old:
        as_an_earlier_release(folder, with_version=True)
    (folder / (layout.OLD_MANIFEST_FILE if old else layout.SIGNATURE_FILE)).unlink()
    assert "was taken away" in refused_by_serve(folder)


def test_what_an_earlier_release_signed_is_proven(base: Path, tmp_path: Path) -> None:
    folder = base / str(NEWER)
    as_an_earlier_release(folder, with_version=True)
    require(tmp_path)
    assert verification.verify(folder) == verification.Soundness("")
    (folder / "saved_model.pb").write_text("another graph", encoding="utf-8")
    assert verification.verify(folder).problem == "files: saved_model.pb was changed"
    (folder / "saved_model.pb").write_text(f"graph {NEWER}", encoding="utf-8")
    manifest = folder / layout.OLD_MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes().replace(b'"format": 1', b'"format":  1'))
    assert "the manifest or its signature was changed" in refused_by_serve(folder)


def test_an_older_signed_version_does_not_pass_as_a_newer_one(base: Path, tmp_path: Path) -> None:
    shutil.rmtree(base / str(NEWER))
    shutil.copytree(base / str(OLDER), base / str(NEWER))
    said = f"it was pushed as version {OLDER}, not as version {NEWER}"
    assert said in refused_by_serve(base / str(NEWER))
    with pytest.raises(VerificationError, match=said):
        call(verify_command, tmp_path, str(NEWER))
    with pytest.raises(ModelError, match=said):
        call(promote_command, tmp_path, str(NEWER))
    ModelRegistry(base).rollback()
    with pytest.raises(ModelError, match=said):
        call(rollback_command, tmp_path, "--to", str(NEWER))
    with pytest.raises(EdgeError, match=said):
        bundle.read_exports(base / str(NEWER), signing.trusted_keys(), force=True)


def test_a_version_of_an_earlier_release_serves_unless_a_signature_must_name_it(base: Path, tmp_path: Path) -> None:
    folder = base / str(NEWER)
    as_an_earlier_release(folder, with_version=False)
    assert verification.verify(folder).unproven == (
        "version: the manifest does not bind the version: an earlier release pushed it",
    )
    with pytest.raises(VerificationError) as error:
        call(verify_command, tmp_path, str(NEWER))
    # What is told of it is the evidence, which these pushes lack; the version is only in doubt.
    assert "bind" not in str(error.value)
    ModelRegistry(base).require_sound(NEWER)
    require(tmp_path)
    assert "does not bind the version" in refused_by_serve(folder)
    with pytest.raises(ModelError, match="does not bind the version"):
        ModelRegistry(base).require_sound(NEWER)
    with pytest.raises(EdgeError, match="does not bind the version"):
        bundle.read_exports(folder, signing.trusted_keys(), force=True)


@pytest.mark.parametrize("kind", ["unsigned", "signed by another key"])
def test_a_signature_that_proves_nothing_is_told_and_refused_where_one_is_required(
    base: Path, tmp_path: Path, kind: str
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    other = signing.Signer(signing.key_id_of(private.public_key()), "test", False, private)
    folder = push(base, NEWER + 1, None if kind == "unsigned" else other)
    found = verification.verify(folder)
    said = "the manifest is not signed" if kind == "unsigned" else "signed with another key"
    assert found.problem == ""
    assert said in found.unproven[0]
    require(tmp_path)
    assert said in refused_by_serve(folder)
    with pytest.raises(ModelError, match=said):
        ModelRegistry(base).require_sound(NEWER + 1)


def test_a_manifest_that_its_key_did_not_sign_is_refused_whatever_the_settings_say(base: Path) -> None:
    path = base / str(NEWER) / layout.SIGNATURE_FILE
    bundle = json.loads(path.read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    changed = payload.replace(b'"hash_type": "sha256"', b'"hash_type":"sha256"')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    path.write_text(json.dumps(bundle), encoding="utf-8")
    assert "the manifest or its signature was changed" in refused_by_serve(base / str(NEWER))


def test_a_required_signature_needs_a_key_to_check_it_with(base: Path, tmp_path: Path) -> None:
    require(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="no public key to check it with"):
        signing.trusted_keys()
    require(tmp_path / "elsewhere", **{"signing.trusted_keys": [str(tmp_path / "keys" / "signing.pub")]})
    assert verification.verify(base / str(NEWER)) == verification.Soundness("")


def test_a_machine_that_only_serves_needs_no_private_key(base: Path, tmp_path: Path) -> None:
    away = (f"workspace={tmp_path / 'elsewhere'}", f"signing.key_file={tmp_path / 'absent.pem'}")
    signing.use(load_settings(assignments=away))
    found = verification.verify(base / str(NEWER))
    assert found == verification.Soundness("", ("signature: there is no public key to check it with",))
    with pytest.raises(ConfigurationError, match="cannot read the signing key"):
        signing.trusted_keys()
    public = f"signing.trusted_keys=[{tmp_path / 'keys' / 'signing.pub'}]"
    signing.use(load_settings(assignments=(*away, public, "signing.require_signature=true")))
    assert verification.verify(base / str(NEWER)) == verification.Soundness("")
