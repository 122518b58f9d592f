"""The formats by name: those of this package and those that installed plug-ins add."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.exporting.formats.base import Format

GROUP = "bike_pipeline.export_formats"


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Return the names of all formats that can be named in the settings; nothing is imported."""
    return sorted(_found())


def format_of(name: str) -> Format:
    """Return the format of that name.

    Raises:
        ConfigurationError: there is none, or what is registered under the name is no format.
    """
    found = _found()
    if name not in found:
        raise ConfigurationError(
            f"there is no export format '{name}'",
            where="exporting.formats",
            fix=f"choose from {', '.join(sorted(found))}, or install the package that brings it",
        )
    made = found[name].load()()
    if not isinstance(made, Format) or made.name != name:
        raise ConfigurationError(
            f"{found[name].value} is no export format of that name",
            where=f"entry point {GROUP}:{name}",
            fix="name a subclass of bike_pipeline.exporting.formats.base.Format with that name",
        )
    return made


def formats_of(wanted: Sequence[str]) -> list[Format]:
    """Return the formats of these names, in their order; a name that is not there is a ConfigurationError."""
    return [format_of(name) for name in wanted]
