"""What a stage wrote is told from what was changed since, file by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bike_pipeline.errors import VerificationError
from bike_pipeline.lineage.records import sealing


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An output of two files, in a folder whose name a reader of patterns would misread."""
    folder = tmp_path / "w [1]*?" / "model" / "7"
    (folder / "Format-Serving" / "assets.extra").mkdir(parents=True)
    (folder / "Format-Serving" / "saved_model.pb").write_bytes(b"graph")
    (folder / "Format-Serving" / "assets.extra" / "hourly_mean.json").write_bytes(b"[1.0, 2.0]")
    return folder


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a digit": (
        lambda f: (f / "Format-Serving" / "assets.extra" / "hourly_mean.json").write_bytes(b"[1.0, 3.0]"),
        "hourly_mean.json was changed",
    ),
    "a file too many": (lambda f: (f / "Format-Serving" / "saved_model.pbtxt").touch(), "saved_model.pbtxt was added"),
    "a file gone": (lambda f: (f / "Format-Serving" / "saved_model.pb").unlink(), "saved_model.pb is gone"),
    "a link": (lambda f: (f / "Format-Serving" / "more").symlink_to(f / "Format-Serving"), "more cannot be read"),
}


def test_what_was_not_changed_passes_wherever_it_was_copied_to(artifact: Path) -> None:
    seal = sealing.seal_of(str(artifact))
    sealing.check(str(artifact), seal, "Evaluator", "model")
    moved = artifact.rename(artifact.with_name("8"))
    assert sealing.difference(str(moved), seal) == ""


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_was_changed_is_named(artifact: Path, name: str) -> None:
    change, words = CHANGES[name]
    seal = sealing.seal_of(str(artifact))
    change(artifact)
    with pytest.raises(VerificationError) as refused:
        sealing.check(str(artifact), seal, "Evaluator", "base_model")
    assert words in str(refused.value)
    assert str(refused.value).startswith("Evaluator: its base model cannot be trusted: ")
    assert "--no-cache" in refused.value.fix


@pytest.mark.parametrize("seal", [None, "", "[]", "{"])
def test_an_output_without_a_seal_does_not_pass(artifact: Path, seal: str | None) -> None:
    with pytest.raises(VerificationError, match="nothing is on record"):
        sealing.check(str(artifact), seal, "Evaluator", "model")


def test_an_output_that_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b"1")
    seal = sealing.seal_of(str(tmp_path / "value"))
    assert sealing.difference(str(tmp_path / "value"), seal) == ""
    (tmp_path / "value").write_bytes(b"2")
    assert "value was changed" in sealing.difference(str(tmp_path / "value"), seal)
