"""What is on record of the two halves: signed, traced back, made again, and safe from being freed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import ROOT, Called, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asked(story: dict[str, Any]) -> dict[str, Called]:
    """Every question once; none of them changes the workspace."""
    product: Product = story["product"]
    return {
        "verify": product.call("verify", "--json"),
        "lineage": product.call("lineage", "--format", "json"),
        "impact": product.call("lineage", "--impact", "1/1", "--format", "json"),
        "reproduce": product.call("reproduce", "--json"),
        "gc": product.call("gc", "--keep-blessed", "0", "--keep-days", "0", "--dry-run", "--json"),
    }


def test_the_pushed_model_is_signed_with_all_evidence(asked: dict[str, Called]) -> None:
    assert asked["verify"].code == 0, asked["verify"].err
    assert all(check["passed"] for check in asked["verify"].result["checks"])


def test_the_way_back_leads_through_every_stage_to_both_halves(asked: dict[str, Called]) -> None:
    report = asked["lineage"].result
    assert report["missing"] == []
    stages = {node["name"] for node in report["graph"]["nodes"] if node["kind"] == "stage"}
    assert stages == {
        "CsvExampleGen", "ImportSchemaGen", "StatisticsGen", "ExampleValidator", "DataGate", "Transform", "Trainer",
        "BaselineLookup", "Evaluator", "Exporter", "ModelCard", "Pusher",
    }  # fmt: skip
    assert [(span["span"], span["role"]) for span in report["spans"]] == [(1, "history"), (2, "train, eval")]
    assert all(span["manifest_sha256"] and span["files"] and not span["problem"] for span in report["spans"])
    assert report["gates"]["blessed"] is True


def test_every_model_saw_the_first_half(asked: dict[str, Called], story: dict[str, Any]) -> None:
    trained = {model["model_id"] for model in story["models"].result}
    assert {seen["model_id"] for seen in asked["impact"].result["sightings"]} == trained


def test_the_serving_model_comes_out_the_same_again(asked: dict[str, Called]) -> None:
    assert asked["reproduce"].code == 0, asked["reproduce"].err
    found = asked["reproduce"].result["agreement"]
    assert (found["rows"], found["different_rows"]) == (8_645 + 8_734, 0)
    assert found["identical"] is True


def test_what_serves_and_its_baseline_would_never_be_freed(asked: dict[str, Called], story: dict[str, Any]) -> None:
    assert asked["gc"].code == 0, asked["gc"].err
    entries = asked["gc"].result["artifacts"]
    kept = {f"artifact-{entry['artifact_id']}" for entry in entries if not entry["free"]}
    lineage = {node["key"] for node in asked["lineage"].result["graph"]["nodes"] if node["kind"] == "artifact"}
    assert lineage <= kept
    blessed = {model["model_id"]: model["blessed"] for model in story["models"].result}
    freed = {entry["artifact_id"] for entry in entries if entry["free"]}
    # The first model is the baseline of the one that serves; the refused ones nobody needs.
    assert {number for number in blessed if number in freed} == {n for n, good in blessed.items() if not good}
    assert asked["gc"].result["freed_bytes"] > 0


WORSE = ("run", "--json", "--set", "training.learning_rate=1e-6")
ROW = (
    '{"dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1, "temp": 0.6, "atemp": 0.58, "hum": 0.5,'
    ' "windspeed": 0.2}'
)


@pytest.fixture(scope="module")
def freed(story: dict[str, Any], asked: dict[str, Called], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What every call comes to once the files of all that serving does not need are gone.

    Records name files by their whole path, so the workspace itself is worked on, and put back as it was.
    """
    product: Product = story["product"]
    before = tmp_path_factory.mktemp("before") / "workspace"
    shutil.copytree(product.workspace, before, symlinks=True)
    try:
        # The newest span holds data that the gate refuses; without it the runs go on with the second half.
        shutil.rmtree(product.workspace / "spans" / "span-0003")
        calls = {"predict before": product.call("predict", ROW)}
        calls["gc"] = product.call("gc", "--keep-blessed", "0", "--keep-days", "0", "--json")
        refused = next(model for model in story["models"].result if model["blessed"] is False)
        calls["lineage"] = product.call("lineage", "--format", "json")
        calls["refused"] = product.call("lineage", str(refused["model_id"]), "--format", "json")
        calls["verify"] = product.call("verify", "--json")
        calls["predict"] = product.call("predict", ROW)
        calls["gc again"] = product.call("gc", "--keep-blessed", "0", "--keep-days", "0", "--json")
        calls["worse"] = product.call(*WORSE)
        calls["worse in ML Metadata"] = product.call("runs", "--json")
        calls["plain"] = product.call("run", "--json")
        yield calls
    finally:
        shutil.rmtree(product.workspace)
        before.rename(product.workspace)


def test_freeing_takes_what_was_announced_and_nothing_that_serves(
    freed: dict[str, Called], asked: dict[str, Called]
) -> None:
    assert freed["gc"].code == 0, freed["gc"].err
    assert freed["gc"].result["artifacts"] == asked["gc"].result["artifacts"]
    gone = [Path(entry["uri"]) for entry in freed["gc"].result["artifacts"] if entry["free"]]
    assert gone
    # Asked again, there is nothing left to free; what a later run made again has a place of its own.
    assert not any(entry["free"] for entry in freed["gc again"].result["artifacts"])
    assert not any(path.exists() for path in gone)
    assert freed["verify"].code == 0, freed["verify"].err
    assert freed["predict"].out == freed["predict before"].out != ""


def test_lineage_still_answers_and_says_what_is_gone(freed: dict[str, Called], asked: dict[str, Called]) -> None:
    assert freed["lineage"].result["graph"] == asked["lineage"].result["graph"]
    report = freed["refused"].result
    payloads = {node["name"]: node["payload"] for node in report["graph"]["nodes"] if node["kind"] == "artifact"}
    assert "freed" in payloads.values()
    assert report["gates"]["blessed"] is False
    assert report["metrics"]


def test_a_run_makes_again_what_was_freed_and_no_more(freed: dict[str, Called]) -> None:
    worse = freed["worse"]
    assert worse.code == 6, worse.err
    runs = freed["worse in ML Metadata"].result
    states = {stage["name"]: stage["state"] for stage in runs[-1]["stages"]}
    assert {name for name, state in states.items() if state == "done"} == {
        "Trainer", "BaselineLookup", "Evaluator", "Exporter", "ModelCard", "Pusher",
    }  # fmt: skip
    assert set(states.values()) == {"done", "cached"}
    plain = freed["plain"]
    assert plain.code == 0, plain.err
    assert set(plain.states.values()) == {"cached"}
    assert plain.result["newly_pushed"] is False


def test_every_kind_of_file_that_the_product_writes_is_documented(story: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("| ")]
    patterns = re.findall("`(.+?)`", " ".join(cells))
    workspace = story["product"].workspace
    files = [path.relative_to(workspace).as_posix() for path in workspace.rglob("*") if path.is_file()]
    assert len(files) > 50
    unknown = {name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)}
    # What the tests of the story put there themselves.
    assert unknown <= {"imported.txt", "strict.yaml", "stuck.csv", "fifty.csv"}, "name them in docs/file-formats.md"
