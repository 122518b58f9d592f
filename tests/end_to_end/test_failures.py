"""What goes wrong for a person: one clear line, an exit code of its own, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import FEW_EPOCHS, Called, Product

# The process may write no file larger than this: what a full disk looks like to every library in it.
SMALL_FILES = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from bike_pipeline import cli
sys.argv = ["bike-pipeline", *{arguments}, "--set", f"workspace={{sys.argv[1]}}"]
cli.main()
"""


@pytest.fixture
def product(tmp_path: Path) -> Product:
    """The product on an empty workspace."""
    return Product(tmp_path / "workspace")


def expect(called: Called, code: int, *parts: str) -> None:
    """Check the exit code, and that standard error is one line that says all of `parts`."""
    assert called.code == code, called.err
    lines = called.err.strip().splitlines()
    assert len(lines) == 1, called.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def test_unknown_setting(product: Product) -> None:
    expect(product.call("run", "--set", "training.epoch=3"), 3, "unknown setting 'training.epoch'", "config schema")


def test_missing_configuration_file(product: Product) -> None:
    expect(product.call("run", "--config", "absent.yaml"), 3, "absent.yaml", "no such configuration file")


def test_setting_of_the_wrong_type(product: Product) -> None:
    expect(product.call("run", "--set", "training.epochs=many"), 3, "training.epochs", "a number")


def test_unknown_runner(product: Product) -> None:
    expect(product.call("run", "--runner", "abacus"), 3, "no runner 'abacus'", "local")


def test_unwritable_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be", encoding="utf-8")
    blocked = Product(tmp_path / "file" / "workspace")
    expect(blocked.call("run"), 8, "file/workspace")
    expect(blocked.call("run", "--demo", "first"), 8, "file/workspace")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a file where a folder should be"


def test_missing_source(product: Product) -> None:
    expect(product.call("data", "ingest", "absent.csv"), 4, "absent.csv")


def test_broken_csv(product: Product, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"\x00\xff\x00 not a table")
    expect(product.call("data", "ingest", str(broken)), 4, "broken.csv")
    assert not list((product.workspace / "spans").glob("span-*"))


def test_wrong_type_in_the_data(product: Product, tmp_path: Path, edited: Callable[..., str]) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(edited(0, lambda row: {**row, "temp": "warm"}), encoding="utf-8")
    expect(product.call("data", "ingest", str(wrong)), 4, "wrong.csv")
    assert not list((product.workspace / "spans").glob("span-*"))


def test_empty_half(product: Product, tmp_path: Path, edited: Callable[..., str]) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text(edited(1, lambda _: None), encoding="utf-8")
    expect(product.call("data", "ingest", str(empty)), 4, "empty.csv")


@pytest.mark.slow
def test_missing_schema(product: Product) -> None:
    expect(product.call("run", "--set", "schema_file=absent.pbtxt"), 3, "absent.pbtxt", "schema_file")


@pytest.mark.slow
def test_run_without_data(product: Product) -> None:
    expect(product.call("run"), 4, "the span store is empty", "data ingest")


@pytest.mark.slow
def test_damaged_span(product: Product, halves: tuple[Path, Path]) -> None:
    assert product.call("data", "ingest", str(halves[0])).code == 0
    data = next((product.workspace / "spans").glob("span-*/version-*/train/*.csv"))
    data.write_text(data.read_text(encoding="utf-8").replace("0.24,", "0.25,", 1), encoding="utf-8")
    expect(product.call("run"), 4, data.name)
    assert not product.versions()


@pytest.mark.slow
def test_too_short_a_half(product: Product, tmp_path: Path, edited: Callable[..., str]) -> None:
    short = tmp_path / "short.csv"
    week = [f"2012-03-0{day}" for day in range(1, 8)]
    short.write_text(edited(1, lambda row: row if row["dteday"] in week else None), encoding="utf-8")
    assert product.call("data", "ingest", str(short)).code == 0
    expect(product.call("run"), 5, "fewer than", "gate.min_rows")
    assert not product.versions()


@pytest.mark.slow
def test_a_half_whose_every_label_is_150_is_never_trained_on(
    product: Product, tmp_path: Path, edited: Callable[..., str], halves: tuple[Path, Path]
) -> None:
    assert product.call("data", "ingest", str(halves[0])).code == 0
    constant = tmp_path / "constant.csv"
    constant.write_text(edited(1, lambda row: {**row, "casual": "30", "registered": "120", "cnt": "150"}), "utf-8")
    assert product.call("data", "ingest", str(constant)).code == 0
    expect(product.call("run"), 5, "'cnt' in train: the label is nearly constant", "gate.limits.label_variation")
    assert not product.versions()
    assert not (product.workspace / "artifacts" / "Trainer").exists()


@pytest.mark.slow
def test_a_model_without_numbers_is_not_blessed_and_its_table_says_so(product: Product) -> None:
    ruined = ("--set", "training.learning_rate=1e30", "--set", "training.epochs=1")
    run = product.call("run", "--demo", "first", *ruined)
    expect(run, 6, "not blessed")
    assert "MAE not a number, RMSE not a number: NOT blessed" in run.out
    assert "✘ failed  mae, overall: nan, at most 45" in run.out
    assert not product.versions()
    page = product.call("explain-run")
    assert page.code == 0, page.err


@pytest.mark.slow
def test_full_disk(product: Product, halves: tuple[Path, Path]) -> None:
    ingest = SMALL_FILES.format(limit=50_000, arguments=["data", "ingest", str(halves[0])])
    expect(product.python(ingest), 8)
    assert not list((product.workspace / "spans").glob("span-*"))
    assert product.call("data", "ingest", str(halves[0])).code == 0
    # Room for the examples, none for the records of a whole run or the model.
    expect(product.python(SMALL_FILES.format(limit=300_000, arguments=["run"])), 8)
    assert not product.versions()
    assert product.call("run", "--json", "--set", FEW_EPOCHS).code == 0


def test_nothing_is_served_yet(product: Product) -> None:
    expect(product.call("models"), 12, "no metadata store", "bike-pipeline run")
    expect(product.call("runs"), 12, "no metadata store")
    record = (
        '{"dteday": "2012-06-01", "hr": 17, "holiday": 0, "weathersit": 1, '
        '"temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2}'
    )
    expect(product.call("predict", record), 11, "no model is served", "bike-pipeline run")
    expect(product.call("predict", '{"hr": 25}'), 11, "hr: 25 is above 23", "yr: missing")
    expect(product.call("predict", record.replace("17", "25")), 11, "hr: 25 is above 23")


@pytest.mark.slow
def test_damaged_metadata_store(product: Product) -> None:
    product.workspace.mkdir()
    product.workspace.joinpath("metadata.sqlite").write_bytes(b"not a database" * 100)
    expect(product.call("runs"), 12, "cannot open the metadata store")
    expect(product.call("run"), 12, "cannot open the metadata store")


def test_debug_shows_the_traceback(product: Product) -> None:
    shown = product.call("--debug", "runs")
    assert shown.code == 12
    assert "Traceback" in shown.err
