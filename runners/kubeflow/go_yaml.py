"""YAML as Kubeflow Pipelines' server reads and takes it: Go's reader (gopkg.in/yaml.v3) is not Python's.

Plain `65e3`, `08` and `0o17` are texts to Python's reader and numbers to Go's, so what is written here quotes every
text, and what is read here is read by Go's rules: a spec of somebody else's is judged and run as the server would.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final

import yaml

_PLAIN: Final = "!plain"
_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_WHOLE: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))")
_BASES: Final = (16, 8, 2, 10)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NO_NAMES: Final = frozenset({"true", "false", "null", "y", "n", "yes", "no", "on", "off"})
_DAY: Final = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")


def plain_value(text: str) -> str | int | float | bool | None:
    """Return what Go's reader makes of a scalar without quotes; a day becomes the text of its first moment."""
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in "+-.0123456789":
        return text
    if day := _DAY.fullmatch(text):
        return f"{day[1]}-{int(day[2]):02d}-{int(day[3]):02d}T00:00:00Z"
    digits = text if text.startswith(".") else text.replace("_", "")
    if whole := _WHOLE.fullmatch(digits):
        written, base = next((part, base) for part, base in zip(whole.groups()[1:], _BASES, strict=True) if part)
        value = int(written, base) * (-1 if whole[1] == "-" else 1)
        if -(2**63) <= value < 2**64:
            return value
    if _FLOAT.fullmatch(digits) and math.isfinite(number := float(digits)):
        return number
    return text


class _Loader(yaml.SafeLoader):
    """Python's reader of the syntax with Go's rules for what a plain scalar is."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is no text", node.start_mark)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key stands there twice", node.start_mark)
        return mapping


_Loader.add_constructor(_PLAIN, lambda _, node: plain_value(node.value))


class _Dumper(yaml.SafeDumper):
    """Writes every text in double quotes, which all readers take for a text; names that none mistakes stand plain."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, _ in node.value:
            if _NAME.fullmatch(key.value) and key.value.lower() not in _NO_NAMES:
                key.style = None
        return node


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def load_all(text: str) -> list[Any]:
    """Return the documents of a text as Go reads them."""
    return list(yaml.load_all(text, Loader=_Loader))


def dump_all(documents: Iterable[Any], sort_keys: bool = True) -> str:
    """Return plain values as YAML that both readers take for the same; the same values give the same text."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=sort_keys, width=120, allow_unicode=True)
