"""Names and paths that come from a request: compared as texts, never looked up on the disk."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.serving.statuses import Code, StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

_MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
# Linux's PATH_MAX.
_LONGEST_PATH = 4096


def model_roots(settings: Settings) -> tuple[str, ...]:
    """Return the folders and prefixes below which a request may name a base path; the served model's is always one."""
    served = str(Path(settings.serving_path).parent)
    named = settings.serving.security.model_roots
    local = [served, *(root for root in named if "://" not in root)]
    # An operator may write a root as a link or as what it points to.
    texts = [text for root in local for text in (str(Path(root).absolute()), os.path.realpath(root))]
    return tuple(dict.fromkeys([*texts, *(root.rstrip("/") for root in named if "://" in root)]))


def is_below(path: str, roots: Iterable[str]) -> bool:
    """Return whether a path, taken as a text, is one of the roots or below one."""
    if not path or len(path) > _LONGEST_PATH or any(ord(each) < 32 or each == "\x7f" for each in path):
        return False
    scheme, separator, rest = path.partition("://")
    place = rest if separator else path
    if "\\" in place or any(part in (".", "..") for part in place.split("/")) or (not separator and place[0] != "/"):
        return False
    plain = f"{scheme}://{posixpath.normpath(rest)}" if separator else os.path.normpath("/" + path.lstrip("/"))
    return any(plain == root or plain.startswith(root + "/") for root in roots)


def check_model_config(config: Any, roots: Sequence[str]) -> None:
    """Let a ModelServerConfig pass that names only models and folders below the roots, and no log file."""
    for model in config.model_config_list.config:
        if not _MODEL_NAME.fullmatch(model.name) or not model.name.strip("."):
            raise invalid("A model's name consists of up to 255 letters, digits and _ . -")
        if not is_below(model.base_path, roots):
            # The same answer for what exists and what does not.
            raise StatusError(
                Code.PERMISSION_DENIED, f"The base path of {model.name} is outside of what this server may load."
            )
        if model.logging_config.log_collector_config.filename_prefix:
            raise invalid("This server writes no file that a request names.")
