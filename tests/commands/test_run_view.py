from __future__ import annotations

import io
import math
import re
from collections import Counter

import pytest
from rich.console import Console

from bike_pipeline.commands import run_view, shared
from bike_pipeline.modeling import evaluation
from bike_pipeline.modeling.paired_bootstrap import Change
from bike_pipeline.run_events import RunResult, StageResult
from bike_pipeline.settings import load_settings

GOOD = {"mae": 40.0, "rmse": 60.0, "rmsle": 0.4, "bias": 0.05, "calibration": 1.05, "rows": 3000.0}
DONE = StageResult("Trainer", 4, "done", 7.25, "model of [12] kB")
FAILED = StageResult("Evaluator", 5, "failed", 1.0, "it broke")


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120, height=40, legacy_windows=False)


def shown(console):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def last_frame(console):
    text = shown(console)
    return text[text.rindex("stage ") :]


def play(view):
    with view as observer:
        observer.loading()
        observer.planned(["Trainer", "Evaluator", "Pusher"])
        observer.started("Trainer")
        observer.progressed("Trainer", 0.5, "epoch 6 of 12")
        observer.finished(DONE)
        observer.started("Evaluator")
        observer.finished(FAILED)


def test_lines_are_one_a_finished_stage():
    console = shared.console_on(io.StringIO())
    play(run_view.view_on(console))
    lines = shown(console).splitlines()
    assert lines[1] == "3 stages: Trainer → Evaluator → Pusher"
    assert [line.split(maxsplit=4) for line in lines[2:]] == [
        ["Trainer", "done", "7.2", "s", "model of [12] kB"],
        ["Evaluator", "failed", "1.0", "s", "it broke"],
    ]


def test_the_silent_view_says_nothing():
    console = shared.console_on(io.StringIO())
    play(run_view.view_on(console, silent=True))
    assert shown(console) == ""


def test_the_table_ends_with_the_state_of_every_stage():
    console = terminal()
    play(run_view.view_on(console))
    rows = [line.rstrip() for line in last_frame(console).splitlines() if line.strip()]
    assert len(rows) == 4
    assert re.fullmatch(r"✔ Trainer +done +7\.2 +model of \[12\] kB", rows[1])
    assert re.fullmatch(r"✘ Evaluator +failed +1\.0 +it broke", rows[2])
    assert re.fullmatch(r"· Pusher +waiting", rows[3])


def test_the_table_shows_what_a_stage_is_doing_and_survives_an_error():
    console = terminal()
    view = run_view.TableView(console)

    def work():
        with view:
            view.planned(["Trainer", "Pusher"])
            view.started("Trainer")
            view.progressed("Trainer", 0.5, "epoch 6 of 12")
            console.print(view._render())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert re.search(r"▶ Trainer +running +\d+\.\d +━━━━━╌╌╌╌╌ epoch 6 of 12", shown(console))
    # The cursor is visible again.
    assert console.file.getvalue().rindex("\x1b[?25h") > console.file.getvalue().rindex("\x1b[?25l")


def test_the_table_shows_every_stage_that_runs_and_what_each_is_doing():
    console = terminal()
    view = run_view.TableView(console)
    with view:
        view.planned(["Trainer", "Evaluator", "Pusher"])
        view.started("Trainer")
        view.started("Evaluator")
        view.progressed("Evaluator", 0.2, "reading")
        view.progressed("Trainer", 0.5, "epoch 6 of 12")
        console.print(view._render())
        both = last_frame(console)
        view.finished(DONE)
        console.print(view._render())
        one = last_frame(console)
        view.finished(FAILED)
    assert re.search(r"▶ Trainer +running +\d+\.\d +━━━━━╌╌╌╌╌ epoch 6 of 12", both)
    assert re.search(r"▶ Evaluator +running +\d+\.\d +━━╌╌╌╌╌╌╌╌ reading", both)
    assert re.search(r"✔ Trainer +done +7\.2 +model", one)
    assert re.search(r"▶ Evaluator +running", one)
    assert "running" not in last_frame(console)


def test_without_a_terminal_nothing_is_cut():
    stream = io.StringIO()
    shared.console_on(stream).print("x" * 150)
    assert stream.getvalue() == "x" * 150 + "\n"


def report(candidate, baseline, changes=None):
    settings = load_settings().evaluation
    decisions = evaluation.decide(settings, candidate, baseline, 100.0, changes)
    state = {"reason": "nothing is served yet" if baseline is None else "version 17"}
    told = evaluation.report(settings, decisions, candidate, baseline, state, {"hourly mean": 100.0}, None)
    return RunResult("run-1", (), None, False, told, "")


def measured(**changed):
    keys = [("hour_band", str(start)) for start in (0, 6, 10, 16, 20)]
    keys += [(slicing, value) for slicing in ("workingday", "season") for value in ("1",)]
    return {key: {**GOOD, **changed} for key in [("overall", ""), *keys, ("weathersit", "4")]}


