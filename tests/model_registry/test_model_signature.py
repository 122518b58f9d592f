"""The signed manifest: every byte, every file and every piece of evidence counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature, signing, verification

HASH = "a1" * 32
EVIDENCE: dict[str, Any] = {
    "model": {"model_id": 7, "run_id": "run-1"},
    "data": [{"span": 1, "version": 2, "content_sha256": HASH, "manifest_sha256": HASH, "rows": {"train": 9}}],
    "code": {"version": "0.1.0", "commit": "abc", "dirty": True, "source_sha256": HASH},
    "settings": {"seed": 1},
    "settings_sha256": HASH,
    "environment": {"python": "3.11.7", "tensorflow": "2.21.0"},
    "schema_sha256": HASH,
    "seed": 1,
    "gates": {"blessed": True, "decisions": [{"binding": True, "passed": True, "reason": "mae"}]},
    "metrics": [{"slicing": "overall", "slice": "", "mae": 30.0}],
}


@pytest.fixture
def key() -> signing.Signer:
    """A key for the test."""
    private = Ed25519PrivateKey.generate()
    return signing.Signer(signing.key_id_of(private.public_key()), "test", False, private)


@pytest.fixture
def push(tmp_path: Path, key: signing.Signer) -> Callable[..., Path]:
    """A function that pushes a small model with the given evidence and signer."""
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    (model / "assets").mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    (model / "variables" / "data").write_bytes(b"weights")

    def pushed(version: int = 1, evidence: dict[str, Any] = EVIDENCE, signer: signing.Signer | None = key) -> Path:
        registry = ModelRegistry(tmp_path / "serving")
        registry.add(
            model, version, {"model_id": 7}, lambda folder: model_signature.write(folder, evidence, signer, version)
        )
        return registry.folder(version)

    return pushed


def problems(folder: Path, *keys: signing.Signer) -> list[str]:
    """Return what verify finds wrong."""
    trusted = {signer.key_id: signer._key.public_key() for signer in keys}
    return [f"{c.name}: {c.detail}" for c in verification.checks(folder, trusted) if not c.passed]


def test_a_pushed_model_is_verified(push: Callable[..., Path], key: signing.Signer) -> None:
    folder = push()
    assert problems(folder, key) == []
    names = [check.name for check in verification.checks(folder, {key.key_id: key._key.public_key()})]
    assert names[:3] == ["signature", "files", "version"]
    assert {name.removeprefix("evidence: ") for name in names[3:]} == {
        "data fingerprint", "code", "settings", "schema", "seed", "environment", "gates", "metrics",
    }  # fmt: skip
    (files,) = (check for check in verification.checks(folder, {}) if check.name == "files")
    assert files.detail == "4 files as they were pushed"


def test_every_single_changed_byte_is_found(push: Callable[..., Path], key: signing.Signer) -> None:
    folder = push()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for position in range(0, len(content), max(1, len(content) // 40)):
            changed = bytearray(content)
            changed[position] ^= 1
            path.write_bytes(bytes(changed))
            assert problems(folder, key), f"{path.name} at {position}"
        path.write_bytes(content + b"\n")
        assert problems(folder, key), f"{path.name} with a byte more"
        path.write_bytes(content)
    assert problems(folder, key) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "saved_model.pb").unlink(), "saved_model.pb is gone"),
        (lambda f: (f / "variables" / "more").write_bytes(b""), "variables/more was not pushed"),
        (lambda f: (f / "more").mkdir(), "more is a folder that was not pushed"),
        (lambda f: (f / "link").symlink_to(f / "saved_model.pb"), "link is not a plain file"),
        (lambda f: shutil.copy(f / layout.EVIDENCE_FILE, f / "copy.json"), "copy.json was not pushed"),
    ],
)
def test_a_file_too_few_or_too_many_is_found(
    push: Callable[..., Path], key: signing.Signer, change: Callable[[Path], Any], said: str
) -> None:
    folder = push()
    change(folder)
    assert problems(folder, key) == [f"files: {said}"]


def test_a_file_behind_a_link_is_no_pushed_file(push: Callable[..., Path], key: signing.Signer, tmp_path: Path) -> None:
    folder = push()
    shutil.move(folder / "saved_model.pb", tmp_path / "elsewhere")
    (folder / "saved_model.pb").symlink_to(tmp_path / "elsewhere")
    assert problems(folder, key) == ["files: saved_model.pb is not a plain file"]


def test_an_older_push_is_named_as_such(push: Callable[..., Path], key: signing.Signer) -> None:
    folder = push()
    (folder / layout.SIGNATURE_FILE).unlink()
    (problem,) = problems(folder, key)
    assert "pushed before models were signed" in problem


def test_an_unsigned_push_and_an_unknown_key_are_told_apart(push: Callable[..., Path], key: signing.Signer) -> None:
    unsigned = push(1, signer=None)
    assert problems(unsigned, key) == ["signature: the manifest is not signed"]
    private = Ed25519PrivateKey.generate()
    other = signing.Signer(signing.key_id_of(private.public_key()), "test", False, private)
    foreign = push(2, signer=other)
    named, known = other.model_key_id[:16], key.key_id[:16]
    assert problems(foreign, key) == [
        f"signature: signed with another key: it names the key {named}, trusted here is {known}"
    ]
    assert problems(foreign, key, other) == []
    assert problems(foreign) == ["signature: there is no public key to check it with"]


@pytest.mark.parametrize("piece", [name for name in EVIDENCE if name != "model"])
def test_no_piece_of_evidence_may_be_missing(push: Callable[..., Path], key: signing.Signer, piece: str) -> None:
    for version, value in enumerate((None, "", [], {}), 1):
        folder = push(version, {**EVIDENCE, piece: value})
        assert len(problems(folder, key)) == 1, (piece, value)
    folder = push(9, {name: value for name, value in EVIDENCE.items() if name != piece})
    (problem,) = problems(folder, key)
    assert problem.startswith("evidence: ")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": [{**EVIDENCE["data"][0], "manifest_sha256": ""}]}, "the hashes of span 1 version 2 are missing"),
        ({"data": ["nothing"]}, "damaged"),
        ({"code": {**EVIDENCE["code"], "source_sha256": "abc"}}, "the hash of the source is missing"),
        ({"gates": {**EVIDENCE["gates"], "blessed": False}}, "not blessed"),
        ({"gates": {"blessed": True, "decisions": [{"binding": True, "passed": False, "reason": "mae"}]}}, "(mae)"),
        ({"gates": {"blessed": True, "decisions": [{"binding": False, "passed": True}]}}, "nothing binding"),
        ({"metrics": [{"slicing": "overall", "slice": "", "mae": None}]}, "overall metrics are missing"),
        ({"metrics": [{"slicing": "season", "slice": "1", "mae": 3.0}]}, "overall metrics are missing"),
    ],
)
def test_evidence_that_does_not_speak_for_the_model(
    push: Callable[..., Path], key: signing.Signer, changed: dict[str, Any], said: str
) -> None:
    (problem,) = problems(push(1, {**EVIDENCE, **changed}), key)
    assert said in problem


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"dsseEnvelope": {"payload": "e30=", "signatures": []}}']
)
def test_a_manifest_that_is_none_never_passes(push: Callable[..., Path], key: signing.Signer, content: bytes) -> None:
    folder = push()
    (folder / layout.SIGNATURE_FILE).write_bytes(content)
    (problem,) = problems(folder, key)
    assert problem.startswith("manifest: ")


def test_the_manifest_appears_with_the_version_or_not_at_all(
    push: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_signature, "write", full)
    with pytest.raises(Exception, match="no space left"):
        push()
    assert [path.name for path in (tmp_path / "serving").iterdir()] == [".lock"]


def test_the_manifest_is_no_part_of_the_models_identity(push: Callable[..., Path]) -> None:
    assert layout.fingerprint(push(1)) == layout.fingerprint(push(2, signer=None))


def test_the_evidence_is_plain_json_with_the_version(push: Callable[..., Path]) -> None:
    evidence = json.loads((push(12) / layout.EVIDENCE_FILE).read_text(encoding="utf-8"))
    assert (evidence["data"], evidence["version"]) == (EVIDENCE["data"], 12)


def test_a_key_of_the_users_own_signs_and_only_its_public_key_verifies(push: Callable[..., Path]) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    own = signing.Signer(signing.key_id_of(private.public_key()), "test", False, private)
    folder = push(signer=own)
    assert problems(folder, own) == []
    assert verification.checks(folder, own.public_keys())[0].detail.startswith("ECDSA secp384r1, key ")
    with pytest.raises(ConfigurationError, match="signs models only"):
        own.sign(b"a channel's file")


def test_a_key_is_certified_by_the_very_ed25519_key_that_is_trusted(
    push: Callable[..., Path], key: signing.Signer, tmp_path: Path
) -> None:
    """A stranger who signs all files anew with a key of their own, and keeps the certificate, is found."""
    folder = push()
    private = ec.generate_private_key(ec.SECP256R1())
    stranger = signing.Signer(signing.key_id_of(private.public_key()), "test", False, private)
    for certificate in (
        key.certificate(),
        {**key.certificate(), "public_key": signing._pem(private.public_key()).decode()},
    ):
        (folder / layout.SIGNATURE_FILE).unlink()
        (folder / layout.EVIDENCE_FILE).unlink()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signing.Signer, "certificate", lambda _, found=certificate: found)
            model_signature.write(folder, EVIDENCE, stranger, 1)
        (problem,) = problems(folder, key)
        assert problem.startswith("signature: signed with another key")
