"""The benchmark's arithmetic and its verdict, on figures made up for the test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import end_to_end
from benchmarks.end_to_end import AGAIN, OURS, PLAIN, Timing


def _timings(ours: float, plain: float) -> dict[str, list[Timing]]:
    return {
        OURS: [Timing(ours, ours, 900.0), Timing(2 * ours, 2 * ours, 950.0)],
        PLAIN: [Timing(plain, plain, 1200.0), Timing(2 * plain, 2 * plain, 1300.0)],
        AGAIN: [Timing(1.0, 1.0, 500.0), Timing(1.0, 1.0, 500.0)],
    }


def _run(monkeypatch: pytest.MonkeyPatch, ours: float, plain: float, mae: tuple[float, float]) -> int:
    stages = {OURS: {"Trainer": 1.0}, PLAIN: {"Trainer": 3.0, "resolver": 0.1}}
    monkeypatch.setattr(end_to_end, "measure", lambda runs, folder: (_timings(ours, plain), stages, mae))
    return end_to_end.main(["--runs", "2"])


def test_ratios_are_taken_pair_by_pair() -> None:
    ours = [Timing(10, 4, 1), Timing(30, 6, 1)]
    plain = [Timing(40, 8, 1), Timing(60, 24, 1)]
    cpu, wall = end_to_end.compare(ours, plain)
    assert cpu.ratios == (0.5, 0.25)
    assert wall.ratios == (0.25, 0.5)
    assert cpu.median == 0.375


def test_goal_reached(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, 20.0, 50.0, (30.0, 29.0)) == 0
    out = capsys.readouterr().out
    assert "wall ours / plain: 0.40 (pairs 0.40, 0.40); goal 0.5: reached" in out
    assert "resolver" in out


def test_goal_missed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, 40.0, 50.0, (30.0, 29.0)) == 1
    assert "MISSED" in capsys.readouterr().out


def test_a_broken_peer_is_no_comparison(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, 20.0, 50.0, (30.0, 90.0)) == 1
    assert "mean" in capsys.readouterr().err


def test_figures_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stages = {OURS: {"Trainer": 1.0}, PLAIN: {"Trainer": 3.0}}
    monkeypatch.setattr(end_to_end, "measure", lambda runs, folder: (_timings(20, 50), stages, (30.0, 29.0)))
    target = tmp_path / "figures.json"
    end_to_end.main(["--runs", "2", "--json", str(target)])
    assert '"wall": [\n      0.4' in target.read_text(encoding="utf-8")


def test_a_failing_process_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    with pytest.raises(SystemExit, match=r"output\.log"):
        end_to_end.timed(["false"], log)


def test_cpu_time_of_children_counts(tmp_path: Path) -> None:
    busy = ["sh", "-c", f"{sys.executable} -c 'sum(i * i for i in range(2_000_000))'"]
    assert end_to_end.timed(busy, tmp_path / "log").cpu > 0.01


def test_no_runs_is_refused() -> None:
    with pytest.raises(SystemExit):
        end_to_end.main(["--runs", "0"])
