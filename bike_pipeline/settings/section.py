"""What every section of the settings shares: strictness about unknown keys, the kinds of numbers, and strict YAML.

That is YAML 1.2's core schema, no key twice, and the text of a scalar kept until its type is known.

PyYAML follows YAML 1.1, where `010` is 8, `1:30` is 90, `no` is false and of two equal keys the last wins. And a reader
that knows no types turns `version: 1.20` into the number 1.2. Here a scalar without quotes stays a `Plain` text, and
`coerce` makes of it what the setting asks for.
"""

from __future__ import annotations

import re
import types
from functools import lru_cache
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
# An export format by its name in the registry.
FormatName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Severity = Literal["error", "warning", "ignore"]

_PLAIN_TAG = "!plain"
NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# The core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = (".nan", ".NaN", ".NAN")
_AMBIGUOUS = re.compile(r"[-+]?0[0-9]+")
# What no setting reaches: integers of 64 bits; and fewer digits than Python refuses to read.
_LARGEST = 2**63 - 1
_MOST_DIGITS = 64
_LONGEST_SHOWN = 50


class Plain(str):
    """A scalar that stood there without quotes: a text, a number, a truth value or nothing, as the setting asks."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without its YAML 1.1 types."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"<<"))]}  # noqa: RUF012 (PyYAML's name)
    yaml_constructors = {  # noqa: RUF012 (PyYAML's name)
        _PLAIN_TAG: lambda loader, node: Plain(loader.construct_scalar(node)),
        "tag:yaml.org,2002:str": lambda loader, node: str(loader.construct_scalar(node)),
        "tag:yaml.org,2002:map": lambda loader, node: loader.construct_fields(node),
        "tag:yaml.org,2002:seq": lambda loader, node: loader.construct_sequence(node, deep=True),
        None: lambda loader, node: loader.refuse_tag(node),
    }

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag: Any = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        plain = kind is yaml.ScalarNode and implicit[0] and tag == self.DEFAULT_SCALAR_TAG
        return _PLAIN_TAG if plain else tag

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        # Here and not where values are made: there, `<<` has brought in keys that the mapping itself says otherwise.
        seen: dict[str, int] = {}
        for key, _ in node.value:
            problem = ""
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be a name"
            elif key.value in seen:
                problem = f"the key '{shortened(key.value)}' stands there twice, first in line {seen[key.value]}"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return node

    def construct_fields(self, node: Any) -> dict[str, Any]:
        # Puts what `<<` takes over before what the mapping says itself.
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(value, deep=True) for key, value in node.value}

    def refuse_tag(self, node: Any) -> None:
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not known here", node.start_mark)


def read_yaml(text: str) -> Any:
    """Return the one document of a YAML text: dictionaries (keys are texts), lists, texts and `Plain` scalars, or None.

    Raises:
        yaml.YAMLError: it is not YAML, a key stands there twice, or it is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of SafeLoader that knows texts only)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def problem_of(error: Exception) -> str:
    """Return what an error of reading says, on one line."""
    return getattr(error, "problem", None) or str(error).partition("\n")[0] or "not YAML"


def resolved(plain: Plain) -> Any:
    """Return what a scalar without quotes is if no setting asks for a type, by YAML 1.2's core schema.

    Raises:
        ValueError: readers of YAML disagree about it (`010`), or it is an integer of more than 64 bits.
    """
    if plain in NULLS:
        return None
    if plain in _BOOLEANS:
        return _BOOLEANS[plain]
    if _AMBIGUOUS.fullmatch(plain):
        raise ValueError(f"'{shortened(plain)}' is octal to some readers of YAML; leave the leading 0 out")
    if _INTEGER.fullmatch(plain) or _OTHER_BASE.fullmatch(plain):
        number = int(plain, 10 if _INTEGER.fullmatch(plain) else 0) if len(plain) <= _MOST_DIGITS else None
        if number is None or abs(number) > _LARGEST:
            raise ValueError(f"'{shortened(plain)}' is too large for an integer of 64 bits")
        return number
    if _FLOAT.fullmatch(plain):
        return float(plain)
    if infinity := _INFINITY.fullmatch(plain):
        return float(f"{infinity[1]}inf")
    return float("nan") if plain in _NAN else str(plain)


def resolved_all(value: Any) -> Any:
    """Return a value from `read_yaml` with every `Plain` scalar as `resolved` reads it."""
    if isinstance(value, dict):
        return {key: resolved_all(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [resolved_all(entry) for entry in value]
    return resolved(value) if isinstance(value, Plain) else value


def coerce(value: Any, annotation: Any) -> Any:
    """Return a value with its `Plain` scalars turned into what a type annotation asks for.

    A text stays as it was written. For a number or a truth value nothing else is taken: neither a text in quotes, nor
    `true` for 1, nor 1 for `true`.

    Raises:
        ValueError: it is of another kind than is meant, or ambiguous.
    """
    arms = _alternatives(annotation)
    for arm in arms:
        inner = get_args(arm)
        if isinstance(value, list) and get_origin(arm) in (tuple, list):
            return [coerce(entry, inner[0]) for entry in value]
        if isinstance(value, dict) and get_origin(arm) is dict:
            return {key: coerce(entry, inner[1]) for key, entry in value.items()}
    kinds = _scalar_kinds(annotation)
    if isinstance(value, Plain):
        value = str(value) if str in kinds and value not in NULLS else resolved(value)
    if not kinds or str in kinds or object in kinds:
        return value
    if isinstance(value, bool) and bool not in kinds:
        raise ValueError("should be a number, and true and false are none")
    if isinstance(value, str):
        meant = "true or false" if kinds <= {bool, type(None)} else "a number, without quotes"
        raise ValueError(f"should be {meant}, and '{shortened(value)}' is a text")
    if isinstance(value, int | float) and not isinstance(value, bool) and not kinds & {int, float}:
        raise ValueError("should be true or false")
    return value


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation, without what `Annotated` adds."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(arm for inner in get_args(annotation) for arm in _alternatives(inner))
    return (annotation,)


@lru_cache(maxsize=1024)
def _scalar_kinds(annotation: Any) -> frozenset[type]:
    """Return which kinds of scalars an annotation takes; `object` if it is none of them alone."""
    kinds: set[type] = set()
    for arm in _alternatives(annotation):
        if get_origin(arm) is Literal:
            kinds |= {type(choice) for choice in get_args(arm)}
        elif isinstance(arm, type) and issubclass(arm, str | PurePath):
            kinds.add(str)
        elif arm in (bool, int, float, type(None)):
            kinds.add(arm)
        else:
            kinds.add(object)
    return frozenset(kinds)


def shortened(text: str) -> str:
    """Return a text as messages show it: the beginning of a long one."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


class Section(BaseModel):
    """Base of every section: frozen, strict about unknown keys; numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        return coerce(value, cls.model_fields[str(info.field_name)].annotation)
