"""What the README and the pages of docs/ tell to type, and the files that they tell to write."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:bike-pipeline|make|kubectl|bike-edge|docker) [^`]+)`")
_NAMED = re.compile(r"# ([\w./-]+\.ya?ml)\n")
# What a line of a block begins with where it is to be typed and not an answer.
_PROGRAMS = (
    *("bike-pipeline", "bike-edge", "make", "python", "kubectl", "docker", "curl", "model_signing", "dvc", "git"),
    *("export", "source", ".venv/bin/pre-commit", "REGENERATE_GOLDEN=1", "BIKE_SERVING_REST=127.0.0.1:8501"),
)


@dataclass(frozen=True)
class Typed:
    """A command line of a page.

    Attributes:
        page: the page, relative to the project.
        line: where it stands there.
        text: the line, without its comment; of several lines that go on, one.
        in_block: whether it stands in a block of its own, to be typed as it is, and not within a sentence.
    """

    page: str
    line: int
    text: str
    in_block: bool

    @property
    def words(self) -> list[str]:
        """The line as a shell cuts it."""
        return shlex.split(self.text)

    def __str__(self) -> str:
        """Return where it stands, for the name of its test."""
        return f"{self.page}:{self.line}"


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#.*$", "", line).rstrip()


def typed() -> Iterator[Typed]:
    """Yield every command line, page by page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = str(page.relative_to(ROOT))

        def at(place: int, text: str = text) -> int:
            return text.count("\n", 0, place) + 1

        for block in _BLOCK.finditer(text):
            if block[1] not in ("sh", "bash", "text", ""):
                continue
            place = at(block.start(2))
            for number, command in _joined(block[2].splitlines()):
                if command.split(" ")[0] in _PROGRAMS:
                    yield Typed(name, place + number, command, in_block=True)
        for inline in _INLINE.finditer(text):
            yield Typed(name, at(inline.start()), " ".join(inline[1].split()), in_block=False)


def _joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield commands with the number of their first line: one that ends in a backslash or within quotes goes on."""
    begun, first = "", 0
    for number, line in enumerate(lines):
        first = first if begun else number
        begun += _without_comment(line)
        if begun.endswith("\\") or begun.count("'") % 2:
            begun = begun.removesuffix("\\") + " "
            continue
        if begun:
            yield first, " ".join(begun.split())
        begun = ""


def settings_files() -> Iterator[tuple[str, str, str]]:
    """Yield every settings file, or part of one, that a page shows: its place, its name or "", its text."""
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.section import read_yaml

    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            if block[1] != "yaml":
                continue
            content: Any = read_yaml(block[2])
            if isinstance(content, dict) and set(content) <= set(Settings.model_fields):
                named = _NAMED.match(block[2])
                place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}"
                yield place, named[1] if named else "", block[2]
