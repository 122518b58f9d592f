"""The benchmark's arithmetic, its verdict and its picture, on figures made up for the test; and the floor for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import end_to_end, plots
from benchmarks.end_to_end import AGAIN, EXPORTING, FLOOR, OURS, PLAIN, SECOND, Measured
from benchmarks.processes import Timing, timed

ROOT = Path(__file__).resolve().parents[2]
GOOD = {OURS: 30.0, PLAIN: 29.0, FLOOR: 29.5}
STAGES = {
    OURS: {end_to_end.IMPORTS: 6.0, "Trainer": 1.0, end_to_end.REST: 0.5},
    PLAIN: {end_to_end.IMPORTS: 9.0, "Trainer": 3.0, "latest_blessed_model_resolver": 0.1},
    FLOOR: {end_to_end.IMPORTS: 4.0, "training": 3.0},
}


def _timings(ours: float, plain: float, floor: float, again: float = 1.0) -> dict[str, list[Timing]]:
    return {
        OURS: [Timing(ours, ours, 900.0), Timing(2 * ours, 2 * ours, 950.0)],
        EXPORTING: [Timing(ours, ours, 950.0), Timing(2 * ours, 2 * ours, 990.0)],
        PLAIN: [Timing(plain, plain, 1200.0), Timing(2 * plain, 2 * plain, 1300.0)],
        FLOOR: [Timing(floor, floor, 700.0), Timing(2 * floor, 2 * floor, 700.0)],
        AGAIN: [Timing(again, 0.5, 100.0), Timing(again, 0.5, 100.0)],
        SECOND: [Timing(ours, ours, 900.0)],
    }


def _run(
    monkeypatch: pytest.MonkeyPatch, timings: dict[str, list[Timing]], mae: dict[str, float], *arguments: str
) -> int:
    measured = Measured(timings, STAGES, {"ImportSchemaGen": ("cached", 0.0), "Trainer": ("done", 2.0)}, mae)
    monkeypatch.setattr(end_to_end, "measure", lambda rounds, folder: measured)
    return end_to_end.main(["--rounds", "2", *arguments])


def test_ratios_are_taken_round_by_round() -> None:
    timings = _timings(1.0, 1.0, 1.0)
    timings[OURS] = [Timing(10, 4, 1), Timing(30, 6, 1)]
    timings[PLAIN] = [Timing(40, 8, 1), Timing(60, 24, 1)]
    cpu, wall = end_to_end.verdicts(timings)[:2]
    assert cpu.figures == (0.5, 0.25)
    assert wall.figures == (0.25, 0.5)
    assert cpu.median == 0.375


def test_goals_reached(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, _timings(15.0, 60.0, 10.0), GOOD) == 0
    out = capsys.readouterr().out
    assert "wall, bike-pipeline run / plain TFX: 0.25 (rounds 0.25, 0.25); at most 0.25: reached" in out
    exporting = "bike-pipeline run, with exports / floor (polars + Keras): 1.50 (rounds 1.50, 1.50)"
    assert f"wall, {exporting}; at most 1.5: reached" in out
    assert f"CPU, {exporting}; at most 2: reached" in out
    assert "bike-pipeline run, unchanged / bike-pipeline run: 0.05 (rounds 0.07, 0.03); at most 0.1: reached" in out
    training = next(line for line in out.splitlines() if line.startswith("training"))
    assert training.split()[1:] == ["1.0", "3.0", "3.0"]
    assert "MISSED" not in out
    second = next(line for line in out.splitlines() if line.startswith("Trainer") and "done" in line)
    assert second.split() == ["Trainer", "done", "2.0", "1.0"]


@pytest.mark.parametrize("figures", [(15.0, 59.0, 10.0, 1.0), (15.0, 60.0, 9.9, 1.0), (15.0, 60.0, 10.0, 3.1)])
def test_each_goal_can_be_missed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    figures: tuple[float, float, float, float],
) -> None:
    assert _run(monkeypatch, _timings(*figures), GOOD) == 1
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize("broken", GOOD)
def test_a_broken_contestant_is_no_comparison(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    assert _run(monkeypatch, _timings(15.0, 60.0, 10.0), {**GOOD, broken: 90.0}) == 1
    assert "means nothing" in capsys.readouterr().err


def test_figures_and_picture_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target, picture = tmp_path / "figures.json", tmp_path / "results" / "stages.png"
    _run(monkeypatch, _timings(20, 50, 10), GOOD, "--json", str(target), "--plot", str(picture))
    figures = json.loads(target.read_text(encoding="utf-8"))
    assert figures["verdicts"][1]["figures"] == [0.4, 0.4]
    assert figures["stages"] == STAGES
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_tables_of_the_page_are_written_between_its_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- generated: whole run -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    _run(monkeypatch, _timings(15, 60, 10), GOOD, "--page", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| wall, bike-pipeline run / plain TFX | 0.25 | 0.25, 0.25 | 0.25 | reached |" in text
    assert "| training | 1.0 | 3.0 | 3.0 |" in text
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the marks"):
        _run(monkeypatch, _timings(15, 60, 10), GOOD, "--page", str(page))


def test_the_committed_page_has_the_marks() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert all(page.count(mark) == 1 for mark in end_to_end.MARKS)


def test_the_picture_leaves_no_second_out() -> None:
    for stages in STAGES.values():
        assert sum(plots.parts_of(stages).values()) == pytest.approx(sum(stages.values()))
    with pytest.raises(ValueError, match="Tuner"):
        plots.parts_of({"Tuner": 3.0})


def test_a_failing_process_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    with pytest.raises(SystemExit, match=r"output\.log"):
        timed(["false"], log)


def test_cpu_time_of_children_counts(tmp_path: Path) -> None:
    busy = ["sh", "-c", f"{sys.executable} -c 'sum(i * i for i in range(2_000_000))'"]
    assert timed(busy, tmp_path / "log").cpu > 0.01


def test_no_rounds_are_refused() -> None:
    with pytest.raises(SystemExit):
        end_to_end.main(["--rounds", "0"])


@pytest.mark.slow
def test_the_floor_does_the_same_work(tmp_path: Path) -> None:
    from benchmarks.floor import pipeline as floor
    from bike_pipeline.data.embedded_dataset import split_demo
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.settings import load_settings

    settings = load_settings(assignments=(f"data.store={tmp_path / 'spans'}", "training.epochs=3"))
    ingest(settings, str(split_demo(tmp_path / "uploads")[0]))
    version = SpanStore(settings.store_uri).latest().uri
    (tmp_path / "settings.json").write_text(settings.model_dump_json(), encoding="utf-8")
    command = [sys.executable, str(ROOT / "benchmarks" / "floor" / "pipeline.py"), "--version", version]
    command += ["--settings", str(tmp_path / "settings.json"), "--report", str(tmp_path / "report.json")]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=300)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report["stages"]) == {"imports", "ingest", "statistics", "transform", "training", "evaluation"}
    assert report["metrics"]["overall"][0]["rows"] == 1748
    assert report["metrics"]["overall"][0]["mae"] < 60
    assert set(report["metrics"]) == {"overall", *floor.SLICINGS}
    assert sum(row["rows"] for row in report["metrics"]["hour_band"]) == 1748
    assert report["statistics"]["train"]["temp"]["missing"] == 0
