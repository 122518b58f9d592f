"""The same definition for another target: the whole run, what serves, and what keeps the two apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Called, Product

pytestmark = pytest.mark.slow

BUSY = ("--config", "configs/busy.yaml", "--set", "training.epochs=8")
HOUR = {"dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1, "temp": 0.6, "atemp": 0.58, "hum": 0.5}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product(tmp_path_factory.mktemp("busy") / "workspace")


@pytest.fixture(scope="module")
def first(product: Product) -> Called:
    """The run on the first half; few epochs, since what is tested is not how good the model is."""
    return product.call("run", "--demo", "first", "--json", *BUSY)


@pytest.fixture(scope="module")
def version(product: Product, first: Called) -> Path:
    """The folder of the version that serves."""
    assert first.code == 0, first.err
    return product.workspace / "serving" / "bike_busy" / str(first.result["pushed_version"])


def test_it_is_blessed_by_metrics_and_limits_of_its_own(first: Called) -> None:
    assert first.code == 0, first.err
    report = first.result["decisions"]
    assert report["blessed"]
    assert report["blessed_by_tfma"]
    judged = {d["metric"] for d in report["decisions"] if d["kind"] == "value" and d["binding"]}
    assert judged == {"log_loss", "brier", "auc", "precision", "recall", "f1", "calibration"}
    overall = next(row for row in report["candidate_metrics"] if row["slicing"] == "overall")
    naive = report["naive_errors"]
    assert naive["metric"] == "log_loss"
    assert overall["log_loss"] < 0.85 * min(naive["by_name"].values())
    assert "hourly_mean_mae" not in report


def test_lineage_and_card_record_the_target(product: Product, version: Path) -> None:
    evidence = json.loads((version / "evidence.json").read_text(encoding="utf-8"))
    text = json.dumps(evidence)
    assert '"target": {' in text
    target: dict[str, Any] = json.loads((version / "assets.extra" / "target.json").read_text(encoding="utf-8"))
    assert target["name"] == "busy"
    assert 150 < target["above"] < 300
    card = json.loads((version / "assets.extra" / "model_card" / "model_card.json").read_text(encoding="utf-8"))
    said = f"the probability of more than {target['above']:g} rentals in the hour"
    assert said in card["overview"]
    assert card["explanations"]["unit"] == "probability"
    assert card["gates"]["target"]["above"] == target["above"]
    verified = product.call("verify", *BUSY)
    assert verified.code == 0, verified.out + verified.err
    assert "log loss" in verified.out
    page = product.workspace / "run.html"
    assert product.call("explain-run", "--output", str(page), *BUSY).code == 0
    assert said in page.read_text(encoding="utf-8")


def test_the_exports_pass_parity_and_answer_by_the_models_own_name(version: Path) -> None:
    exports = version / "assets.extra" / "exports"
    report = json.loads((exports / "parity.json").read_text(encoding="utf-8"))
    for name in ("saved_model", "tflite_float32", "tflite_float16", "c_source"):
        assert report["formats"][name]["passed"], report["formats"][name]["reason"]
    golden = json.loads((exports / "golden.json").read_text(encoding="utf-8"))
    assert all(0 <= answer <= 1 for answer in golden["busy_probability"])
    header = (exports / "c_source" / "bike_model.h").read_text(encoding="utf-8")
    assert "It answers the probability of more than" in header


def test_it_answers_a_probability_and_says_who_must_not_ask(product: Product, version: Path) -> None:
    hour = json.dumps({**HOUR, "windspeed": 0.2})
    answered = product.call("predict", hour, *BUSY)
    assert 0 <= float(answered.out) <= 1, answered.err
    record = json.loads(product.call("predict", "--json", hour, *BUSY).out)
    assert record["predicted_busy_probability"] == float(answered.out)
    refused = product.call("predict", hour, "--set", "serving.model_name=bike_busy")
    assert refused.code != 0
    assert "answers busy_probability, and cnt is asked for" in refused.err
    devices = product.call("push", "edge", *BUSY)
    assert devices.code != 0
    assert "devices take models that answer rentals" in devices.err
    assert str(version) in devices.err


def test_neither_target_takes_the_others_place(product: Product, version: Path) -> None:
    before = sorted(path.name for path in version.parent.iterdir())
    few = ("--set", "training.architecture=linear", "--set", "training.epochs=2")
    run = product.call("run", "--set", "serving.model_name=bike_busy", "--accept-baseline-reset", *few)
    assert run.code != 0
    assert "neither is the other's baseline" in run.err
    assert "serving.model_name" in run.err
    assert sorted(path.name for path in version.parent.iterdir()) == before


def test_a_threshold_that_moved_stops_the_run_and_names_the_setting(product: Product, version: Path) -> None:
    above = json.loads((version / "assets.extra" / "target.json").read_text(encoding="utf-8"))["above"]
    few = ("--set", "training.architecture=linear", "--set", "training.epochs=2")
    run = product.call("run", *BUSY, *few, "--set", "training.busy_above=100")
    assert run.code != 0
    assert f"training.busy_above={above:g} keeps the meaning" in run.err
    compressed = product.call("compress", *BUSY)
    assert compressed.code != 0
    assert "know rentals alone" in compressed.err


def test_a_retraining_is_compared_by_log_loss_and_replaces_the_model(product: Product, version: Path) -> None:
    above = json.loads((version / "assets.extra" / "target.json").read_text(encoding="utf-8"))["above"]
    second = product.call("run", "--demo", "second", "--json", *BUSY, "--set", f"training.busy_above={above:g}")
    assert second.code == 0, second.err
    report = second.result["decisions"]
    assert report["baseline"]["state"] == "found"
    changes = {d["metric"]: d for d in report["decisions"] if d["kind"] == "change" and d["slicing"] == "overall"}
    assert set(changes) == {"log_loss", "brier"}
    assert all(change["low"] < change["value"] < change["high"] for change in changes.values())
    assert changes["log_loss"]["value"] < 0
    pushed = version.parent / str(second.result["pushed_version"])
    assert json.loads((pushed / "push.json").read_text(encoding="utf-8"))["target"] == "busy"
    assert pushed.name > version.name
