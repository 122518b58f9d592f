from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bike_pipeline import __version__, cli, errors
from bike_pipeline.errors import BikePipelineError, ExitCode
from bike_pipeline.model_registry import ModelRegistry, layout

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "absl", "apache_beam", "grpc", "keras", "ml_metadata", "numpy", "pandas", "pyarrow", "pydantic", "rich",
    "sqlalchemy", "tensorflow", "tensorflow_data_validation", "tensorflow_model_analysis", "tensorflow_transform",
    "tfx", "yaml",
}  # fmt: skip
ERROR_CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
CODES = {
    "BikePipelineError": 1, "ConfigurationError": 3, "DataError": 4, "DataGateError": 5, "NotPushedError": 6,
    "BusyError": 7, "StorageError": 8, "MissingExtraError": 9, "StageError": 10, "ModelError": 11, "MetadataError": 12,
    "BaselineError": 13, "InstallationError": 14, "ClusterError": 15,
    "VerificationError": 16, "TrackingError": 17, "ExportError": 18, "EdgeError": 19, "ServerError": 20,
    "MonitoringError": 21, "ChangedError": 22, "NotJudgedError": 23,
}  # fmt: skip


def all_commands(command=cli.command, path=()):
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from all_commands(command.get_command(context, name), (*path, name))


@pytest.fixture
def call(monkeypatch, capfd):
    """Call the command line in this process, as the installed program does; give code, output and errors."""
    monkeypatch.delenv("BIKE_PIPELINE_DEBUG", raising=False)

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["bike-pipeline", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def failing(monkeypatch):
    """Make `bike-pipeline fail` a command that raises what it is given."""

    def install(error):
        @click.command()
        def command():
            raise error

        module = types.ModuleType("bike_pipeline.commands.fail")
        module.fail_command = command
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.GROUPS, "Fail", {"fail": "Fail."})
        monkeypatch.setitem(cli.COMMANDS, "fail", "Fail.")

    return install


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_command_has_its_help(path):
    done = CliRunner().invoke(cli.command, [*path, "--help"])
    assert done.exit_code == 0, done.output
    lines = [line.strip() for line in done.output.splitlines() if line.strip()]
    assert lines[0].startswith("Usage:")
    # After the usage a sentence says what the command does.
    assert len(lines[1]) > 10
    assert "--help" in done.output


def test_the_list_of_commands_and_their_modules_agree():
    for name, sentence in cli.COMMANDS.items():
        command = cli.command.get_command(click.Context(cli.command), name)
        assert isinstance(command, click.Command)
        assert command.help
        assert sentence.endswith(".")
    written = CliRunner().invoke(cli.command, ["--help"]).output
    assert all(name in written for name in cli.COMMANDS)


def test_help_groups_the_commands_by_the_life_of_a_model():
    written = CliRunner().invoke(cli.command, ["--help"], terminal_width=120).output
    title, found = "", {}
    for line in written[written.index("Data:") :].splitlines():
        if line.startswith("  "):
            name, sentence = line.split(maxsplit=1)
            assert cli.COMMANDS[name] == sentence
            found[title].append(name)
        elif line:
            title = line.rstrip(":")
            found[title] = []
    assert list(found) == [
        "Data",
        "Train",
        "Models",
        "Lineage",
        "Serve",
        "Release",
        "Monitor",
        "Retrain",
        "Edge",
        "Cluster",
        "Set-up",
    ]
    assert [name for names in found.values() for name in names] == list(cli.COMMANDS)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom bike_pipeline import cli\n"
        "paths = [p.split() for p in sys.argv[1].split('|')]\n"
        "for path in paths:\n    assert CliRunner().invoke(cli.command, [*path, '--help']).exit_code == 0, path\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    paths = "|".join(" ".join(path) for path in all_commands())
    done = subprocess.run(
        [sys.executable, "-c", code, paths], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(done.stdout.split())
    assert "click" in imported
    assert imported & HEAVY == set()


def test_the_version_is_told(call):
    assert call("--version") == (0, f"bike-pipeline, version {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launch"], "No such command 'launch'"),
        (["run", "--nothing"], "No such option"),
        (["run", "--demo", "third"], "Invalid value for '--demo'"),
        (["data", "ingest"], "Missing argument 'SOURCE'"),
        (["predict", "--version", "new", "{}"], "not a valid integer"),
    ],
)
def test_a_wrong_command_line_ends_with_two(call, arguments, said):
    code, out, err = call(*arguments)
    assert code == ExitCode.USAGE == 2
    assert said in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("kind", ERROR_CLASSES, ids=lambda kind: kind.__name__)
def test_each_error_is_one_line_with_its_own_exit_code(call, failing, kind):
    failing(kind("it is wrong", where="file.csv", fix="mend it"))
    code, out, err = call("fail")
    assert code == CODES[kind.__name__]
    assert (out, err) == ("", "error: file.csv: it is wrong. Mend it.\n")


def test_every_exit_code_belongs_to_one_kind_of_error():
    assert {kind.__name__ for kind in ERROR_CLASSES} == set(CODES)
    assert len(set(CODES.values())) == len(CODES)
    assert set(CODES.values()) | {0, 2, 130} == set(ExitCode)


