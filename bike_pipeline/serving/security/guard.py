"""What both protocols share: who asks, how often, how much, and what an unforeseen error tells."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from bike_pipeline.serving.security.arriving import Arriving
from bike_pipeline.serving.security.authentication import Authenticator, demand
from bike_pipeline.serving.security.identity import SCOPES, Client, Refusal
from bike_pipeline.serving.security.paths import model_roots
from bike_pipeline.serving.security.rate import RateLimit
from bike_pipeline.serving.security.shares import Shares

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

EVERYBODY = Client("everybody", "everybody", frozenset(SCOPES))
_log = logging.getLogger(__name__)


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
        """Return who asks, having taken one request out of the client's rate.

        Args:
            scope: what the request needs, see `identity.SCOPES`.
            authorization: see `Authenticator.client`, as for the key.
            api_key: the key.
            peer: the address that the request came from, without its port; empty if it is not known yet.

        Raises:
            Refusal: who asks is unknown, may not, or asks too often.
        """
        if self.is_open:
            return EVERYBODY
        try:
            client = self.authentication.client(authorization, api_key, peer)
        except Refusal:
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
