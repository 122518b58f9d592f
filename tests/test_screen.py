"""Text for a person goes out on a stream of any encoding, and a reader who leaves ends no work."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from bike_pipeline.log_capture import ERRORS, Screen

TEXT = "✔ passed ✘ failed · note → 1 × 2 … MAE ≤ 55 µs é 中"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_marks_that_mean_opposite_things_stay_different(encoding: str) -> None:
    shown = TEXT.encode(encoding, ERRORS).decode(encoding)
    assert "passed" in shown
    assert shown[0] != shown[shown.index("failed") - 2]
    if encoding == "ascii":
        assert shown == "+ passed x failed . note -> 1 x 2 ... MAE <= 55 us e ?"


def test_a_path_that_is_no_text_is_shown_all_the_same() -> None:
    path = os.fsdecode(b"w\xff")
    assert path.encode("utf-8", ERRORS) == b"w?"


def test_what_is_written_after_the_reader_has_gone_is_dropped() -> None:
    reading, writing = os.pipe()
    with Screen(writing, "latin-1") as screen:
        screen.write("first ✔\n")
        assert os.read(reading, 100) == b"first +\n"
        os.close(reading)
        for _ in range(3):
            screen.write("more\n")
            screen.flush()


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_a_stream_that_lacks_a_character_ends_no_command(encoding: str) -> None:
    code = (
        "import click, sys; from bike_pipeline import cli; "
        f"cli.command.add_command(click.Command('show', callback=lambda: click.echo({TEXT!r}))); "
        "cli._LazyGroup.get_command = lambda self, ctx, name: self.commands.get(name); "
        "sys.argv = ['bike-pipeline', 'show']; cli.main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    # Where a stream claims to be ASCII, click takes that for a mistake and writes UTF-8.
    assert done.stdout.startswith("✔ passed ✘ failed".encode() if encoding == "ascii" else b"+ passed x failed")


def test_in_a_file_no_line_of_a_table_ends_in_spaces() -> None:
    from bike_pipeline.commands import shared

    stream = io.StringIO()
    shared.show([shared.table(("gate", "reason"), [("a", "short"), ("b", "a longer reason")]), "end"], stream)
    lines = stream.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["gate", "reason"],
        ["a", "short"],
        ["b", "a", "longer", "reason"],
        ["end"],
    ]
    assert not any(line.endswith(" ") for line in lines)
