"""What both protocols share: who asks, how often, how much, and what an unforeseen error tells."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.serving.security import ADMIN, SCOPES, Client, api_keys
from bike_pipeline.serving.security.limits import Arriving, RateLimit, Shares
from bike_pipeline.serving.security.tokens import Tokens
from bike_pipeline.serving.security.watched_file import WatchedFiles
from bike_pipeline.serving.statuses import Code, StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

EVERYBODY = Client("everybody", frozenset(SCOPES))
_log = logging.getLogger(__name__)
_BEARER = "bearer "
_MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
# Linux's PATH_MAX.
_LONGEST_PATH = 4096


class Guard:
    """Stands before one server's handlers, REST and gRPC alike, so that a client has one rate over both.

    Attributes:
        required: whether a client must prove who it is; else everybody is let in with every scope.
        is_open: whether everybody may ask everything as often as they like.
        largest: bytes of the largest request.
        roots: below which a request may name a base path.
        draining: whether each REST connection ends with its next answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.authentication = settings.serving.security.authentication
        methods, path = self.authentication.methods, settings.api_key_file
        self._keys = WatchedFiles([path], lambda: api_keys.read(path)) if "api_keys" in methods else None
        self._tokens = Tokens(self.authentication.jwt) if "jwt" in methods else None
        self.required = bool(methods)
        self.limits = settings.serving.security.limits
        self.rate = RateLimit(self.limits.requests_per_second, self.limits.burst, self.limits.clients)
        self.largest = settings.serving.server.max_request_bytes
        self.shares = Shares(self.limits, self.largest)
        self.arriving = Arriving(self.limits, self.largest)
        self.is_open = not self.required and not self.limits.requests_per_second
        self.roots = model_roots(settings)
        self.draining = False

    def admit(self, scope: str, authorization: str, api_key: str, peer: str) -> Client:
        """Return who asks, having taken one request out of the client's rate, or refuse.

        Args:
            scope: what the request needs, one of `SCOPES`.
            authorization: the header or metadata `Authorization`; empty for none.
            api_key: the header or metadata `X-API-Key`; empty for none.
            peer: the address that the request came from, without its port; empty if it is not known yet; the caller
                then takes a guess of credentials from its rate.
        """
        if self.is_open:
            return EVERYBODY
        try:
            client = self._client(authorization, api_key, peer)
        except StatusError:
            # Guessing has a rate, too: that of the address. Who has a key is not held up by a neighbour who has none.
            if peer:
                self.rate.take(f"peer:{peer}")
            raise
        if scope not in client.scopes:
            what = "change what is served" if scope == ADMIN else "ask this"
            lacks = f"These credentials may not {what}: they lack the scope `{scope}`."
            raise StatusError(Code.PERMISSION_DENIED, lacks)
        self.rate.take(client.id)
        return client

    def _client(self, authorization: str, api_key: str, peer: str) -> Client:
        if not self.required:
            return Client(f"peer:{peer}", frozenset(SCOPES))
        bearer = authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
        presented = api_key or bearer
        if not presented:
            ways = {
                "an API key as `X-API-Key` or as bearer token in `Authorization`": self._keys,
                "a JSON Web Token as bearer token in `Authorization`": self._tokens,
            }
            how = ", or ".join(way for way, known in ways.items() if known is not None)
            raise StatusError(Code.UNAUTHENTICATED, f"No credentials: send {how}.")
        found = None
        if self._keys is not None:
            found = self._keys.get().find(presented, time.time())
        if found is None and self._tokens is not None and bearer:
            found = self._tokens.find(bearer)
        if found is None:
            # Which part was wrong (unknown, expired, revoked) is for the keys' owner to look up, not for who asks.
            raise StatusError(Code.UNAUTHENTICATED, "The credentials are not valid, or not any more.")
        return found


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
