"""Labels of 2012 for the model of 2011: late, again, out of order, wrong and put right; killed; taken back."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.model_registry import ModelRegistry
from tests.end_to_end.conftest import Called, Halves, Product

pytestmark = pytest.mark.slow

Row = dict[str, str]

# MAE of a version on a file of rows, and how far its other formats are from it there, relatively.
ANSWERS = """
import datetime as dt, json, sys
from pathlib import Path
import numpy as np
from bike_pipeline import features
from bike_pipeline.data.labels import read_labels
from bike_pipeline.data.past_weather import with_optional_inputs
from bike_pipeline.exporting.formats import registry
from bike_pipeline.modeling.loaded_model import LoadedModel
table = with_optional_inputs(read_labels({rows!r}, None, dt.datetime(2020, 1, 1))[0])
kinds = {{"int": np.int64, "float": np.float32}}
columns = {{f.name: table.column(f.name).to_numpy().astype(kinds[f.kind]) for f in features.MODEL_INPUTS}}
found = {{}}
for version in {versions!r}:
    folder = Path(sys.argv[1], "serving", "bike_demand", str(version))
    answers = LoadedModel(folder).predict(columns)
    found[version] = {{"mae": float(np.abs(answers - table.column("cnt").to_numpy()).mean())}}
    for name in {formats!r}:
        (form,) = registry.formats_of([name])
        other = form.load(folder / "assets.extra" / "exports" / name).predict(columns)
        found[version][name] = float((np.abs(other - answers) / np.maximum(answers, 1.0)).max())
print(json.dumps(found))
"""
# Kills an update where it is told to.
KILLED = """
import os, signal, sys
from pathlib import Path
from bike_pipeline import cli
from bike_pipeline.rollout import promotion
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
def killing(self, target):
    if self.parent.name == ".writing" and self.parent.parent.name == "bike_demand" and self.is_dir():
        if {place!r} == "after the push":
            rename(self, target)
        die()
    return rename(self, target)
if {place!r} == "before the promotion":
    promotion.after_push = die
else:
    Path.rename = killing
