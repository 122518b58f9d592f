"""Keys: made once, kept private, taken from where the configuration says."""

from __future__ import annotations

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bike_pipeline.errors import ConfigurationError, StorageError
from bike_pipeline.model_registry import signing


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is configured, whatever the tests' surroundings say."""
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(signing.KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setattr(signing, "_default", {})


def pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signer_of_variable(monkeypatch: pytest.MonkeyPatch, content: bytes) -> signing.Signer:
    monkeypatch.setenv(signing.KEY_VARIABLE, content.decode())
    found = signing.signer()
    assert found is not None
    return found


def test_without_any_configuration_nothing_signs() -> None:
    assert signing.signer() is None
    assert signing.own_public_keys() == {}


def test_a_local_key_is_made_once_private_with_its_public_one_beside(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.pem"
    signing.use_key_file(path, make=True)
    assert signing.own_public_keys() == {}
    signing.check()
    assert not path.exists()
    first = signing.signer()
    assert first is not None
    assert (first.created, first.origin) == (True, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["model-signing.pub", "signing.pem", "signing.pub"]
    second = signing.signer()
    assert second is not None
    assert (second.created, second.key_id) == (False, first.key_id)
    assert list(signing.own_public_keys()) == [first.key_id, first.model_key_id]
    path.with_suffix(".pub").unlink()
    assert list(signing.own_public_keys()) == [first.key_id, first.model_key_id]
    # Who only verifies has the public key alone.
    path.unlink()
    assert list(signing.own_public_keys()) == [first.key_id, first.model_key_id]


def test_many_at_once_agree_on_one_local_key(tmp_path: Path) -> None:
    signing.use_key_file(tmp_path / "keys" / "signing.pem", make=True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: signing.signer(), range(16)))
    assert len({signer.key_id for signer in found if signer}) == 1


def test_what_openssl_makes_signs_and_openssl_verifies(tmp_path: Path) -> None:
    key, public = tmp_path / "k.pem", tmp_path / "k.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public)], check=True)
    signing.use_key_file(key, make=False)
    signer = signing.signer()
    assert signer is not None
    (tmp_path / "text").write_bytes(b"what is signed")
    (tmp_path / "sig").write_bytes(signer.sign(b"what is signed"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    done = subprocess.run(
        [*command, "-in", str(tmp_path / "text"), "-sigfile", str(tmp_path / "sig")], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert list(signing.read_public_keys([public])) == [signer.key_id]


def test_the_variables_go_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.use_key_file(tmp_path / "local.pem", make=True)
    (tmp_path / "named.pem").write_bytes(pem())
    monkeypatch.setenv(signing.KEY_FILE_VARIABLE, str(tmp_path / "named.pem"))
    named = signing.signer()
    assert named is not None
    assert named.origin == str(tmp_path / "named.pem")
    assert not (tmp_path / "local.pem").exists()
    direct = signer_of_variable(monkeypatch, pem())
    assert direct.origin == f"the variable {signing.KEY_VARIABLE}"
    assert direct.key_id != named.key_id
    assert list(signing.own_public_keys()) == [direct.key_id, direct.model_key_id]


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(content)
    signing.use_key_file(path, make=False)
    for ask in (signing.signer, signing.check, signing.own_public_keys):
        with pytest.raises(ConfigurationError, match="no ed25519 private key") as error:
            ask()
        assert str(path) in str(error.value)
    with pytest.raises(ConfigurationError, match="no ed25519 public key"):
        signing.read_public_keys([path])


def test_a_key_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigurationError, match="no ed25519 private key"):
        signer_of_variable(monkeypatch, rsa)


def test_a_configured_key_that_is_absent_is_never_made(tmp_path: Path) -> None:
    path = tmp_path / "absent.pem"
    signing.use_key_file(path, make=False)
    with pytest.raises(ConfigurationError, match="No such file"):
        signing.check()
    with pytest.raises(ConfigurationError, match="No such file"):
        signing.read_public_keys([path])
    assert not path.exists()


def test_a_place_that_takes_no_local_key_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    signing.use_key_file(tmp_path / "file" / "keys" / "signing.pem", make=True)
    with pytest.raises(StorageError, match="signing key"):
        signing.signer()


def test_one_secret_always_gives_the_same_key_that_signs_models() -> None:
    """Or a version that was signed yesterday would not verify with the public key of today."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signer = signing.Signer(signing.key_id_of(private.public_key()), "test", False, private)
    assert signer.model_key_id == "cca8c3383986628d248ebb21596eacf9a450f86317af0dff24dfde7492fab81e"
    assert signer.model_key_id not in (signer.key_id, "")


def test_a_workspace_of_an_earlier_release_gets_the_public_key_that_verifies_models(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.pem"
    signing.use_key_file(path, make=True)
    made = signing.signer()
    assert made is not None
    (path.parent / "model-signing.pub").unlink()
    assert list(signing.own_public_keys()) == [made.key_id, made.model_key_id]
    assert (path.parent / "model-signing.pub").exists()
