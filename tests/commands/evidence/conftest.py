"""Two pushed versions with all their records, and their evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.lineage import evidence_command
from bike_pipeline.lineage.queries.evidence import evidence_of
from bike_pipeline.lineage.records import bill_of_materials
from bike_pipeline.lineage.reports import model_card
from bike_pipeline.lineage.store.connection import open_at
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature, signing
from tests.lineage.world import FIRST, SECOND, Runs


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is configured, whatever the tests' surroundings say."""
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(signing.KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setattr(signing, "_default", {})


def push(runs: Runs, number: int, version: int) -> None:
    """Push a recorded model as its Pusher would: with its card, its evidence and a signature."""
    settings = runs.settings
    signing.use(settings)
    lineage = Lineage(open_at(settings.metadata_address))
    model = runs.models[number]
    folder = runs.workspace / f"model-{number}"
    (folder / layout.CARD_FOLDER).mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph %d" % number)
    model_card.write(model_card.card_of_model(lineage, model.id, settings.store_uri), folder / layout.CARD_FOLDER)
    evidence, signer = evidence_of(lineage, model.id), signing.signer()

    def complete(aside: Path) -> None:
        model_signature.write(aside, evidence, signer, version)

    ModelRegistry(settings.serving_path).add(folder, version, {"model_id": model.id}, complete)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two pushed versions with all their records; only read."""
    before = dict(signing._default)
    runs = Runs(tmp_path_factory.mktemp("world")).two()
    push(runs, 0, FIRST)
    push(runs, 1, SECOND)
    signing._default.clear()
    signing._default.update(before)
    return runs


def call(workspace: Path, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(evidence_command, [*arguments, "--json", "--set", f"workspace={workspace}"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def written(world: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of both versions; only read."""
    before, place = dict(signing._default), tmp_path_factory.mktemp("evidence")
    folders = [place / str(version) for version in (FIRST, SECOND)]
    for folder in folders:
        call(world.workspace, folder.name, "--output", str(folder))
    signing._default.clear()
    signing._default.update(before)
    return folders[0], folders[1]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bill of materials of nothing, where nobody looks at it."""
    monkeypatch.setattr(bill_of_materials, "bill_of_materials", lambda: b'{"components": []}')


@pytest.fixture
def folder(written: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first folder, to be changed."""
    return shutil.copytree(written[0], tmp_path / "given" / str(FIRST))


@pytest.fixture
def own(world: Runs, tmp_path: Path) -> Path:
    """A workspace of one's own, to be damaged."""
    return shutil.copytree(world.workspace, tmp_path / "own")