def rendered(result):
    console = Console(file=io.StringIO(), width=160)
    console.print(run_view.result_tables(result))
    return shown(console)


def test_the_result_without_a_baseline_shows_the_candidate_alone():
    text = rendered(report(measured(), None))
    assert "nothing is served yet" in text
    header = next(line for line in text.splitlines() if line.startswith("rows of the eval split"))
    assert header.split()[5:] == ["rows", "MAE", "RMSE", "RMSLE", "bias"]
    overall = next(line for line in text.splitlines() if line.startswith("overall"))
    assert overall.split() == ["overall", "3,000", "40.0", "60.0", "0.400", "+5.0%"]
    assert "against the baseline," not in text
    assert "worst slice of those that decide: mae, hours 0-5: 40 on 3,000 rows" in text
    assert "✘" not in text


def test_the_result_with_a_baseline_shows_both_and_what_failed_first():
    candidate = measured(mae=70.0)
    candidate["weathersit", "4"] |= {"mae": 500.0, "rows": 3.0}
    baseline = measured(mae=50.0)
    del baseline["weathersit", "4"]
    text = rendered(report(candidate, baseline))
    overall = next(line for line in text.splitlines() if line.startswith("overall"))
    assert overall.split()[1:4] == ["3,000", "70.0", "50.0"]
    # The worst slice comes first, and a slice that the baseline lacks has no number there.
    worst = text.splitlines()[text.splitlines().index(overall) + 1]
    assert re.match(r"weather heavy rain or snow +3 +500\.0 +- ", worst)
    gates = text[text.index("gates") :].splitlines()[1:]
    marks = [line.split()[0] for line in gates]
    assert marks == sorted(marks, key="✘✔·".index)
    assert "✘ failed  mae against the baseline, overall: +40.0 %, at most +2 %" in text
    assert re.search(
        r"· note .*mae against the baseline, weather heavy rain or snow: nan, at most \+10 % \(only 3 rows: reported\)",
        text,
    )


def test_changes_are_shown_with_their_intervals_and_what_these_say():
    candidate, baseline = measured(mae=51.0), measured(mae=50.0)
    candidate["weathersit", "3"] = {**GOOD, "mae": 120.0, "rows": 113.0}
    baseline["weathersit", "3"] = {**GOOD, "mae": 50.0, "rows": 113.0}
    changes = {
        ("overall", ""): {"mae": Change(math.log(1.02), 0.02, 11, 7)},
        ("weathersit", "3"): {"mae": Change(math.log(2.4), 0.16, 11, 1)},
        ("hour_band", "6"): {"mae": Change(math.log(1.02), 0.001, 11, 7)},
    }
    lines = [line for line in rendered(report(candidate, baseline, changes)).splitlines() if line.strip()]
    title = lines.index("change against the baseline, its 90% interval by weeks or days, and what that says")
    shown_rows = [re.split(r"  +", line.strip()) for line in lines[title + 1 : title + 4]]
    assert shown_rows == [
        ["MAE overall", "+2.0%", "-1.6% to +5.8%", "11 weeks", "no clear difference"],
        ["MAE weather light rain or snow", "+140.0%", "+79.6% to +220.7%", "11 days", "worse"],
        ["MAE hours 6-9", "+2.0%", "+1.8% to +2.2%", "11 weeks", "worse"],
    ]
    worst = "mae against the baseline, weather light rain or snow: +140.0 % (+79.6 to +220.7 %: worse), at most +50 %"
    assert lines[title + 4].startswith(f"worst slice of those that decide: {worst}")
    assert any(line.startswith(f"✘ failed  {worst}") for line in lines)


def test_a_slice_that_got_better_is_not_called_the_worst():
    candidate, baseline = measured(mae=40.0), measured(mae=50.0)
    changes = {("overall", ""): {"mae": Change(math.log(0.8), 0.02, 11, 7)}}
    text = rendered(report(candidate, baseline, changes))
    assert "the slice that got least better, of those that decide: mae against the baseline" in text
    assert "worst slice" not in text


def test_in_a_narrow_terminal_numbers_are_folded_and_never_cut():
    result = report(measured(mae=1270.5, rmse=1260.5), measured(mae=1150.5, rmse=1140.5))

    def at(width):
        console = Console(file=io.StringIO(), width=width)
        console.print(run_view.result_tables(result))
        return shown(console)

    wide = at(160)
    for width in (50, 60, 80):
        assert "…" not in at(width)
        assert Counter(filter(str.isalnum, at(width))) == Counter(filter(str.isalnum, wide))
    assert re.search(r"^overall +3,000 +1270\.5 +1150\.5 +1260\.5 +1140\.5 ", at(80), re.MULTILINE)


def test_brackets_in_paths_and_reasons_are_printed_as_they_are():
    stream = io.StringIO()
    shared.console_on(stream).print("/data/[old]/spans :bike: [bold]")
    assert stream.getvalue() == "/data/[old]/spans :bike: [bold]\n"
