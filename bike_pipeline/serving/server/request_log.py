"""Hands what was asked and answered to a process that writes it down, while no request waits for it.

A request leaves some bytes behind. Every fifth of a second they are handed over, a batch at a time, and the next batch
when that one is written: a disk that is slow or full costs lines, never answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import pickle
import re
import secrets
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bike_pipeline.serving import request_log
from bike_pipeline.serving.request_log import HEAD
from bike_pipeline.serving.request_log_files import Place
from bike_pipeline.serving.server import tensors
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.sampling import Sampler
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.tensors import Columns, Outputs, Signature
from bike_pipeline.settings.monitoring import RequestLogSettings

REQUEST_ID = "x-request-id"
# What a client may call its request: no text that could do harm in a log, a page or a query.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
# Entries, of which each holds some rows, that the writer gets at once; and how many batches wait for it at most, and so
# many that it makes no pauses.
_BATCH, _MOST_BATCHES, _MANY_BATCHES = 1024, 16, 2
_SECONDS = 0.2
# Bytes of strings, which are serialized tf.Examples, that are kept of a request.
_MOST_TEXT = 1 << 20
# Plain tuples take a part of the time of others to make and to hand over: the fields of `About`, then columns and
# outputs as of `Entry`, and how many rows they are.
Kept = tuple[Any, ...]
_ids = itertools.count(1)
_PREFIX = secrets.token_hex(6)
_log = logging.getLogger(__name__)


def request_id_of(sent: str) -> str:
    """Return a client's request id if it is one, else a new one."""
    return sent if sent and _REQUEST_ID.fullmatch(sent) else f"{_PREFIX}-{next(_ids):x}"


@dataclass(slots=True)
class _Batch:
    """Requests that are written together: each pickled, what some have in common by its id, the rows of all of them."""

    entries: list[bytes] = field(default_factory=list)
    about: dict[int, Kept] = field(default_factory=dict)
    rows: int = 0


class RequestLog:
    """What waits to be written. All methods belong to the event loop's thread."""

    def __init__(self, settings: RequestLogSettings, folder: Path, metrics: Metrics, timeout_seconds: float) -> None:
        """Prepare it; nothing is written, and no process started, before the first request."""
        self._settings, self._rows, self._rate = settings, metrics.request_log_rows, metrics.request_log_rate
        self._sampler = Sampler(settings.sample, settings.per_second)
        self._batches = deque([_Batch()])
        self._writer = _Writer(Place(str(folder), int(settings.file_megabytes * 1e6), settings.files), timeout_seconds)
        self._problem, self._dropped = "", 0
        self._stopping = asyncio.Event()

    def takes(self, request_id: str, now: int) -> float:
        """Return of which share the request is that begins now (see `Sampler.takes`); 0.0 if it is not logged."""
        return self._sampler.takes(request_id, now)

    def asked(self, version: ServedVersion, signature: Signature, columns: Columns, outputs: Outputs) -> Kept:
        """Return what is kept of a request that was answered: at most so many of its rows."""
        about = version.about[signature.name]
        if isinstance(columns, tuple):
            return about, columns, _plain(outputs), 1
        most, rows = self._settings.rows_per_request, tensors.rows_of(columns, signature)
        kept = [column[:most] for column in columns.values()] if rows else []
        plain = all(isinstance(one, list) or one.ndim == 1 for one in kept)
        if not rows or not plain or _text_of(signature, kept) > _MOST_TEXT:
            return about, None, (), 1
        if rows > most:
            self._rows.add(("left_out",), rows - most)
            outputs = {name: values[:most] for name, values in outputs.items()}
        return about, kept, _plain(outputs), min(rows, most)

    def add(self, entry: Kept, asked: Kept | None) -> None:
        """Take a request, the first fields of `Entry`, and what it asked, or count it as dropped if too many wait."""
        about, columns, outputs, rows = asked or (None, None, (), 1)
        batch = self._batches[-1]
        if len(batch.entries) == _BATCH:
            if len(self._batches) == _MOST_BATCHES:
                self._rows.add(("dropped",), rows)
                self._tell(f"more than {_BATCH * _MOST_BATCHES:,} requests wait to be written", rows)
                return
            self._batches.append(batch := _Batch())
        batch.entries.append(pickle.dumps((entry, id(about), columns, outputs), pickle.HIGHEST_PROTOCOL))
        batch.about[id(about)] = about
        batch.rows += rows

    async def run(self) -> None:
        """Hand over what waits, until it is stopped; then the rest."""
        while not self._stopping.is_set():
            self._rate.set(self._sampler.rate)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _SECONDS)
            await self._hand_over()
        # What came while the last batches were written.
        await self._hand_over()
        await self._writer.close()

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Write what waits, and end."""
        self._stopping.set()
        await running

    async def _hand_over(self) -> None:
        # What comes meanwhile has its turn later: under load this ends, too.
        for _ in range(len(self._batches) if self._batches[0].entries else 0):
            batch = self._batches.popleft()
            if not self._batches:
                self._batches.append(_Batch())
            message = pickle.dumps((batch.about, batch.entries), pickle.HIGHEST_PROTOCOL)
            problem = await self._writer.write(message, len(self._batches) > _MANY_BATCHES)
            self._rows.add(("dropped" if problem else "logged",), batch.rows)
            self._tell(problem, batch.rows)

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


class _Writer:
    """The process that writes, started by the first batch, and anew by the next one where it ended.

    Nothing of it needs a thread, which would take the interpreter from the event loop again and again.
    """

    def __init__(self, place: Place, timeout_seconds: float) -> None:
        self._place, self._timeout = place, timeout_seconds
        self._process: asyncio.subprocess.Process | None = None

    async def write(self, batch: bytes, hurry: bool) -> str:
        """Return why a batch of entries could not be written; "" if it was. In a `hurry` it makes no pauses."""
        try:
            async with asyncio.timeout(self._timeout):
                if self._process is None or self._process.returncode is not None:
                    self._process = await self._started()
                to, back = self._process.stdin, self._process.stdout
                assert to is not None
                assert back is not None
                to.write(len(batch).to_bytes(HEAD, "little") + bytes([hurry]) + batch)
                await to.drain()
                length = int.from_bytes(await back.readexactly(HEAD), "little")
                return (await back.readexactly(length)).decode()
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            await self.close(kill=True)
            return f"the process that writes it ended or took too long ({type(error).__name__})"

    async def _started(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", request_log.__name__, *map(str, dataclasses.astuple(self._place))]
        return await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def close(self, *, kill: bool = False) -> None:
        """Let it end, or end it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            if kill:
                process.kill()
            process.stdin.close()
            await asyncio.wait_for(process.wait(), self._timeout)


def _plain(outputs: Outputs) -> tuple[tuple[str, str, tuple[int, ...], bytes], ...]:
    return tuple(
        [(name, one.dtype.char, one.shape, one.tobytes()) for name, one in outputs.items() if one.dtype.kind in "biufc"]
    )


def _text_of(signature: Signature, columns: list[tensors.Column]) -> int:
    if not any(kind == tensors.STRING for _, kind in signature.types):
        return 0
    return sum(len(value) for column in columns for value in column if isinstance(value, bytes | str))
