"""What every command shares: its options, its answer as JSON or text, and a screen that libraries do not write on."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, TypeVar

import click

from bike_pipeline.storage.plain_json import finite

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from bike_pipeline.settings import Settings

Result = TypeVar("Result")
# What a result is shown as: texts, one a line, what rich renders, and lists of these.
Parts: TypeAlias = "RenderableType | Sequence[Parts]"
METRIC_NAMES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "rmsle": "RMSLE",
    "bias": "bias",
    "log_loss": "log loss",
    "brier": "Brier",
    "auc": "AUC",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "calibration": "calibration",
}
# Between two lines of progress where nobody sees a line change.
_LINE_SECONDS = 30.0
BLESSED = {True: "yes", False: "no", None: "not evaluated"}

PATH = click.Path(path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
model_option = click.option(
    "--model",
    metavar="MODEL",
    help="A served version, a model's number or a pushed folder; by default the model that serves now.",
)
cluster_option = click.option("--cluster", is_flag=True, help="Read the cluster's store (kubeflow.metadata).")
formats_option = click.option(
    "--formats",
    metavar="A,B",
    callback=lambda _context, _parameter, text: comma_separated(text),
    help="Formats by name, or all that are known; by default those of exporting.formats.",
)


def comma_separated(text: str | None) -> tuple[str, ...] | None:
    """Return the names of "a, b", each once; None for None."""
    return None if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class FiniteRange(click.FloatRange):
    """A number in a range; NaN, which no range keeps out, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end with what is wrong with it."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def command(group: click.Group | None = None, name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command, of a group if one is given, that takes settings (see `with_settings`)."""
    return lambda function: (group.command if group else click.command)(name)(with_settings(function))


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config FILE` and repeated `--set KEY=VALUE`, and pass the loaded settings as `settings`.

    The settings are loaded only when the command runs, so that help stays fast.
    """

    @click.option("--config", metavar="FILE", help="Settings laid over configs/base.yaml.")
    @click.option(
        "--set", "assignments", metavar="KEY=VALUE", multiple=True, help="One setting, such as data.eval_fraction=0.3."
    )
    @functools.wraps(function)
    def loaded(*args: Any, config: str | None, assignments: tuple[str, ...], **options: Any) -> Any:
        from bike_pipeline.settings import load_settings

        return function(*args, settings=load_settings(config, assignments), **options)

    return loaded


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
    return json.dumps(finite(plain if found is result else plain[0]), indent=2, default=str)


def show(parts: Parts, stream: TextIO | None = None) -> None:
    """Print texts one a line, without breaking them, and anything else as rich renders it."""
    if isinstance(parts, list | tuple):
        for part in parts:
            show(part, stream)
    elif isinstance(parts, str):
        click.echo(parts, file=stream)
    else:
        from rich.text import Text

        console = console_on(stream or sys.stdout)
        with nullcontext() if console.is_terminal else console.capture() as captured:
            console.print(parts, soft_wrap=isinstance(parts, Text))
        if captured is not None:
            # A table fills its last column up with spaces, which only a screen does not show.
            click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), file=stream)


def log_file(settings: Settings, name: str) -> Path:
    """Return the log file of one call of a command."""
    import re
    import socket
    from datetime import UTC, datetime

    # Pods that share a workspace start in the same second, and each as the process 1.
    host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname())
    return settings.logs_path / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{host}-{os.getpid()}.log"


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
    """Show what long work says of itself (see `bike_pipeline.progress`): on a terminal at once, else now and then."""
    if silent:
        yield
        return
    from bike_pipeline import progress

    console = console_on(screen)
    if not console.is_terminal:
        shown = time.monotonic()

        def show(_: float, text: str) -> None:
            nonlocal shown
            if time.monotonic() - shown >= _LINE_SECONDS:
                shown = time.monotonic()
                print(text, file=screen, flush=True)

        with progress.listening(show):
            yield
        return
    with console.status("loading TensorFlow") as status, progress.listening(lambda _, text: status.update(text)):
        yield
