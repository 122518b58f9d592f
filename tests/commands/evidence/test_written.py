"""`evidence`: one signed folder, under the eyes of OpenSSL and coreutils, which know nothing of this product."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bike_pipeline.model_registry import signing, verification
from bike_pipeline.retraining.events import Event, State
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.metadata import MetadataSettings, MySql
from bike_pipeline.settings.retraining import PolicySettings
from bike_pipeline.use_cases import evidence, run
from bike_pipeline.use_cases.retraining import open_ledger
from bike_pipeline.use_cases.run import Agreement, Reproduction
from tests.commands.evidence.conftest import call
from tests.lineage.world import FIRST, SECOND, Runs

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("sha256sum") is None, reason="openssl or sha256sum is not here"
)


def key_of(runs: Runs) -> Path:
    return runs.workspace / "keys" / "signing.pub"


def by_strangers(folder: Path, key: Path) -> bool:
    """Do what VERIFY.md says, word for word."""
    (block,) = re.findall(r"```\n(.*?)```", (folder / "VERIFY.md").read_text(encoding="utf-8"), re.DOTALL)
    block = block.replace("KEY=/path/to/signing.pub", f"KEY={key}")
    done = subprocess.run(["bash", "-c", block], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == done.stdout.endswith("verified\n"), done.stdout + done.stderr
    return done.returncode == 0


def by_us(folder: Path, key: Path) -> list[str]:
    """Return what `verify FOLDER --public-key KEY` finds wrong."""
    found = verification.checks(folder, signing.read_public_keys([key]))
    return [f"{check.name}: {check.detail}" for check in found if not check.passed]


def test_a_stranger_and_this_product_verify_it_and_every_file_is_listed(world: Runs, folder: Path) -> None:
    assert by_strangers(folder, key_of(world))
    assert by_us(folder, key_of(world)) == []
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = {line.partition("  ")[2] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert there - listed == {"SHA256SUMS", "SHA256SUMS.sig"}
    assert listed >= {
        "VERIFY.md", "annex_iv.md", "evidence.json", "history.json", "lineage.json", "model_card/model_card.html",
        "pushed/model.sig", "reproduction.json", "sbom.cdx.json", "source_files.sha256", "verification.json",
    }  # fmt: skip


FILES = (
    "VERIFY.md", "annex_iv.md", "evidence.json", "history.json", "lineage.json", "model_card/model_card.html",
    "model_card/model_card.json", "model_card/model_card.md", "pushed/model.sig", "pushed/push.json",
    "reproduction.json", "retraining.json", "sbom.cdx.json", "source_files.sha256", "verification.json", "SHA256SUMS",
    "SHA256SUMS.sig",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["changed", "removed", "link"])
def test_a_file_that_is_not_as_it_was_signed_is_found_by_both(world: Runs, folder: Path, name: str, how: str) -> None:
    path = folder / name
    instructions = (folder / "VERIFY.md").read_text(encoding="utf-8")
    content = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    elif how == "link":
        (folder.parent / "elsewhere").write_bytes(content)
        path.symlink_to(folder.parent / "elsewhere")
    assert by_us(folder, key_of(world))
    if name == "VERIFY.md":
        # The steps are those that the stranger knows from elsewhere.
        (block,) = re.findall(r"```\n(.*?)```", instructions, re.DOTALL)
        block = block.replace("KEY=/path/to/signing.pub", f"KEY={key_of(world)}")
        assert subprocess.run(["bash", "-c", block], cwd=folder, capture_output=True, check=False).returncode != 0
    else:
        assert not by_strangers(folder, key_of(world))


def test_the_files_of_the_tamper_tests_are_all_there_are(folder: Path) -> None:
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(FILES)


@pytest.mark.parametrize(
    "add",
    [
        lambda f: (f / "more.json").write_text("{}"),
        lambda f: (f / "model_card" / "more.md").write_text(""),
        lambda f: (f / "link.md").symlink_to(f / "annex_iv.md"),
        lambda f: shutil.copy(f / "pushed" / "model.sig", f / "model.sig"),
    ],
)
def test_what_is_too_many_is_found_by_both(world: Runs, folder: Path, add: Callable[[Path], Any]) -> None:
    add(folder)
    assert by_us(folder, key_of(world))
    assert not by_strangers(folder, key_of(world))


def test_another_key_does_not_do(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(signing._pem(Ed25519PrivateKey.generate().public_key()))
    assert by_us(folder, other)[0].startswith("signature: damaged, or not made with a key that is trusted here")
    assert not by_strangers(folder, other)


@pytest.mark.parametrize("names", [("SHA256SUMS.sig",), ("SHA256SUMS", "SHA256SUMS.sig"), ("evidence.json",)])
def test_parts_of_another_version_do_not_do(
    world: Runs, written: tuple[Path, Path], folder: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        shutil.copy(written[1] / name, folder / name)
    assert by_us(folder, key_of(world))
    assert not by_strangers(folder, key_of(world))


def test_a_folder_under_the_number_of_another_version_is_told(world: Runs, folder: Path) -> None:
    moved = folder.rename(folder.with_name(str(SECOND)))
    assert by_us(moved, key_of(world)) == [f"version: it was pushed as version {FIRST}, not as version {SECOND}"]


def test_evidence_cannot_pass_as_a_version_that_serves(world: Runs, written: tuple[Path, Path]) -> None:
    assert "model.sig was taken away" in verification.verify(written[0]).problem


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_a_key_on_a_curve_signs_too(world: Runs, few: None, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, pem = ec.generate_private_key(curve), tmp_path / "curve.pem"
    pem.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "curve.pub").write_bytes(signing._pem(private.public_key()))
    old = f'["{key_of(world)}", "{world.workspace / "keys" / "model-signing.pub"}"]'
    target = tmp_path / str(FIRST)
    call(world.workspace, str(FIRST), "--output", str(target), "--set", f"signing.key_file={pem}",
         "--set", f"signing.trusted_keys={old}")  # fmt: skip
    assert by_strangers(target, tmp_path / "curve.pub")
    assert by_us(target, tmp_path / "curve.pub") == []
    assert not by_strangers(target, key_of(world))


def test_it_is_filled_from_the_records_and_what_they_lack_is_left_to_a_person(world: Runs, folder: Path) -> None:
    text = (folder / "annex_iv.md").read_text(encoding="utf-8")
    assert [line[3] for line in text.splitlines() if line.startswith("## ")] == list("123456789")
    span = world.spans.latest(1)
    for known in (span.manifest_sha256, "mae, overall: 30.0", f"version {FIRST}", "run-1"):
        assert known in text
    assert text.count("not on record:") == text.count("a person must write it")
    for left in ("provider", "risk management system of Article 9", "declaration of Article 47", "post-market"):
        assert re.search(rf"not on record: [^;]*{left}[^;]*; a person must write it", text)
    assert "this version was not reproduced" in text
    assert json.loads((folder / "reproduction.json").read_text()) == {"agreement": None, "reproduced": False}
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["spans"][0]["files"] == {n: r.sha256 for n, r in span.manifest.files.items()}
    sums = (folder / "source_files.sha256").read_text()
    assert re.search(r"^[0-9a-f]{64}  bike_pipeline/cli\.py$", sums, re.MULTILINE)
    own = json.loads((folder / "sbom.cdx.json").read_text())
    assert "bike-pipeline" in {entry["name"] for entry in own["components"]}


def test_a_reproduction_is_part_of_it_whatever_came_of_it(
    world: Runs, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement = Agreement(10, 3, 0.5, {"mae": 0.1}, same_slices=True, identical=False)
    monkeypatch.setattr(run, "reproduce", lambda *_, **__: Reproduction(world.models[0].id, agreement))
    call(world.workspace, str(FIRST), "--reproduce", "--output", str(tmp_path / "made"))
    kept = json.loads((tmp_path / "made" / "reproduction.json").read_text())
    assert kept["reproduced"]
    assert kept["agreement"]["different_rows"] == 3
    assert "3 of 10 rows differ" in (tmp_path / "made" / "annex_iv.md").read_text()


def test_what_caused_the_version_is_told_from_the_ledger(own: Path, few: None, tmp_path: Path) -> None:
    call(own, str(FIRST), "--output", str(tmp_path / "without"))
    # Asking makes no ledger where there is none.
    assert not (own / "retraining").exists()
    assert json.loads((tmp_path / "without" / "retraining.json").read_text()) == []
    ledger = open_ledger(load_settings(assignments=(f"workspace={own}",)))
    event = Event("storage", "file:///drop", "ab" * 32, name="march.csv", reason="march.csv is new")
    ledger.see(event)
    fence = ledger.hold_lease("loop", 60)
    assert fence is not None
    claimed = ledger.claim(fence, PolicySettings())
    assert claimed is not None
    ledger.advance(claimed, State.PROMOTED, "blessed", run_id="run-1", pushed_version=FIRST)
    call(own, str(FIRST), "--output", str(tmp_path / "with"))
    (told,) = json.loads((tmp_path / "with" / "retraining.json").read_text())
    assert (told["number"], told["state"], told["facts"]["run_id"]) == (1, "promoted", "run-1")
    assert [entry["identity"] for entry in told["events"]] == [event.identity]
    assert told["transitions"][-1]["after"] == "promoted"
    assert "Run 1 of the retraining ledger pushed it, since march.csv is new" in (
        tmp_path / "with" / "annex_iv.md"
    ).read_text(encoding="utf-8")
    call(own, str(SECOND), "--output", str(tmp_path / "other"))
    assert json.loads((tmp_path / "other" / "retraining.json").read_text()) == []


def test_a_ledger_on_a_server_is_asked_as_well(own: Path, few: None, tmp_path: Path, monkeypatch: Any) -> None:
    asked = open_ledger(load_settings(assignments=(f"workspace={tmp_path / 'elsewhere'}",)))
    event = Event("manual", "somebody", "cd" * 32, reason="it was asked for")
    asked.see(event)
    fence = asked.hold_lease("loop", 60)
    assert fence is not None
    claimed = asked.claim(fence, PolicySettings())
    assert claimed is not None
    asked.advance(claimed, State.PROMOTED, "blessed", pushed_version=FIRST)
    monkeypatch.setattr(evidence, "open_ledger", lambda _: asked)
    server = MetadataSettings(mysql=MySql(host="127.0.0.1"))
    settings = load_settings(assignments=(f"workspace={own}",)).model_copy(update={"metadata": server})
    (told,) = evidence._retraining(settings, FIRST)
    assert told["reason"] == "it was asked for"