@pytest.mark.parametrize(
    "error", [BikePipelineError("it is wrong"), ZeroDivisionError("by zero"), OSError(5, "broken")]
)
def test_debug_shows_the_traceback_and_keeps_the_line(call, failing, error):
    failing(error)
    plain, debug = call("fail"), call("--debug", "fail")
    assert debug[0] == plain[0] != 0
    assert "Traceback (most recent call last)" in debug[2]
    assert "Traceback" not in plain[2]
    assert debug[2].endswith(plain[2])


def test_what_nobody_foresaw_is_one_line_too(call, failing):
    failing(ZeroDivisionError("by zero"))
    code, _, err = call("fail")
    assert code == ExitCode.UNFORESEEN
    assert err.count("\n") == 1
    assert "ZeroDivisionError: by zero" in err
    assert "--debug" in err


def test_a_store_that_stops_answering_is_told_as_such(call, failing):
    from ml_metadata import errors as mlmd_errors

    failing(mlmd_errors.AbortedError("database is locked\nsecond line"))
    code, _, err = call("fail")
    assert code == ExitCode.METADATA
    assert err.count("\n") == 1
    assert "database is locked" in err


def test_an_error_of_the_system_names_the_file(call, failing):
    failing(PermissionError(13, "Permission denied", "/models/1"))
    code, _, err = call("fail")
    assert code == ExitCode.STORAGE
    assert err == "error: /models/1: Permission denied. Check permissions and free space there.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupted_command_says_so(call, failing, error):
    failing(error)
    code, _, err = call("fail")
    assert code == ExitCode.INTERRUPTED == 130
    assert err.strip().startswith("error: interrupted")
    assert "Traceback" not in err


def test_a_reader_that_went_away_is_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bike_pipeline.cli", "config", "schema"],
            cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.fixture
def served(exported, tmp_path):
    """Options that name a workspace with a served model."""
    ModelRegistry(tmp_path / "serving" / "bike_demand").add(
        exported.path, 3, {"fingerprint": layout.fingerprint(exported.path)}
    )
    return ("--set", f"workspace={tmp_path}")


RECORD = {
    "dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1,
    "temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip


def test_predict_answers_in_the_form_it_was_asked(call, served, tmp_path):
    code, out, err = call("predict", json.dumps(RECORD), *served)
    assert (code, err) == (0, "")
    value = float(out)
    assert value > 0
    for text in (json.dumps(RECORD), "\ufeff" + json.dumps([RECORD])):
        assert call("predict", *served, stdin=text)[1] == out
    table = tmp_path / "records.csv"
    table.write_text(
        "note," + ",".join(RECORD) + "\n" + 'a "b"' + "," + ",".join(map(str, RECORD.values())) + "\n",
        encoding="utf-8-sig",
    )
    (row,) = csv.DictReader(io.StringIO(call("predict", table, *served)[1]))
    assert float(row.pop("predicted_cnt")) == pytest.approx(value, abs=0.006)
    assert row == {"note": 'a "b"', **{name: str(sent) for name, sent in RECORD.items()}}
    answered = json.loads(call("predict", "--json", table, *served)[1])
    assert answered == {**row, "predicted_cnt": value}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{}"], "yr: missing; mnth: missing"),
        (["[]"], "there are no records"),
        (["no-such-file.csv"], "no such file"),
        (["--version", "4", json.dumps(RECORD)], "version 4 is not there"),
        ([json.dumps({**RECORD, "hr": 24})], "hr: 24 is above 23"),
    ],
)
def test_predict_refuses_with_one_line(call, served, arguments, said):
    code, out, err = call("predict", *served, *arguments)
    assert (code, out) == (ExitCode.MODEL, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_predict_reads_a_table_as_an_ingest_does(call, served, tmp_path, packed, monkeypatch):
    fields = {**RECORD, "dteday": "2012-06-01 00:00:00"}
    text = ", ".join(fields) + "\r\n" + ", ".join(map(str, fields.values())) + "\r\n"
    table = tmp_path / ("records.csv.gz" if packed else "records.csv")
    table.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    code, out, err = call("predict", table, *served)
    assert (code, err) == (0, "")
    answers = [row["predicted_cnt"] for row in csv.DictReader(io.StringIO(out))]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table.read_bytes()), encoding="utf-8"))
    assert [row["predicted_cnt"] for row in csv.DictReader(io.StringIO(call("predict", *served)[1]))] == answers
    assert float(answers[0]) == pytest.approx(float(call("predict", json.dumps(RECORD), *served)[1]), abs=0.006)


def test_predict_refuses_what_is_no_text_with_one_line(call, served, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hr\n\xff\xfe\n"), encoding="utf-8"))
    (tmp_path / "records.csv").write_bytes(b"hr\n\xff\xfe\n")
    for arguments, where in (([], "standard input"), ([tmp_path / "records.csv"], "records.csv")):
        code, out, err = call("predict", *arguments, *served)
        assert (code, out) == (ExitCode.MODEL, "")
        assert err.count("\n") == 1
        assert where in err