sys.argv = ["bike-pipeline", "feedback", "update", {labels!r}, "--json", "--set", f"workspace={{sys.argv[1]}}"]
cli.main()
"""


def write(path: Path, rows: Iterable[Row]) -> str:
    """Write rows as an upload."""
    rows = list(rows)
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def times(factor: int, row: Row) -> Row:
    """Return a row with so many times its rentals."""
    return row | {name: str(factor * int(row[name])) for name in ("casual", "registered", "cnt")}


@dataclass(frozen=True)
class Fed:
    """A workspace that labels came to, and every answer on the way."""

    product: Product
    answers: dict[str, Called]
    versions: tuple[int, int, int]
    rows: dict[str, list[Row]]

    @property
    def registry(self) -> ModelRegistry:
        """Its versions."""
        return ModelRegistry(self.product.workspace / "serving" / "bike_demand")


@pytest.fixture(scope="module")
def weeks(halves: tuple[Path, Path]) -> dict[str, list[Row]]:
    """The first weeks of 2012, by their first day."""
    rows = list(csv.DictReader(halves[1].open(encoding="utf-8")))
    edges = ("2012-01-03", "2012-01-10", "2012-01-17", "2012-01-31")
    return {first: [row for row in rows if first <= row["dteday"] < last] for first, last in pairwise(edges)}


@pytest.fixture(scope="module")
def fed(run_halves: Halves, weeks: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> Fed:
    """Two updates; in the first a day is ten times too large, in the second it is right, and an earlier week comes."""
    folder = tmp_path_factory.mktemp("feedback")
    product = Product(run_halves.copied(1, folder / "workspace"))
    late, soon = weeks["2012-01-03"], weeks["2012-01-10"]
    answers = {"start": product.call("feedback", "show", "--at", "2012-01-05", "--json")}
    broken = write(folder / "broken.csv", [*soon[:5], {**soon[5], "hum": "much"}])
    answers["broken"] = product.call("feedback", "update", broken)
    answers["twice"] = product.call("feedback", "update", write(folder / "twice.csv", [*soon, times(2, soon[30])]))
    poisoned = [times(10, row) if row["dteday"] == "2012-01-12" else row for row in soon]
    write(folder / "one" / "b.csv", poisoned[:90][::-1])
    write(folder / "one" / "a.csv", [*poisoned[80:100], *poisoned[104:]])
    answers["untouched"] = product.call("history", "--json")
    answers["first"] = product.call("feedback", "update", str(folder / "one"), "--json")
    both = write(folder / "both.csv", [*late, *soon, *late[:30]])
    answers["second"] = product.call("feedback", "update", both, "--json")
    answers["again"] = product.call("feedback", "update", both)
    for name, words in {
        "shown": ("feedback", "show", "--at", "2012-01-20", "--json"),
        "stale": ("feedback", "show", "--at", "2012-02-20"),
        "models": ("models", "--json"),
        "history": ("history", "--json"),
        "verify": ("verify", "--json"),
        "lineage": ("lineage",),
        "run": ("run", "--json"),
        "explain": ("explain-run", "--output", str(folder / "run.html")),
        "back": ("feedback", "rollback", "--reason", "a test", "--json"),
        "not promoted": ("feedback", "update", both, "--json"),
        "back to the start": ("feedback", "rollback", "--json"),
        "no further": ("feedback", "rollback"),
    }.items():
        answers[name] = product.call(*words)
    for name, called in answers.items():
        assert called.code == {"broken": 4, "twice": 4, "no further": 11}.get(name, 0), (name, called.out, called.err)
    versions = (answers["first"].result["before"], *(answers[name].result["version"] for name in ("first", "second")))
    return Fed(product, answers, versions, weeks)


def test_a_bad_upload_changes_nothing_and_says_why(fed: Fed) -> None:
    assert "1 of 6 rows break the feature contract; the first, line 7" in fed.answers["broken"].err
    assert "hum" in fed.answers["broken"].err
    row = fed.rows["2012-01-10"][30]
    assert (
        f"{row['dteday']} {int(row['hr']):02d}:00 stands there twice, with cnt {row['cnt']}" in fed.answers["twice"].err
    )
    assert [change["to_version"] for change in fed.answers["untouched"].result if change["label"]][-1] == fed.versions[
        0
    ]
    assert [change["from_version"] for change in fed.answers["history"].result][-1] == fed.versions[1]


def test_late_repeated_missing_and_corrected_hours_are_counted(fed: Fed) -> None:
    late, soon = (len(fed.rows[first]) for first in ("2012-01-03", "2012-01-10"))
    first, second = (fed.answers[name].result for name in ("first", "second"))
    assert first["counts"] == {"new": soon - 4, "corrected": 0, "known": 0, "trained": 0, "too_old": 0}
    assert second["counts"] == {"new": late + 4, "corrected": 24, "known": soon - 28, "trained": 0, "too_old": 0}
    assert [day["day"] for day in first["outlier_days"]] == ["2012-01-12"]
    assert first["outlier_days"][0]["rentals"] > 8 * first["outlier_days"][0]["expected"]
    assert "2012-01-12" not in [day["day"] for day in second["outlier_days"]]
    assert second["last"] == "2012-01-16T23:00"
    assert "nothing new" in fed.answers["again"].out
    assert len(fed.registry.versions()) == 3


def test_errors_fall_and_every_format_answers_alike(fed: Fed, tmp_path: Path) -> None:
    rows = write(tmp_path / "next.csv", fed.rows["2012-01-17"])
    formats = ["tflite_float32", "c_source"]
    done = fed.product.python(ANSWERS.format(rows=rows, versions=list(fed.versions), formats=formats))
    assert done.code == 0, done.err
    start, poisoned, right = (json.loads(done.out)[str(version)] for version in fed.versions)
    assert right["mae"] < 0.97 * start["mae"]
    # A day that is ten times too large moves the level by less than a tenth.
    assert poisoned["mae"] < 1.1 * start["mae"]
    for found in (start, poisoned, right):
        assert all(found[name] <= 1e-5 for name in formats), found


def test_the_version_is_one_of_its_model_for_every_question(fed: Fed) -> None:
    newest, model_id = fed.versions[-1], fed.registry.push_record(fed.versions[0])["model_id"]  # type: ignore[index]
    served = [(m["model_id"], m["served_version"], m["serving"]) for m in fed.answers["models"].result]
    assert served == [(model_id, newest, True)]
    assert all(check["passed"] for check in fed.answers["verify"].result["checks"])
    assert "labels to 2012-01-16 23:00 came in" in fed.answers["history"].result[-1]["reason"]
    text = fed.answers["lineage"].out
    assert f"served as version {newest} (serving now)" in text
    for expected in ("feedback", "2 updates", "FeedbackUpdate", "Labels", "Trainer"):
        assert expected in text
    assert "2 updates" in (fed.product.workspace.parent / "run.html").read_text(encoding="utf-8")
    assert fed.answers["run"].result["pushed_version"] is not None
    assert set(fed.answers["run"].states.values()) == {"cached"}
    shown: dict[str, Any] = fed.answers["shown"].result
    assert (shown["version"], shown["updates"], shown["as_of"], shown["weight"]) == (newest, 2, "2012-01-16T23:00", 1.0)
    assert fed.answers["start"].result["updates"] == 0
    assert "stale: labels are 34 days old; the level has waned to" in fed.answers["stale"].out


def test_the_way_back_restores_the_very_model_and_the_same_labels_do_not_undo_it(fed: Fed) -> None:
    start, first, second = fed.versions
    assert (fed.answers["back"].result["from_version"], fed.answers["back"].result["to_version"]) == (second, first)
    again = fed.answers["not promoted"].result
    assert again["not_promoted"].startswith("not promoted again")
    assert again["version"] == second
    assert fed.answers["back to the start"].result["to_version"] == start == fed.registry.serving()
    assert fed.registry.fingerprint(start) == fed.registry.push_record(start)["fingerprint"]  # type: ignore[index]
    assert "there are no labels to go back from" in fed.answers["no further"].err
    for version in fed.versions:
        fed.registry.require_sound(version)


def test_killed_at_any_point_the_old_or_the_new_version_serves(
    run_halves: Halves, weeks: dict[str, list[Row]], tmp_path: Path
) -> None:
    product = Product(run_halves.copied(1, tmp_path / "workspace"))
    registry = ModelRegistry(product.workspace / "serving" / "bike_demand")
    start, labels = registry.serving(), write(tmp_path / "labels.csv", weeks["2012-01-03"])
    for place, count in {"before the push": 1, "after the push": 2, "before the promotion": 2}.items():
        killed = product.python(KILLED.format(place=place, labels=labels))
        assert killed.code == -signal.SIGKILL, killed.err
        assert (len(registry.versions()), registry.serving()) == (count, start), place
        assert product.call("predict", json.dumps(_asked(weeks))).code == 0
    orphan, other = registry.versions()[-1], write(tmp_path / "other.csv", weeks["2012-01-10"])
    by_hand = product.call("feedback", "update", other, "--json", "--set", "serving.promotion.automatic=false")
    assert by_hand.code == 0, by_hand.err
    assert (by_hand.result["before"], by_hand.result["waiting"]) == (start, [orphan])
    assert by_hand.result["not_promoted"].startswith("not promoted: `bike-pipeline promote`")
    assert registry.serving() == start
    done = product.call("feedback", "update", labels, "--json")
    assert done.code == 0, done.err
    assert (done.result["version"], done.result["waiting"]) == (orphan, [by_hand.result["version"]])
    assert registry.versions() == [start, orphan, by_hand.result["version"]]
    assert registry.serving() == done.result["version"]
    (model,) = product.call("models", "--json").result
    assert (model["served_version"], model["serving"]) == (done.result["version"], True)


def _asked(weeks: dict[str, list[Row]]) -> Row:
    left_out = ("instant", "season", "yr", "mnth", "weekday", "workingday", "casual", "registered", "cnt")
    return {name: value for name, value in weeks["2012-01-17"][0].items() if name not in left_out}
