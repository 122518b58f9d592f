"""What is on record of the two halves: signed, traced back, made again, and safe from being freed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.end_to_end.conftest import Called, Product

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
        "BaselineLookup", "Evaluator", "Pusher",
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
