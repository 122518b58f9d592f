"""One look for every page: Jinja2 templates and style sheets, for runs, lineage, model cards and notebooks.

A page is one file that needs no network and runs no script: the style sheet and the drawings lie inside of it. Every
value is escaped, whatever it comes from.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bike_pipeline.features import answer_measured, slice_name


def render(template: str, **values: Any) -> str:
    """Return a template of `pages/templates`, filled in."""
    return _environment().get_template(template).render(**values)


def render_markdown(template: str, **values: Any) -> str:
    """Return a template of Markdown, filled in; values do not read as Markdown, HTML or the end of a table's cell."""
    markdown = _environment().overlay(autoescape=False, finalize=_plain_in_markdown)
    return markdown.get_template(template).render(**values)


def _plain_in_markdown(value: Any) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(str(value).splitlines()))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bike_pipeline.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"moment": moment, "number": number, "percent": percent, "utc": utc}
    environment.globals |= {"slice_name": slice_name, "answer_measured": answer_measured}
    return environment


def number(value: float | None, form: str = ",.4g") -> str:
    """Return a number in Python's format `form`; "-" if there is none."""
    # Without the addition a tiny negative number would read "-0.00".
    return "-" if value is None else f"{round(value, 9) + 0.0:{form}}"


def percent(value: float | None) -> str:
    """Return a change as a signed percentage: 1.131 as "+113.1 %"; "-" if there is none."""
    return "-" if value is None else f"{100 * value:+.1f} %"


def utc(moment: datetime | str) -> str:
    """Return a time, or one in ISO 8601, as every table and page writes it; "" stays "".

    >>> utc("2026-01-31T08:15:00.123+00:00")
    '2026-01-31 08:15:00 UTC'
    """
    found = datetime.fromisoformat(moment) if isinstance(moment, str) and moment else moment
    return f"{found:%Y-%m-%d %H:%M:%S} UTC" if found else ""


def moment(value: datetime | str) -> str:
    """Return a local time, or one in ISO 8601, to the minute.

    >>> moment("2012-06-01T08:00:00")
    '2012-06-01 08:00'
    """
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{found:%Y-%m-%d %H:%M}"
