"""What both protocols share: who asks, how often, how much, and what an unforeseen error tells."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

from bike_pipeline.serving.security import api_keys
from bike_pipeline.serving.security.identity import ADMIN, SCOPES, Client
from bike_pipeline.serving.security.limits import Arriving, RateLimit, Shares
from bike_pipeline.serving.security.paths import model_roots
from bike_pipeline.serving.security.tokens import Tokens
from bike_pipeline.serving.security.watched_file import WatchedFiles
from bike_pipeline.serving.statuses import Code, StatusError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

EVERYBODY = Client("everybody", "everybody", frozenset(SCOPES))
_log = logging.getLogger(__name__)

_BEARER = "bearer "


class Authenticator:
    """Tells who asks; if no method is configured, everybody is let in with every scope."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.serving.security.authentication
        self.required = bool(self.settings.methods)
        path = settings.api_key_file
        self._keys = WatchedFiles([path], lambda: api_keys.read(path)) if "api_keys" in self.settings.methods else None
        self._tokens = Tokens(self.settings.jwt) if "jwt" in self.settings.methods else None

    def client(self, authorization: str, api_key: str, peer: str) -> Client:
        """Return who asks, or refuse: nothing, or nothing valid, proves it.

        Args:
            authorization: the header or metadata `Authorization`; empty for none.
            api_key: the header or metadata `X-API-Key`; empty for none.
            peer: the address that the request came from, without its port.
        """
        if not self.required:
            return Client(f"peer:{peer}", peer, frozenset(SCOPES))
        bearer = authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
        presented = api_key or bearer
        if not presented:
            raise StatusError(Code.UNAUTHENTICATED, f"No credentials: send {self._how()}.")
        found = None
        if self._keys is not None:
            found = self._keys.get().find(presented, time.time())
        if found is None and self._tokens is not None and bearer:
            found = self._tokens.find(bearer)
        if found is None:
            # Which part was wrong (unknown, expired, revoked) is for the keys' owner to look up, not for who asks.
            raise StatusError(Code.UNAUTHENTICATED, "The credentials are not valid, or not any more.")
        return found

    def _how(self) -> str:
        ways = []
        if self._keys is not None:
            ways.append("an API key as `X-API-Key` or as bearer token in `Authorization`")
        if self._tokens is not None:
            ways.append("a JSON Web Token as bearer token in `Authorization`")
        return ", or ".join(ways)


def demand(client: Client, scope: str) -> None:
    """Let a client pass that has the scope, or refuse it."""
    if scope not in client.scopes:
        what = "change what is served" if scope == ADMIN else "ask this"
        raise StatusError(Code.PERMISSION_DENIED, f"These credentials may not {what}: they lack the scope `{scope}`.")


class Guard:
    """Stands before one server's handlers, REST and gRPC alike, so that a client has one rate over both.

    Attributes:
        is_open: whether everybody may ask everything as often as they like.
        roots: below which a request may name a base path.
    """

    def __init__(self, settings: Settings) -> None:
        self.authentication = Authenticator(settings)
        self.limits = settings.serving.security.limits
        self.rate = RateLimit(self.limits.requests_per_second, self.limits.burst, self.limits.clients)
        largest = settings.serving.server.max_request_bytes
        self.shares = Shares(self.limits, largest)
        self.arriving = Arriving(self.limits, largest)
        self.is_open = not self.authentication.required and not self.limits.requests_per_second
        self.roots = model_roots(settings)

    def admit(self, scope: str, authorization: str, api_key: str, peer: str) -> Client:
        """Return who asks, having taken one request out of the client's rate, or refuse.

        Args:
            scope: what the request needs, see `identity.SCOPES`.
            authorization: see `Authenticator.client`, as for the key.
            api_key: the key.
            peer: the address that the request came from, without its port; empty if it is not known yet.
        """
        if self.is_open:
            return EVERYBODY
        try:
            client = self.authentication.client(authorization, api_key, peer)
        except StatusError:
            # Guessing has a rate, too: that of the address. Who has a key is not held up by a neighbour who has none.
            if peer:
                self.rate.take(f"peer:{peer}")
            raise
        demand(client, scope)
        self.rate.take(client.id)
        return client


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
