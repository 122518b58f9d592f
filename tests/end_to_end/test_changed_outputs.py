"""What was changed between two stages, or since the run before, is not used: the run ends and names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Called, Halves, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, run_halves: Halves) -> Product:
    """A workspace with one run behind it, whose path holds what readers of patterns misread."""
    folder = tmp_path_factory.mktemp("changed")
    # A reader that takes the path for a pattern would find this folder in place of the workspace.
    (folder / "w 1" / "artifacts").mkdir(parents=True)
    return Product(run_halves.copied(1, folder / "w [1]"))


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """Have other content in a file while the block runs."""
    before = path.read_bytes()
    assert content != before
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def one(product: Product, pattern: str) -> Path:
    return min((product.workspace / "artifacts").glob(pattern))


def other_digit(path: Path) -> bytes:
    """Return a file's content with its last digit changed."""
    content = bytearray(path.read_bytes())
    place = max(index for index, byte in enumerate(content) if chr(byte).isdigit())
    content[place] = ord("1") if content[place] != ord("1") else ord("2")
    return bytes(content)


def other_bit(path: Path) -> bytes:
    """Return a file's content with one bit changed, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0b100
    return bytes(content)


def assert_refused(done: Called, code: int, *words: str) -> None:
    assert done.code == code, done.out + done.err
    assert len(done.err.strip().splitlines()) == 1
    assert all(word in done.err for word in words), done.err


def test_a_changed_reference_of_the_gates_blesses_nothing(product: Product) -> None:
    reference = one(product, "Trainer/model/*/Format-Serving/assets.extra/hourly_mean.json")
    with changed(reference, other_digit(reference)):
        judged_anew = product.call("run", "--set", "evaluation.max_mae_to_mean=0.84")
        assert_refused(judged_anew, 16, "hourly_mean.json was changed", "--no-cache")
        # What the run's stages were answered with is not used either.
        assert_refused(product.call("run"), 16, "hourly_mean.json was changed")
        assert_refused(product.call("verify"), 16, "stage outputs", "hourly_mean.json was changed")
        states = [run["state"] for run in json.loads(product.call("runs", "--json").out)]
        assert states[-2:] == ["failed", "failed"]
    assert product.call("verify").code == 0


@pytest.mark.parametrize("runner", ["local", "beam"])
def test_a_flipped_bit_of_a_parquet_shard_is_not_trained_on(product: Product, runner: str) -> None:
    shard = one(product, "CsvExampleGen/examples/*/columns/Split-train/*.parquet")
    with changed(shard, other_bit(shard)):
        trained = product.call("run", "--runner", runner, "--set", "training.epochs=1", "--set", "data.window.spans=2")
        assert_refused(trained, 16, shard.name, "was changed")


def test_a_changed_digit_of_a_span_is_no_answer_from_the_cache(product: Product) -> None:
    rows = product.workspace / "spans" / "span-0001" / "version-0001" / "train" / "data.csv"
    with changed(rows, other_digit(rows)):
        assert_refused(product.call("run"), 4, str(rows), "SHA-256")
        assert_refused(product.call("verify"), 16, "data", str(rows))
        assert json.loads(product.call("runs", "--json").out)[-1]["state"] == "failed"
    again = product.call("run", "--json")
    assert again.code == 0, again.err
    assert set(again.states.values()) == {"cached"}
