"""`bike-pipeline predict --server`: the command line against a model server."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bike_pipeline.errors import ExitCode
from tests.serving.clients.scripted import error, outputs, over_grpc, prediction, rest

RECORD = {"dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1, "temp": 0.6, "atemp": 0.58, "hum": 0.5}
RECORD["windspeed"] = 0.2


def predict(*arguments, stdin=""):
    """Run the command in a process of its own, which fails where TensorFlow was imported."""
    code = (
        "import sys\n"
        "from bike_pipeline import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    assert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, "predict", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_server_answers(protocol, tmp_path):
    answer = {"rest": lambda: rest(outputs(350.126, 2)), "grpc": lambda: over_grpc(prediction(350.126, 2))}
    table = tmp_path / "rows.csv"
    lines = [",".join(map(str, row.values())) for row in (RECORD, {**RECORD, "hr": 3})]
    table.write_text("\n".join([",".join(RECORD), *lines]), encoding="utf-8")
    with answer[protocol]() as server:
        options = ["--server", f"127.0.0.1:{server.port}", "--protocol", protocol]
        done = predict(*options, json.dumps([RECORD, {**RECORD, "hr": 3}]))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["350.13", "2.0"]
        done = predict(*options, str(table))
        assert done.stdout.splitlines()[0].endswith(",predicted_cnt")
        assert [line.rpartition(",")[2] for line in done.stdout.splitlines()[1:]] == ["350.13", "2.00"]
        done = predict(*options, "--json", "--label", "stable", stdin=table.read_text(encoding="utf-8"))
        assert [json.loads(line)["predicted_cnt"] for line in done.stdout.splitlines()] == [350.13, 2.0]
    assert len(server.asked) == 3
    assert "stable" in str(server.asked[2])


def before(tmp_path, *rows):
    """Write records of hours of 1 June 2012 with their rentals."""
    path = tmp_path / "before.json"
    path.write_text(json.dumps([{**RECORD, "hr": hour, "cnt": rentals} for hour, rentals in rows]), encoding="utf-8")
    return str(path)


def test_the_rentals_of_the_hours_before_move_an_answer(tmp_path):
    # The server expects 100 of whatever hour it is asked about.
    with rest(outputs(100.0)) as server:
        options = ["--server", f"127.0.0.1:{server.port}"]
        done = predict(*options, "--last-day", before(tmp_path, (7, 210)), json.dumps(RECORD))
        assert (done.returncode, done.stderr) == (0, "")
        # Labels over answers with 10 added to both: 220 / 110, to the powers of the last hour and of the day.
        assert float(done.stdout) == pytest.approx(100 * 2**0.7, abs=0.01)
        # An hour of another day, and the hour itself, tell nothing of it.
        later = predict(*options, "--last-day", before(tmp_path, (8, 210)), json.dumps(RECORD))
        assert float(later.stdout) == 100.0
        other = predict(
            *options, "--last-day", before(tmp_path, (7, 210)), json.dumps({**RECORD, "dteday": "2012-06-03"})
        )
        assert float(other.stdout) == 100.0


@pytest.mark.parametrize(
    ("row", "record", "said"),
    [
        ({"cnt": None}, {}, "the last day, record 1: cnt: missing"),
        ({"cnt": -3}, {}, "the last day, record 1: cnt"),
        ({"cnt": 5, "hr": 77}, {}, "the last day, record 1: hr"),
        ({"cnt": 5}, {"dteday": None, "yr": 1, "mnth": 6, "weekday": 5, "workingday": 1}, "dteday: missing"),
    ],
)
def test_a_last_day_that_tells_nothing_is_refused(row, record, said, tmp_path):
    path = tmp_path / "before.json"
    path.write_text(json.dumps({**RECORD, "hr": 7, **row}), encoding="utf-8")
    with rest(outputs(100.0)) as server:
        options = ["--server", f"127.0.0.1:{server.port}", "--last-day", str(path)]
        done = predict(*options, json.dumps({**RECORD, **record}))
    assert (done.returncode, done.stdout) == (ExitCode.MODEL, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    absent = predict("--last-day", "nowhere.csv", json.dumps(RECORD))
    assert (absent.returncode, absent.stdout) == (ExitCode.MODEL, "")
    assert "nowhere.csv" in absent.stderr


def test_the_rentals_of_a_day_move_no_probability(tmp_path):
    with rest(outputs(0.5)) as server:
        options = ["--server", f"127.0.0.1:{server.port}", "--set", "training.target=busy"]
        done = predict(*options, "--last-day", before(tmp_path, (7, 210)), json.dumps(RECORD))
    assert (done.returncode, done.stdout) == (ExitCode.CONFIGURATION, "")
    assert "the model answers busy" in done.stderr


def test_a_refusal_is_one_line_and_its_exit_code():
    with rest(error(404, "Servable not found for request: Latest(bike_demand)")) as server:
        done = predict("--server", f"127.0.0.1:{server.port}", json.dumps(RECORD))
    assert done.returncode == ExitCode.SERVER
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Servable not found for request: Latest(bike_demand) (NOT_FOUND)" in done.stderr


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (["--label", "stable"], "--server", ExitCode.USAGE),
        (["--protocol", "grpc"], "--server", ExitCode.USAGE),
        (["--server", "x", "--intervals"], "serving_intervals", ExitCode.USAGE),
        (["--server", "x", "--version", "1", "--label", "y"], "a version and a label", ExitCode.CONFIGURATION),
        (["--server", "ftp://x"], "no address of a model server", ExitCode.CONFIGURATION),
    ],
)
def test_options_that_do_not_fit(options, said, code):
    done = predict(*options, json.dumps(RECORD))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
