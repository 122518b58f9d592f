"""Mapping profiles: what a source of another form means in the columns of the feature contract, as data.

A profile is a YAML file: which columns are read and how, and SQL expressions that make the contract's values of them;
`mapped_rows.py` works it out. Those that are shipped stand in `mappings/` and are known by their names.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.settings.section import Section, problem_of, read_yaml
from bike_pipeline.storage.atomic_files import one_error

MAPPINGS = Path(__file__).with_name("mappings")
# What expressions know a column by.
Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Expression = Annotated[str, Field(min_length=1)]
Weather = Literal["temp", "atemp", "hum", "windspeed"]
# What neither the date nor another value tells.
Needed = Literal["holiday", "weathersit", Weather, "casual", "registered"]
Value = Literal["season", "workingday", "cnt", Needed]


class Column(Section):
    """A column of a source, of texts unless something else is said.

    Attributes:
        named: what it may be called; a source has exactly one of these names.
        number: it holds numbers.
        time: it holds times in one of these forms, as of strptime.
        codes: which texts it holds, and the number that each of them is.
    """

    named: Annotated[tuple[str, ...], Field(min_length=1)]
    number: bool = False
    time: tuple[str, ...] = ()
    codes: dict[str, int] = Field(default_factory=dict)


class TableProfile(Section):
    """How one source is read.

    Attributes:
        encoding: of its text.
        skip_lines: lines before the names of the columns.
        columns: what is read; other columns are ignored and told.
        hour: the hour that a row belongs to.
        leave_out: which rows are left out, and told: an expression by what it means.
    """

    encoding: Literal["utf-8", "cp1252", "iso-8859-1"] = "utf-8"
    skip_lines: Annotated[int, Field(ge=0)] = 0
    columns: dict[Alias, Column]
    hour: Expression
    leave_out: dict[str, Expression] = Field(default_factory=dict)


class Profile(TableProfile):
    """A mapping.

    Attributes:
        format: version of this form.
        about: which source it is for.
        sums: if rows are events, what is summed up of an hour; hours without one, from the first to the last, count 0.
        time_zone: of sums, whose clock the hours are of: one that it skips is no hour without events.
        weather: a second source, joined by the hour.
        values: the columns of the contract, `features.PHYSICAL` in their units there. All of `Needed`; what the date
            tells (`season`, too), `workingday` and `cnt` follow where they are not given.
        clip: columns that count as the contract's bound where they are beyond, and are told.
        checks: what must hold of all rows, weather included: an aggregate by what is wrong if it is false.
        notes: what whoever ingests is told.
    """

    format: Literal[1]
    about: str
    sums: dict[Alias, Expression] = Field(default_factory=dict)
    time_zone: str = "UTC"
    weather: TableProfile | None = None
    values: dict[Value, Expression]
    clip: tuple[Weather, ...] = ()
    checks: dict[str, Expression] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if missing := [name for name in get_args(Needed) if name not in self.values]:
            raise ValueError(f"values lack {', '.join(missing)}")
        return self


def load_profile(name: str) -> tuple[Profile, str]:
    """Return the profile of a name or path, and the SHA-256 of its file; a ConfigurationError says what is wrong."""
    shipped = {path.stem: path for path in MAPPINGS.glob("*.yaml")}
    path = shipped.get(name, Path(name).expanduser())
    if not path.is_file():
        fix = f"name one of {', '.join(sorted(shipped))}, or the path of your own; see docs/data.md"
        raise ConfigurationError("there is no such mapping", where=name, fix=fix)
    with one_error("read", path):
        content = path.read_bytes()
    try:
        return Profile.model_validate(read_yaml(content.decode())), hashlib.sha256(content).hexdigest()
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else problem_of(error)
        fix = "see docs/data.md and the shipped mappings"
        raise ConfigurationError(f"the mapping is wrong ({problem})", where=str(path), fix=fix) from None
