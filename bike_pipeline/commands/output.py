"""How every command answers: JSON or text, tables of one look, and a screen that libraries do not write on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from bike_pipeline.settings import Settings

Result = TypeVar("Result")
# What a result is shown as: texts, one a line, what rich renders, and lists of these.
Parts: TypeAlias = "RenderableType | Sequence[Parts]"
METRIC_NAMES = {"mae": "MAE", "rmse": "RMSE", "rmsle": "RMSLE", "bias": "bias", "calibration": "calibration"}
BLESSED = {True: "yes", False: "no", None: "not evaluated"}


def console_on(stream: TextIO) -> Console:
    """Return a console on a stream; without a terminal it is wide enough that nothing is cut.

    Text is printed as it is: paths and reasons may hold what rich would read as markup.
    """
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    right: Collection[str] = (),
    header: bool = True,
) -> Table:
    """Return a table without lines whose cells are folded, never cut; the columns in `right` hold numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, show_header=header)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if hasattr(cell, "__rich_console__") else str(cell) for cell in row))
    return made


def answer(
    result: Result,
    view: Callable[[Result], Parts],
    as_json: bool,
    stream: TextIO | None = None,
) -> None:
    """Print a result: as JSON, or what `view` makes of it for a person."""
    if as_json:
        click.echo(as_document(result), file=stream)
    else:
        show(view(result), stream)


def as_document(result: object) -> str:
    """Return a use case's result, or several, as a JSON document."""
    found = result if isinstance(result, list | tuple) else [result]
    plain = [asdict(one) if is_dataclass(one) and not isinstance(one, type) else one for one in found]
    return json.dumps(plain if found is result else plain[0], indent=2, default=str)


def show(parts: Parts, stream: TextIO | None = None) -> None:
    """Print texts one a line, without breaking them, and anything else as rich renders it."""
    if isinstance(parts, list | tuple):
        for part in parts:
            show(part, stream)
    elif isinstance(parts, str):
        click.echo(parts, file=stream)
    else:
        from rich.text import Text

        console_on(stream or sys.stdout).print(parts, soft_wrap=isinstance(parts, Text))


def log_file(settings: Settings, name: str) -> Path:
    """Return the log file of one call of a command."""
    from datetime import UTC, datetime

    return settings.logs_path / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"


@contextmanager
def captured(log: Path) -> Iterator[TextIO]:
    """Send what libraries write to a log file; yield the screen that answers go to."""
    from bike_pipeline.log_capture import captured as capture

    # Read by TensorFlow's C++ code when it is loaded: the log gets everything from information upwards.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
    with capture(log) as screen:
        yield screen


@contextmanager
def progress_on(screen: TextIO, *, silent: bool) -> Iterator[None]:
    """Show on a terminal what long work says of itself (see `bike_pipeline.progress`)."""
    console = console_on(screen)
    if silent or not console.is_terminal:
        yield
        return
    from bike_pipeline import progress

    with console.status("loading TensorFlow") as status, progress.listening(lambda _, text: status.update(text)):
        yield
