"""What called a run: the command line of this process, without anything that may be a secret."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import PurePath

_PROGRAM = "bike-pipeline"
_ACCOUNT = re.compile(r"://[^/@\s]+@")


def command_line(argv: Sequence[str] | None = None) -> str:
    """Return how `bike-pipeline` was called, in one line; "" if this process is another program.

    Of `--set NAME=VALUE` only the name is recorded, since the run's record holds the resolved settings. User and
    password in a URL are left out.
    """
    program, *given = sys.argv if argv is None else argv
    path = PurePath(program)
    if path.name != _PROGRAM and path.parts[-2:] != ("bike_pipeline", "cli.py"):
        return ""
    words, is_setting = [_PROGRAM], False
    for argument in given:
        text = argument
        if is_setting or argument.startswith("--set="):
            start = len("--set=") if not is_setting else 0
            name, sign, _ = argument[start:].partition("=")
            text = f"{argument[:start]}{name}{sign}…" if sign else f"{argument[:start]}…"
        is_setting = argument == "--set"
        words.append(_ACCOUNT.sub("://", text))
    return " ".join(argument if "…" in argument else shlex.quote(argument) for argument in words)
