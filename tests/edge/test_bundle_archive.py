"""An archive that is not a bundle is refused, whoever signed it."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.edge import bundle, updates
from bike_pipeline.edge.updates import UpdateError
from tests.edge.making import Key


def archive_with(bundle_: bundle.Bundle, change: Any) -> bytes:
    """Return the archive with its members changed: a list of (TarInfo, content) goes in and out."""
    with tarfile.open(fileobj=io.BytesIO(bundle_.archive)) as tar:
        members = []
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            members.append((member, file.read()))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in change(members):
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return made.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x", link: str = "") -> tuple[Any, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content) if kind == tarfile.REGTYPE else 0, link
    return member, content


def renamed(members: list[Any], name: str) -> list[Any]:
    members[3][0].name = name
    return members


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: [*m, named("more.txt")], "does not name once"),
        (lambda m: [*m, m[-1]], "does not name once"),
        (lambda m: [*m, named("../outside")], "does not name once"),
        (lambda m: renamed(m, "../../outside"), "does not name once"),
        (lambda m: renamed(m, "/outside"), "does not name once"),
        (lambda m: [*m[:-1], named(m[-1][0].name, tarfile.SYMTYPE, link="/etc/passwd")], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, tarfile.LNKTYPE, link="manifest.json")], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, tarfile.FIFOTYPE)], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, content=b"y" * 10_000_000)], "not the plain file"),
        (lambda m: [*m[:-1], named(m[-1][0].name, content=m[-1][1][:-1] + b"?")], "not what its manifest promises"),
        (lambda m: m[:-1], "the bundle lacks"),
        (lambda m: m[1:], "not the plain file"),
        (lambda m: [m[1], m[0], *m[2:]], "not the plain file"),
        (lambda m: [(m[0][0], m[0][1][:-2] + b" }"), *m[1:]], "the signature is not that of the key"),
    ],
    ids=["more", "twice", "outside", "renamed", "absolute", "symlink", "hardlink", "fifo", "large", "byte", "less",
         "no_manifest", "order", "manifest"],
)  # fmt: skip
def test_an_archive_with_anything_else_in_it_is_refused(
    bundles: dict[int, bundle.Bundle], key: Key, tmp_path: Path, change: Any, told: str
) -> None:
    (tmp_path / "bundle.tar").write_bytes(archive_with(bundles[1], change))
    with pytest.raises(UpdateError, match=told):
        updates.extract(tmp_path / "bundle.tar", tmp_path / "there" / "folder", key.public)
    assert {path.name for path in tmp_path.iterdir()} <= {"bundle.tar", "there"}
    assert not (tmp_path / "there").exists() or [path.name for path in (tmp_path / "there").iterdir()] == ["folder"]


def test_what_is_no_archive_is_refused(key: Key, tmp_path: Path) -> None:
    for content in (b"", b"no archive" * 1000, b"\x1f\x8b" + b"\0" * 600):
        (tmp_path / "bundle.tar").write_bytes(content)
        with pytest.raises(UpdateError):
            updates.extract(tmp_path / "bundle.tar", tmp_path / "folder", key.public)


def test_even_a_signed_manifest_names_no_path_outside(key: Key, tmp_path: Path) -> None:
    for name in ("../x", "/x", "a/../x", "a//x", ".hidden", "a\\..\\x", "manifest.json"):
        content = json.dumps({"format": 1, "files": {name: {"size": 1, "sha256": "0" * 64}}}).encode()
        with pytest.raises(UpdateError, match="names files that no bundle has"):
            updates.read_manifest(content, key.signer.sign(content), key.public)
