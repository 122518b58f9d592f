"""Results appear whole or not at all, and an interrupted one costs nothing that was there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bike_pipeline.errors import StorageError
from bike_pipeline.exporting.compression.candidates import new_result


def _publish(base: Path, text: str) -> Path:
    with new_result(base) as (aside, target):
        (aside / "plain").mkdir()
        (aside / "plain" / "table").write_text(text)
    return target


def test_a_new_result_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    base = tmp_path / "8"
    first = _publish(base, "first")
    assert list(base.iterdir()) == [first]
    second = _publish(base, "second")
    assert [path.name for path in base.iterdir()] == [second.name] == ["2"]
    assert (second / "plain" / "table").read_text() == "second"


def test_a_failure_leaves_the_result_before_and_nothing_aside(tmp_path: Path) -> None:
    kept = _publish(tmp_path, "kept")

    def fail() -> None:
        with new_result(tmp_path) as (aside, _):
            (aside / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == [kept]


def test_what_a_killed_process_left_aside_is_no_result_and_is_removed(tmp_path: Path) -> None:
    _publish(tmp_path, "kept")
    (tmp_path / ".incoming-2").mkdir()
    (tmp_path / ".incoming-2" / "half").write_text("half")
    assert _publish(tmp_path, "next").name == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    kept = _publish(tmp_path, "kept")
    with pytest.raises(StorageError, match="no space left"), new_result(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write it"):
        _publish(tmp_path / "file" / "8", "")
