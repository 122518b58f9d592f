"""A listener for notifications: they make triggers look, and Alertmanager's are kept in the ledger.

Whoever sends them has a token. Nothing that is sent is trusted beyond that there is something to look at.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bike_pipeline.errors import ConfigurationError, DataError, ServerError, StorageError
from bike_pipeline.retraining.events import STORAGE
from bike_pipeline.retraining.notifications import Hint, of_cloud_event, summary_of_webhook
from bike_pipeline.retraining.triggers import Note
from bike_pipeline.retraining.triggers.concept_drift import ALERT
from bike_pipeline.retraining.triggers.storage import Storage
from bike_pipeline.storage.atomic_files import one_error

if TYPE_CHECKING:
    from aiohttp import web

    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.loop import Loop
    from bike_pipeline.settings.retraining import RetrainingSettings

MOST_BYTES = 1 << 20
_READ_SECONDS = 30.0
# Shorter ones are guessed.
_FEWEST_CHARACTERS = 16
_log = logging.getLogger(__name__)


def read_token(file: str) -> bytes:
    """Return the token in a file.

    Raises:
        ConfigurationError: no file is named, or it holds none that is long enough.
        StorageError: it cannot be read.
    """
    if not file:
        fix = "write a secret into a file that only this user reads, and name it"
        raise ConfigurationError("who may notify is not said", where="retraining.token_file", fix=fix)
    with one_error("read", file):
        token = Path(file).expanduser().read_bytes().strip()
    if len(token) < _FEWEST_CHARACTERS or not token.isascii():
        fix = f"write at least {_FEWEST_CHARACTERS} characters of ASCII into it: `openssl rand -hex 32`"
        raise ConfigurationError("it holds no token that is hard to guess", where=file, fix=fix)
    return token


@contextmanager
def taking_notifications(section: RetrainingSettings, loop: Loop) -> Iterator[str]:
    """Take notifications for the triggers of a loop in the block, if the settings say where; yield HOST:PORT, or ""."""
    if not section.listen:
        yield ""
        return
    storages = [one for one in loop.triggers if isinstance(one, Storage)]

    def hint(given: Hint) -> bool:
        return sum(one.hint(given) for one in storages) > 0

    with listening(section.listen, read_token(section.token_file), loop.ledger, hint) as address:
        yield address


class _Listener:
    def __init__(self, token: bytes, ledger: Ledger, hint: Callable[[Hint], bool]) -> None:
        self._token, self._ledger, self._hint = token, ledger, hint

    async def answer(self, request: web.Request) -> web.Response:
        """Take a notification; whatever is refused is told in one sentence, without what was sent."""
        from aiohttp import web

        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(sent.strip().encode("utf-8", "surrogateescape"), self._token)
        if not right or scheme.lower() != "bearer":
            headers = {"WWW-Authenticate": "Bearer"}
            return web.json_response({"error": "the token is missing or wrong"}, status=401, headers=headers)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                body = await request.read()
            take = self._events if request.path == "/events" else self._alert
            status, said = await asyncio.to_thread(take, request, body)
            return web.json_response(said, status=status)
        except TimeoutError:
            status, what = 408, "it did not arrive in time"
        except DataError as error:
            status, what = 400, error.what
        except StorageError as error:
            # Alertmanager and brokers send it again.
            _log.warning("a notification cannot be kept: %s", error)
            status, what = 503, "the ledger cannot be written now"
        return web.json_response({"error": what}, status=status)

    def _events(self, request: web.Request, body: bytes) -> tuple[int, dict[str, object]]:
        hints = of_cloud_event(request.headers, body)
        known = [self._hint(one) for one in hints]
        text = "an event told of it, and retraining.storage.sources does not name its folder"
        strange = [Note(one.address, text) for one, is_known in zip(hints, known, strict=True) if not is_known]
        if strange:
            self._ledger.record_notes(STORAGE, strange)
        return 202, {"looks": sum(known)}

    def _alert(self, _: web.Request, body: bytes) -> tuple[int, dict[str, object]]:
        self._ledger.set_control(ALERT, {"at": time.time(), "summary": summary_of_webhook(body)})
        return 200, {"taken": True}


@contextmanager
def listening(address: str, token: bytes, ledger: Ledger, hint: Callable[[Hint], bool]) -> Iterator[str]:
    """Answer at HOST:PORT until the end of the block, in a thread; yield the address with the port that it got.

    Raises:
        ConfigurationError: the address is none.
        ServerError: it cannot be listened at.
    """
    from aiohttp import web

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        fix = "write HOST:PORT, such as 127.0.0.1:9095"
        raise ConfigurationError(f"'{address}' is no address", where="retraining.listen", fix=fix)
    answer = _Listener(token, ledger, hint).answer
    app = web.Application(client_max_size=MOST_BYTES)
    app.add_routes([web.post("/events", answer), web.post("/retraining", answer)])
    runner, loop = web.AppRunner(app, access_log=None), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="listener", daemon=True)
    thread.start()

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        return int(runner.addresses[0][1])

    try:
        try:
            got = asyncio.run_coroutine_threadsafe(start(), loop).result()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ServerError(f"cannot listen ({reason})", where=address, fix="choose another address") from None
        yield f"{host}:{got}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
