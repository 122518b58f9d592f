"""Settings from files and single assignments, with one clear line for what is wrong."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.settings.strict_yaml import NULLS, Plain, problem_of, read_yaml, shortened
from bike_pipeline.settings.tree import PROJECT_ROOT, Settings

BASE_FILE = PROJECT_ROOT / "configs" / "base.yaml"


# By its text: programs load settings again and again, and nobody changes what is read.
_parsed = functools.lru_cache(maxsize=4)(read_yaml)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError("no such configuration file", where=str(path), fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read it ({error})", where=str(path), fix="check that it is a readable text file"
        ) from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), problem_of(error)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigurationError(f"not valid YAML ({problem})", where=where, fix="correct that line") from None
    if content is None or (isinstance(content, Plain) and content in NULLS):
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            "a configuration file holds a mapping of settings", where=str(path), fix="see configs/base.yaml"
        )
    return content


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def assignment(text: str, example: str, read: Callable[[str], Any]) -> tuple[str, Any]:
    """Return the key and the value of "key=value", or a ConfigurationError; `example` begins with the option."""
    option = example.partition(" ")[0]
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"'{text}' is not key=value", where=option, fix=f"write {example}")
    try:
        return key.strip(), read(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(
            f"the value of {key} is not valid YAML ({problem_of(error)})", where=option, fix="quote it"
        ) from None


def _explain(error: ValidationError, where: str) -> ConfigurationError:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"unknown setting '{path}'"
    elif first["type"] == "missing":
        what = f"the setting '{path}' is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        got = first.get("input")
        got_text = f" (got {shortened(repr(got))})" if isinstance(got, str | int | float | bool) else ""
        what = f"{path}: {message}{got_text}" if path else message
    more = len(error.errors()) - 1
    if more:
        what += f" (and {more} more)"
    return ConfigurationError(
        what, where=where, fix="`bike-pipeline config schema` lists every setting, its type and its range"
    )


def load_settings(config: Path | str | None = None, assignments: tuple[str, ...] = ()) -> Settings:
    """Return the settings of `configs/base.yaml`, an overlay file and single `key.path=value` texts (values are YAML).

    Each is merged over the one before; a ConfigurationError names what is missing, unknown or wrong.
    """
    values = _read_yaml(BASE_FILE)
    where = str(BASE_FILE)
    if config is not None:
        values = _merge(values, _read_yaml(Path(config)))
        where = os.fspath(config)
    for text in assignments:
        # Nothing behind the sign is an empty text: a shell takes the quotes of key="" away.
        key, value = assignment(
            text, "--set training.epochs=10", lambda value: read_yaml(value) if value.strip() else ""
        )
        overlay = functools.reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)
        values = _merge(values, overlay)
        where = f"{where} with --set" if "--set" not in where else where
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None
