"""Hands what was asked and answered to a process that writes it down, while no request waits for it.

A request leaves a few references behind. Every fifth of a second they are handed over, a batch at a time, and the next
batch when that one is written: a disk that is slow or full costs lines, never answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import pickle
import random
import re
import secrets
from pathlib import Path
from typing import Any

from bike_pipeline.serving import request_log
from bike_pipeline.serving.request_log import Asked, Place, Written
from bike_pipeline.serving.server import tensors
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.parsing import Parsing
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.tensors import Columns, Outputs, Signature
from bike_pipeline.serving.statuses import StatusError
from bike_pipeline.settings.monitoring import RequestLogSettings

REQUEST_ID = "x-request-id"
# What a client may call its request: no text that could do harm in a log, a page or a query.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
# Entries, of which each holds some rows, that wait for the writer at most, and that it gets at once.
_MOST_WAITING, _BATCH = 16_384, 128
_SECONDS = 0.2
# Bytes of strings, which are serialized tf.Examples, that are kept of a request.
_MOST_TEXT = 1 << 20
# The fields of `Asked` and `Entry` as a plain tuple: others take several times as long to make and to hand over.
Kept = tuple[Any, ...]
_ROWS = Asked._fields.index("rows")
_ids = itertools.count(1)
_PREFIX = secrets.token_hex(6)
_log = logging.getLogger(__name__)


def request_id_of(sent: str) -> str:
    """Return a client's request id if it is one, else a new one."""
    return sent if sent and _REQUEST_ID.fullmatch(sent) else f"{_PREFIX}-{next(_ids):x}"


class RequestLog:
    """What waits to be written. All methods belong to the event loop's thread."""

    def __init__(self, settings: RequestLogSettings, folder: Path, metrics: Metrics, timeout_seconds: float) -> None:
        """Prepare it; nothing is written, and no process started, before the first request."""
        self._settings, self._rows = settings, metrics.request_log_rows
        self._place = Place(str(folder), int(settings.file_megabytes * 1e6), settings.files)
        self._waiting: list[Kept] = []
        # Whoever answers, and whoever asks from the same machine, goes before.
        self._writer = Parsing(timeout_seconds, niceness=19, does="writes the request log")
        self._problem, self._dropped = "", 0

    def takes(self) -> bool:
        """Return whether the next request is one of the sample."""
        return self._settings.sample >= 1.0 or random.random() < self._settings.sample  # noqa: S311

    def asked(self, version: ServedVersion, signature: Signature, columns: Columns, outputs: Outputs) -> Kept:
        """Return what is kept of a request that was answered, as of `Asked`: at most so many of its rows."""
        about = (version.number, signature.name, version.batchers[signature.name].backend.name, signature.types)
        if isinstance(columns, tuple):
            return *about, columns, _plain(outputs), 1, version.loaded.quantiles
        most, rows = self._settings.rows_per_request, tensors.rows_of(columns, signature)
        kept = [column[:most] for column in columns.values()] if rows else []
        plain = all(isinstance(one, list) or one.ndim == 1 for one in kept)
        if not rows or not plain or _text_of(signature, kept) > _MOST_TEXT:
            return *about, None, (), 0, None
        if rows > most:
            self._rows.add(("left_out",), rows - most)
            outputs = {name: values[:most] for name, values in outputs.items()}
        return *about, kept, _plain(outputs), min(rows, most), version.loaded.quantiles

    def add(self, entry: Kept) -> None:
        """Take a request, as of `Entry`, or count it as dropped if too many wait."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(entry)
            return
        rows = _rows_of(entry)
        self._rows.add(("dropped",), rows)
        self._tell(f"more than {_MOST_WAITING:,} requests wait to be written", rows)

    async def run(self) -> None:
        """Hand over what waits, until cancelled."""
        while True:
            await asyncio.sleep(_SECONDS)
            await self._hand_over()

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Write what waits, and end."""
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await self._hand_over()
        self._writer.close()

    async def _hand_over(self) -> None:
        # What comes meanwhile has its turn later: under load this ends, too.
        for _ in range(0, len(self._waiting), _BATCH):
            batch = self._waiting[:_BATCH]
            del self._waiting[:_BATCH]
            try:
                content = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
                written: Written = await self._writer.run(request_log.write, content, self._place)
                problem = written.problem
            except asyncio.CancelledError:
                self._rows.add(("dropped",), sum(map(_rows_of, batch)))
                raise
            except StatusError:
                problem = "the process that writes it ended or took too long"
            except Exception as error:  # noqa: BLE001 - whatever the writer raises costs lines, never requests
                _log.exception("a batch of the request log cannot be written")
                problem = type(error).__name__
            rows = sum(map(_rows_of, batch))
            self._rows.add(("dropped" if problem else "logged",), rows)
            self._tell(problem, rows)

    def _tell(self, problem: str, rows: int) -> None:
        """Tell the server's log once that lines are dropped, and once that none are any more."""
        if problem:
            self._dropped += rows
            if not self._problem:
                _log.error("request log: lines are dropped, requests are not (%s)", problem)
        elif self._problem:
            _log.warning("request log: it is written again; %s rows were dropped", self._dropped)
            self._dropped = 0
        self._problem = problem


def _plain(outputs: Outputs) -> tuple[tuple[str, str, tuple[int, ...], bytes], ...]:
    return tuple(
        [(name, one.dtype.str, one.shape, one.tobytes()) for name, one in outputs.items() if one.dtype.kind in "biufc"]
    )


def _rows_of(entry: Kept) -> int:
    asked = entry[-1]
    return max(asked[_ROWS], 1) if asked else 1


def _text_of(signature: Signature, columns: list[tensors.Column]) -> int:
    if not any(kind == tensors.STRING for _, kind in signature.types):
        return 0
    return sum(len(value) for column in columns for value in column if isinstance(value, bytes | str))
