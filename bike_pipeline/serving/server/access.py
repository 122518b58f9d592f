"""Who may ask the embedded server: this machine, a gateway before it, or whoever has its one key; and what it may name.

All else that keeps strangers out is the gateway's (see `rollout.gateway`).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import posixpath
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.statuses import Code, StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.serving import ServerSettings

KEY_VARIABLE = "BIKE_SERVING_SERVER_KEY"
_log = logging.getLogger(__name__)
_BEARER = "bearer "
# A shorter one could be guessed.
_KEY_CHARACTERS = 32
_MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
# Linux's PATH_MAX.
_LONGEST_PATH = 4096


def server_key(settings: ServerSettings) -> str:
    """Return the key that the server asks for: of the variable, else of `key_file`; empty for none.

    On Unix sockets there is none: the folder's rights say who may ask.

    A ConfigurationError says that it cannot be read, or could be guessed.
    """
    if settings.socket_folder:
        return ""
    key, where = os.environ.get(KEY_VARIABLE, "").strip(), f"the variable {KEY_VARIABLE}"
    if not key and settings.key_file:
        where = settings.key_file
        try:
            key = Path(where).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"cannot read it ({reason})", where=where, fix="correct serving.server.key_file"
            ) from None
    elif not key:
        return ""
    if len(key) < _KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            f"a key has at least {_KEY_CHARACTERS} printable ASCII characters without blanks",
            where=where,
            fix="make one with: openssl rand -hex 32",
        )
    return key


def check_exposure(settings: ServerSettings, key: str) -> None:
    """Refuse an address that others reach, unless a key is asked for or the settings say that only a gateway does."""
    if settings.socket_folder or key or settings.trusted_network or is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"{settings.host} is reached from other machines, and the embedded server asks for no key",
        where="serving.server.host",
        fix=(
            f"run `bike-pipeline gateway` before it, or set {KEY_VARIABLE} or serving.server.key_file; where only a "
            "gateway reaches this address, set serving.server.trusted_network=true"
        ),
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host's address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_key(key: str, authorization: str) -> None:
    """Let a request pass whose header or metadata `Authorization` holds the key, where there is one."""
    if not key:
        return
    given = authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
    if not given:
        raise StatusError(Code.UNAUTHENTICATED, "No credentials: send the key as bearer token in `Authorization`.")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
        raise StatusError(Code.UNAUTHENTICATED, "The credentials are not valid, or not any more.")


def report(error: BaseException, request: str) -> str:
    """Write an unforeseen error with its traceback to the log, and return all that a client is told of it."""
    request_id = secrets.token_hex(8)
    _log.error("request %s (%s) failed", request_id, request, exc_info=error)
    return f"Internal error; the server's log tells it under request id {request_id}."


class Quiet(logging.Filter):
    """Tells errors that any client can cause in a line: else any port scan fills the log with traces."""

    def __init__(self, kind: type[BaseException], text: str) -> None:
        super().__init__()
        self._kind, self._text = kind, text

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], self._kind):
            record.msg, record.args = f"{self._text}: %s", (type(record.exc_info[1]).__name__,)
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return True


def model_roots(settings: Settings) -> tuple[str, ...]:
    """Return the folders and prefixes below which a request may name a base path; the served model's is always one."""
    served = str(Path(settings.serving_path).parent)
    named = settings.serving.server.model_roots
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
