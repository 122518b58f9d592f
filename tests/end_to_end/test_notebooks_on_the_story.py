"""The notebooks, every cell, on the workspace of the story: what they show is what is on record."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import ROOT, Called, Product

pytestmark = pytest.mark.slow

# The fewest pictures of each.
PICTURES = {"01_data": 5, "02_lineage": 3, "03_model_and_slices": 4, "04_what_if": 4, "05_exploration": 6}


@pytest.fixture(scope="module")
def executed(story: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Called]:
    """The folder of the executed notebooks and their pages."""
    folder = tmp_path_factory.mktemp("notebooks")
    product: Product = story["product"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "notebooks.py"), "--output", str(folder)],
        env={**os.environ, "BIKE_PIPELINE_WORKSPACE": str(product.workspace)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return folder, Called(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def shown(executed: tuple[Path, Called]) -> dict[str, list[Any]]:
    """Every output by notebook."""
    import nbformat

    folder, called = executed
    assert called.code == 0, called.err
    found = {name: nbformat.read(folder / f"{name}.ipynb", as_version=4) for name in PICTURES}
    return {
        name: [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        for name, notebook in found.items()
    }


def said(outputs: list[Any]) -> str:
    return "\n".join(output.data["text/plain"] for output in outputs)


def test_every_cell_shows_something_and_nothing_else_is_said(
    executed: tuple[Path, Called], shown: dict[str, list[Any]]
) -> None:
    import nbformat

    folder, called = executed
    assert called.err == ""
    for name, outputs in shown.items():
        cells = [c for c in nbformat.read(folder / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]
        assert len(outputs) == len(cells)
        assert {output.output_type for output in outputs} == {"execute_result"}


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_pictures(shown: dict[str, list[Any]], name: str, executed: tuple[Path, Called]) -> None:
    from matplotlib.image import imread

    pictures = [output.data["image/png"] for output in shown[name] if "image/png" in output.data]
    drawings = [output.data["text/html"] for output in shown[name] if "<svg" in output.data.get("text/html", "")]
    assert len(pictures) + len(drawings) >= PICTURES[name]
    for number, picture in enumerate(pictures):
        file = executed[0] / f"{name}-{number}.png"
        file.write_bytes(base64.b64decode(picture))
        pixels = imread(file)[..., :3]
        # Something is drawn, and it does not fill the picture.
        assert 0.002 < (pixels.min(axis=2) < 0.9).mean() < 0.9
    page = (executed[0] / f"{name}.html").read_text(encoding="utf-8")
    assert page.count("<img ") == len(pictures)
    assert not re.search(r"(src|href)=\"https?://", page)


def test_the_data_are_those_of_the_store(shown: dict[str, list[Any]]) -> None:
    text = said(shown["01_data"])
    assert re.search(r"1 version 1\t.*\t6,897\t1,748\t0\t", text)
    assert re.search(r"2 version 1\t.*\t0\t", text)
    # The anomalous upload is told of, with the column that stopped it.
    assert re.search(r"3 version 1\t✘ refused\t\t.*'temp'", text)


def test_the_auditor_sees_a_model_that_is_what_was_pushed(shown: dict[str, list[Any]], story: dict[str, Any]) -> None:
    text = said(shown["02_lineage"])
    serving = next(model for model in story["models"].result if model["serving"])
    assert f"version {serving['served_version']} answers " in text
    assert "Every check passed" in text
    # No public key was named from outside, which is no proof of who pushed.
    assert "held against\tthis workspace's own key" in text
    assert re.search(
        r"code\tbike_pipeline .*, (unchanged|with changes that were not committed|whether .* not known)", text
    )
    # One format of time.
    assert re.search(r"trained\t\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)
    assert not re.search(r"\d{4}-\d\d-\d\dT\d\d:", text)
    assert "✔ the same, 8,645 rows" in text
    assert "✔ the same, 8,734 rows" in text
    for model in story["models"].result:
        assert f"model {model['model_id']}" in text
    drawing = next(o.data["text/html"] for o in shown["02_lineage"] if "<svg" in o.data.get("text/html", ""))
    for stage in ("CsvExampleGen", "Transform", "Trainer", "Evaluator", "Pusher", "span 1 version 1"):
        assert stage in drawing
    # What changed since the first half's model.
    assert "data\t" in text


def test_the_errors_are_those_on_record(shown: dict[str, list[Any]], story: dict[str, Any]) -> None:
    text = said(shown["03_model_and_slices"])
    for model in story["models"].result:
        assert re.search(rf"model {model['model_id']}\t.*\t{model['metrics']['mae']:.1f}\t", text)
    serving = next(model for model in story["models"].result if model["serving"])
    again = re.search(
        r"MAE on record: ([\d.]+) rentals an hour\. Computed now, over [\d,]+ hours: ([\d.]+)\. The same", text
    )
    assert again is not None
    assert float(again[1]) == pytest.approx(serving["metrics"]["mae"], abs=1e-3)


def test_what_was_never_seen_is_said(shown: dict[str, list[Any]], story: dict[str, Any]) -> None:
    text = said(shown["04_what_if"])
    # There are three hours of heavy rain in all of the data.
    assert re.search(r"heavy rain or snow\t✘ \d", text)
    assert "Refused: 41 °C, record 1: temp: 1.043 is above 1" in text
    counted = re.search(r"(\d{4}|, \d{2}:00): (\d+) rentals were counted", text)
    assert counted is not None


def test_the_exploration_tells_of_gaps_faults_and_growth(shown: dict[str, list[Any]], story: dict[str, Any]) -> None:
    text = said(shown["05_exploration"])
    assert text.startswith("165 of 17,544 hours have no row")
    assert "atemp\tstuck at 0.0 °C for a day\t24\t1\t2012-08-17\t2012-08-17" in text
    assert "hum\t0 as stored; the next value is 8.0 %\t22\t1\t2011-03-10\t2011-03-10" in text
    assert "weathersit\tcode 4 hardly occurs\t3\t3\t" in text
    assert "(12 of 12). Rentals change by +63%; inputs with PSI ≥ 0.1: none" in text
    serving = next(model for model in story["models"].result if model["serving"])
    assert f"The model is off by {serving['metrics']['mae']:.1f} rentals an hour" in text
    assert "Thu 2012-11-22\tpublic holiday\t24\t" in text
