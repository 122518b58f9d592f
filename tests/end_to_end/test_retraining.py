"""A model of 2011 serves; the second half comes, once sound and once poisoned: what the loop makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bike_pipeline.errors import ExitCode
from bike_pipeline.model_registry import ModelRegistry
from tests.data.making import make_rows, to_csv
from tests.end_to_end.conftest import Called, Halves, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(run_halves: Halves, tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product(
        run_halves.copied(1, tmp_path_factory.mktemp("retraining") / "workspace"), settings=("training.epochs=5",)
    )


@pytest.fixture(scope="module")
def calls(product: Product) -> dict[str, Called]:
    """What a person calls, in this order."""
    from bike_pipeline.data.embedded_dataset import split_demo

    uploads = product.workspace.parent / "uploads"
    second = split_demo(uploads)[1]
    lines = second.read_text(encoding="utf-8").splitlines()
    poisoned = uploads / "poisoned.csv"
    header = lines[0].split(",")
    count, casual, registered = (header.index(name) for name in ("cnt", "casual", "registered"))
    rows = [line.split(",") for line in lines[1:]]
    for row in rows[2000:4000]:
        row[casual], row[registered] = str(9 * int(row[casual])), str(9 * int(row[registered]))
        row[count] = str(int(row[casual]) + int(row[registered]))
    poisoned.write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n", encoding="utf-8")
    later = uploads / "bike-2013.csv"
    later.write_bytes(to_csv(make_rows("2013-01-01", days=7)))
    return {
        "settings": product.call("watch", "--once", "--json"),
        "nothing": product.call("watch", "--once"),
        "poisoned": product.call("retrain", "--because", "a bad upload", "--data", str(poisoned)),
        "second": product.call("retrain", "--because", "the second half is there", "--data", str(second), "--json"),
        "list": product.call("triggers", "list", "--json"),
        "history": product.call("history", "--json"),
        "versions": product.call("data", "list"),
        "price": product.call("triggers", "price", "--json"),
        "explain refused": product.call("triggers", "explain", "poisoned.csv", "--json"),
        "explain waiting": product.call("triggers", "explain", "bike-2012.csv", "--json"),
        "later": product.call("data", "ingest", str(later)),
        "price again": product.call("triggers", "price", "--json"),
        "explain": product.call("triggers", "explain", "bike-2012.csv", "--json"),
        "shown": product.call("triggers", "explain", "bike-2012.csv"),
    }


def test_settings_that_matter_are_a_change_and_only_once(calls: dict[str, Called]) -> None:
    (line,) = calls["settings"].out.splitlines()
    run = json.loads(line)
    assert run["reason"].endswith("settings: training")
    # Fewer epochs than made the model that serves.
    assert (run["state"], run["pushed_version"]) == ("refused", None)
    assert "not blessed: mae against the baseline" in run["why"]
    assert calls["nothing"].code == 0
    assert "nothing to do" in calls["nothing"].out


def test_a_poisoned_upload_is_refused_and_stands_in_nobodys_way(calls: dict[str, Called]) -> None:
    assert calls["poisoned"].code == ExitCode.NOT_PUSHED, calls["poisoned"].err
    assert "triggers explain" in calls["poisoned"].err
    assert calls["second"].code == 0, calls["second"].err
    assert calls["second"].result["run"]["state"] == "promoted"


def test_the_history_of_promotions_tells_the_reason(calls: dict[str, Called], product: Product) -> None:
    version = calls["second"].result["run"]["facts"]["pushed_version"]
    assert ModelRegistry(str(product.workspace / "serving" / "bike_demand")).serving() == version
    assert any("the second half is there" in json.dumps(change) for change in json.loads(calls["history"].out))


def test_the_ledger_knows_what_became_of_each(calls: dict[str, Called], product: Product) -> None:
    states = [one["state"] for one in calls["list"].result["events"]]
    assert states == ["refused", "refused", "promoted"]
    kept = [path.name for path in Path(product.workspace / "retraining" / "uploads").glob("*/*")]
    assert kept == ["poisoned.csv"]


def test_what_was_refused_is_priced_by_the_next_model_as_an_estimate(calls: dict[str, Called]) -> None:
    assert calls["price"].code == 0, calls["price"].err
    assert calls["price"].result == {"priced": 2, "waiting": 1, "problems": []}
    (decision,) = calls["explain refused"].result["decisions"]
    price = decision["price"]
    assert (price["first"], price["last"], price["hours"]) == ("2012-01-01T00:00", "2012-12-31T23:00", 8734)
    assert "stands in for the model that was not made" in price["estimate"]
    # Of each of these hours the new model is a few rentals nearer to a label that it has seen.
    assert price["avoided"] > 8734


def test_what_was_promoted_is_priced_when_labels_come_on_hours_that_neither_model_knows(
    calls: dict[str, Called],
) -> None:
    (waiting,), (decision,) = (calls[name].result["decisions"] for name in ("explain waiting", "explain"))
    assert waiting["price"] is None
    assert calls["price again"].result["waiting"] == 0
    price = decision["price"]
    assert (price["first"], price["last"], price["hours"]) == ("2013-01-01T00:00", "2013-01-07T23:00", 168)
    assert price["estimate"] == ""
    assert price["cpu_seconds"] == calls["second"].result["run"]["facts"]["cpu_seconds"] > 0
    assert f"{price['avoided']:,.0f} rentals in 168 hours" in " ".join(calls["shown"].out.split())
