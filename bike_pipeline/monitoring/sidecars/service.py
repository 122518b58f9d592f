"""The HTTP side of all sidecars: an event in, an event or nothing out; the work is done in one thread beside it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from bike_pipeline.errors import BikePipelineError, DataError, ServerError
from bike_pipeline.monitoring.sidecars import events

if TYPE_CHECKING:
    from aiohttp import web

MOST_BYTES = 4 << 20
_READ_SECONDS = 30.0
# Events that wait for the thread; Knative and Seldon send again what is refused as unavailable.
_MOST_WAITING = 64
_log = logging.getLogger(__name__)


class Sidecar(Protocol):
    """What looks at requests; used by one thread at a time.

    Attributes:
        kind: what the type of its events ends with: outlier, drift or explanation.
    """

    kind: str

    def look(self, request: events.RequestRows) -> Mapping[str, Any] | None:
        """Return what is to be said of a request; None for nothing."""


class _Service:
    def __init__(self, sidecar: Sidecar, source: str) -> None:
        self._sidecar, self._source = sidecar, source
        self._thread = ThreadPoolExecutor(1, "sidecar")
        self._waiting = 0

    async def event(self, request: web.Request) -> web.Response:
        """Answer an event; whatever is refused is told in one sentence."""
        from aiohttp import web

        try:
            async with asyncio.timeout(_READ_SECONDS):
                body = await request.read()
            return await self._answered(events.received(request.headers, body))
        except web.HTTPRequestEntityTooLarge:
            status, what = 413, f"the event is larger than {MOST_BYTES:,} bytes"
        except TimeoutError:
            status, what = 408, "the event did not arrive in time"
        except BikePipelineError as error:
            status, what = 400 if isinstance(error, DataError) else 500, error.what
        except Exception:  # noqa: BLE001 (no error's text or traceback reaches a client)
            _log.exception("an event cannot be looked at")
            status, what = 500, "internal error; it is in the log"
        return web.json_response({"error": what}, status=status)

    async def _answered(self, found: events.Received) -> web.Response:
        from aiohttp import web

        if found.request is None:
            # A broker may send the answers of models, and those of other sidecars, too.
            return web.Response(status=202)
        if self._waiting >= _MOST_WAITING:
            return web.json_response({"error": "too many events wait"}, status=503)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            said = await loop.run_in_executor(self._thread, self._sidecar.look, found.request)
        finally:
            self._waiting -= 1
        if said is None:
            return web.Response(status=202)
        headers, content = events.answer(found, self._sidecar.kind, self._source, said)
        return web.Response(body=content, headers=headers)

    async def health(self, _: web.Request) -> web.Response:
        """Say that it answers."""
        from aiohttp import web

        return web.json_response({"sidecar": self._sidecar.kind})


def application(sidecar: Sidecar, source: str) -> web.Application:
    """Return what answers events with what a sidecar says, in the name of a source."""
    from aiohttp import web

    service = _Service(sidecar, source)
    app = web.Application(client_max_size=MOST_BYTES)
    app.add_routes([web.post("/", service.event), web.get("/healthz", service.health)])
    return app


def run(sidecar: Sidecar, host: str, port: int, source: str, on_start: Callable[[int], None]) -> None:
    """Answer events until SIGTERM or SIGINT; `on_start` is told the port. A ServerError says that it is taken."""

    async def serve() -> None:
        from aiohttp import web

        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        runner = web.AppRunner(application(sidecar, source), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            reason = (error.strerror or str(error)).lower()
            raise ServerError(f"cannot listen ({reason})", where=f"{host}:{port}", fix="choose another port") from None
        on_start(runner.addresses[0][1])
        await stopping.wait()
        await runner.cleanup()

    asyncio.run(serve())
