"""The benchmark's arithmetic, its verdicts and its picture on made-up figures; and real formats taking turns."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import exports
from benchmarks.exports import C_SOURCE, LITERT, LITERT_INT8, SAVED_MODEL, SIGNATURE, Measured


def _entry(precision: str, **changed: Any) -> dict[str, Any]:
    return {
        "precision": precision,
        "size_bytes": 50_000,
        "parity": {"max_relative_difference": 2e-6},
        "mae": 30.0,
        "mae_increase": 0.004,
        "worst_slice_mae_increase": 0.02,
        "reason": "",
        **changed,
    }


FORMATS = {name: _entry("int8" if name.endswith("int8") else "float32") for name in exports.NEEDED}
SECONDS = {name: [20e-6, 30e-6, 25e-6] for name in exports.NEEDED} | {
    SAVED_MODEL: [400e-6, 600e-6, 500e-6],
    SIGNATURE: [300e-6, 450e-6, 375e-6],
    C_SOURCE: [10e-6, 15e-6, 12e-6],
}


def _measured(**changed: Any) -> Measured:
    measured = Measured(copy.deepcopy(FORMATS), copy.deepcopy(SECONDS))
    for name, entry in changed.items():
        measured.formats[name].update(entry)
    return measured


def _missed(measured: Measured) -> set[str]:
    return {goal.name for goal in exports.goals(measured) if not goal.reached}


def test_all_goals_reached() -> None:
    assert _missed(_measured()) == set()
    names = [goal.name for goal in exports.goals(_measured())]
    assert "saved_model: largest relative difference" not in names
    assert sum(name.endswith("largest relative difference") for name in names) == 4
    assert sum(name.endswith("MAE lost") for name in names) == 3


def test_ratios_are_taken_round_by_round_against_the_faster_way_to_call_the_saved_model() -> None:
    found = {goal.name: goal for goal in exports.goals(_measured())}
    assert found["SavedModel from Python / LiteRT"].figures == pytest.approx((15.0, 15.0, 15.0))
    assert found["C source / LiteRT: one row"].figures == pytest.approx((0.5, 0.5, 0.48))


@pytest.mark.parametrize(
    ("name", "entry", "goal"),
    [
        (LITERT, {"parity": {"max_relative_difference": 1.1e-5}}, "tflite_float32: largest relative difference"),
        (LITERT_INT8, {"mae_increase": 0.0101}, "tflite_int8: MAE lost"),
        (LITERT_INT8, {"worst_slice_mae_increase": 0.031}, "tflite_int8: MAE lost, worst slice"),
        (LITERT, {"size_bytes": 400_001}, "LiteRT float32: size"),
        (LITERT_INT8, {"size_bytes": 280_001}, "LiteRT int8: size"),
    ],
)
def test_each_goal_can_be_missed(name: str, entry: dict[str, Any], goal: str) -> None:
    assert _missed(_measured(**{name: entry})) == {goal}


@pytest.mark.parametrize(
    ("name", "seconds", "goal"),
    [
        (LITERT, [32e-6] * 3, "SavedModel from Python / LiteRT"),
        (SIGNATURE, [190e-6] * 3, "SavedModel from Python / LiteRT"),
        (C_SOURCE, [31e-6] * 3, "C source / LiteRT: one row"),
    ],
)
def test_each_goal_of_speed_can_be_missed(name: str, seconds: list[float], goal: str) -> None:
    measured = _measured()
    measured.seconds[name] = seconds
    assert goal in _missed(measured)


def test_a_slower_machine_reaches_the_same_goals() -> None:
    measured = _measured()
    for name, seconds in SECONDS.items():
        measured.seconds[name] = [10 * value for value in seconds]
    assert _missed(measured) == set()


@pytest.mark.parametrize("name", exports.NEEDED)
def test_a_needed_format_that_is_not_there_misses_its_goals(name: str) -> None:
    measured = _measured()
    del measured.formats[name]
    del measured.seconds[name]
    missed = _missed(measured)
    # The SavedModel is what others are held against: without it the faster way to call it is still a comparison.
    assert missed if name != SAVED_MODEL else not missed
    assert all("not measured" in goal.cells()[1] for goal in exports.goals(measured) if goal.name in missed)


def test_a_format_whose_extra_is_not_installed_is_told_and_no_goal() -> None:
    measured = _measured()
    measured.formats["torch_export"] = {"precision": "float32", "size_bytes": None, "reason": "torch is not installed"}
    assert _missed(measured) == set()
    assert "torch_export             not measured: torch is not installed" in exports.format_table(measured)


def test_a_figure_that_is_no_number_is_no_pass() -> None:
    assert _missed(_measured(**{LITERT_INT8: {"mae_increase": float("nan")}})) == {"tflite_int8: MAE lost"}


def test_figures_verdicts_and_picture_are_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target, picture = tmp_path / "results" / "exports.json", tmp_path / "results" / "exports.png"
    monkeypatch.setattr(exports, "measure", lambda rounds, folder: _measured())
    assert exports.main(["--json", str(target), "--plot", str(picture)]) == 0
    assert "MISSED" not in capsys.readouterr().out
    assert all(goal["reached"] for goal in json.loads(target.read_text(encoding="utf-8"))["goals"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(exports, "measure", lambda rounds, folder: _measured(tflite_int8={"size_bytes": 290_000}))
    assert exports.main([]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("LiteRT int8: size"))
    assert line.split()[3:] == ["at", "most", "280.0", "kB", "290.0", "kB", "MISSED"]


def test_no_rounds_are_refused() -> None:
    with pytest.raises(SystemExit):
        exports.main(["--rounds", "0"])


def test_real_formats_take_turns_on_one_core(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bike_pipeline.exporting.acceptance import measurements
    from bike_pipeline.exporting.formats import registry
    from bike_pipeline.exporting.formats.base import Source

    monkeypatch.setattr(measurements, "SECONDS", 0.01)
    for name in (SAVED_MODEL, LITERT):
        (tmp_path / name).mkdir()
        registry.format_of(name).export(Source(exported.path, {}), tmp_path / name)
    assert exports.main(["--turns", str(tmp_path), "--rounds", "2", SAVED_MODEL, LITERT]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: len(values) for name, values in found.items()} == {SAVED_MODEL: 2, LITERT: 2, SIGNATURE: 2}
    assert all(value > 0 for values in found.values() for value in values)
