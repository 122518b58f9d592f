"""Span versions for DVC, held against DVC's published format; `test_servers.py` pulls them with the real `dvc`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from bike_pipeline.commands.data import data_command
from bike_pipeline.data.embedded_dataset import split_demo
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError, StorageError
from bike_pipeline.tracking.dvc import write_all, write_version


def call(workspace: Path, *arguments: str) -> Any:
    """Call `data …` in this process."""
    return CliRunner().invoke(data_command, [*arguments, "--set", f"workspace={workspace}"], catch_exceptions=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose first half was ingested with DVC on, and its second without; only read."""
    workspace = tmp_path_factory.mktemp("workspace")
    first, second = split_demo(workspace / "uploads")
    done = call(workspace, "ingest", str(first), "--set", "tracking.dvc.enabled=true")
    assert f"note: for DVC: {workspace}/dvc/span-0001/version-0001.dvc" in done.output
    call(workspace, "ingest", str(second))
    return workspace


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def pulled(dvc_file: Path, remote: Path) -> dict[str, bytes]:
    """Return what DVC would pull: every address is checked, as DVC does."""
    (out,) = yaml.safe_load(dvc_file.read_text(encoding="utf-8"))["outs"]
    assert (out["hash"], out["path"]) == ("md5", dvc_file.stem)
    listed = (remote / "files" / "md5" / out["md5"][:2] / out["md5"][2:]).read_bytes()
    assert f"{md5(listed)}.dir" == out["md5"]
    files = {}
    for entry in json.loads(listed):
        content = (remote / "files" / "md5" / entry["md5"][:2] / entry["md5"][2:]).read_bytes()
        assert md5(content) == entry["md5"]
        files[entry["relpath"]] = content
    assert out["nfiles"] == len(files)
    assert out["size"] == sum(map(len, files.values()))
    return files


def stored(version: Path) -> dict[str, bytes]:
    return {path.relative_to(version).as_posix(): path.read_bytes() for path in version.rglob("*") if path.is_file()}


def test_an_ingested_version_can_be_pulled_byte_for_byte(workspace: Path) -> None:
    files = pulled(workspace / "dvc/span-0001/version-0001.dvc", workspace / "dvc/remote")
    assert files == stored(workspace / "spans/span-0001/version-0001")
    assert {"manifest.json", "train/data.csv", "eval/data.csv"} <= set(files)
    assert list(files) == sorted(files)
    assert (workspace / "dvc/span-0001/.gitignore").read_text(encoding="utf-8") == "/version-*/\n"
    assert not (workspace / "dvc/span-0002").exists()


def test_earlier_versions_are_written_later_and_the_same_again(workspace: Path, tmp_path: Path) -> None:
    options = ("--set", f"tracking.dvc.folder={tmp_path}/dvc", "--set", f"tracking.dvc.remote={tmp_path}/remote")
    done = call(workspace, "dvc", *options)
    assert f"wrote {tmp_path}/dvc/span-0002/version-0001.dvc" in done.output
    assert f"dvc remote add --default spans {tmp_path}/remote" in done.output
    for span in (1, 2):
        files = pulled(tmp_path / f"dvc/span-000{span}/version-0001.dvc", tmp_path / "remote")
        assert files == stored(workspace / f"spans/span-000{span}/version-0001")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    listed = json.loads(call(workspace, "dvc", "--json", *options).output)
    assert len(listed["files"]) == 2
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    meta = yaml.safe_load((tmp_path / "dvc/span-0002/version-0001.dvc").read_text(encoding="utf-8"))["meta"]
    found = SpanStore(str(workspace / "spans")).get(2, 1)
    assert meta["bike_pipeline"]["manifest_sha256"] == found.manifest_sha256


def test_a_changed_file_is_never_written(workspace: Path, tmp_path: Path) -> None:
    store = SpanStore(str(workspace / "spans"))
    store.export(1, 1, tmp_path / "spans")
    changed = tmp_path / "spans/span-0001/version-0001/train/data.csv"
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(DataError, match="SHA-256"):
        write_version(SpanStore(str(tmp_path / "spans")), 1, 1, tmp_path / "dvc", tmp_path / "remote")
    assert not (tmp_path / "dvc").exists()
    assert list((tmp_path / "remote").iterdir()) == []


def test_what_cannot_be_written_or_is_not_there_is_one_line_and_no_failed_ingest(
    workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = SpanStore(str(workspace / "spans"))
    with pytest.raises(StorageError, match="cannot write it"):
        write_version(store, 1, 1, tmp_path / "dvc", tmp_path / "file" / "remote")
    with pytest.raises(DataError, match="there is no span 7"):
        write_all(store, tmp_path / "dvc", tmp_path / "remote", span=7)
    with pytest.raises(DataError, match="store is empty"):
        write_all(SpanStore(str(tmp_path / "empty")), tmp_path / "dvc", tmp_path / "remote")
    options = ("--set", "tracking.dvc.enabled=true", "--set", f"tracking.dvc.remote={tmp_path}/file/remote")
    (first,) = (workspace / "uploads").glob("*2011*")
    done = call(workspace, "ingest", str(first), *options)
    assert done.exit_code == 0
    assert "note: warning: not tracked: " in done.output
