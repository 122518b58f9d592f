"""Requests that arrive together are answered by one call of the model; one that comes alone does not wait.

The event loop reads every socket that has something, and only then calls what was scheduled meanwhile: the requests
of a few turns of the loop are one batch, without any timer. A turn with nothing to read takes some microseconds; gRPC
brings one request a turn, REST many. Small batches of a quick backend are answered right there, since handing 20 µs of
work to another thread costs more than the work. Anything longer goes to a thread; what arrives while it works is the
next batch.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
import timeit
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bike_pipeline.serving.server.backends import Backend
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.model_metrics import VersionMetrics
from bike_pipeline.serving.server.tensors import Array, Column, Columns, Outputs, Signature, numpy_type
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings.serving import ServerSettings

# Longest call that may hold the event loop up, in seconds.
_INLINE_SECONDS = 0.001
# Turns of the event loop that a request waits for others, and what need not wait for more.
_FEWEST_TURNS, _MOST_TURNS = 4, 32
_ENOUGH_REQUESTS = 16
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    columns: Columns
    rows: int
    alone: bool
    answer: asyncio.Future[Outputs]
    since: float
    watched: bool


def quick_rows(backend: Backend, inputs: Mapping[str, Array]) -> int:
    """Call a backend with every number of rows that it is prepared for; return how many it answers in a moment."""
    quick = 0
    most = len(next(iter(inputs.values())))
    for size in backend.sizes or (1, 8, 64):
        call = functools.partial(backend.run, {name: values[:size] for name, values in inputs.items()})
        call()
        if min(timeit.repeat(call, number=1, repeat=3)) < _INLINE_SECONDS and size <= most:
            quick = size
    return quick


class Resources(NamedTuple):
    """What all models of a server share; among it the threads that load versions, and that wait for long calls."""

    settings: ServerSettings
    loading: Executor
    answering: Executor
    metrics: Metrics


class Batcher:
    """Answers the requests of one signature of one version. All methods belong to the event loop's thread.

    Attributes:
        backend: what answers; nobody else may use it.
        max_rows: most rows of one call; a request of more is asked for `in_parts`.
    """

    def __init__(
        self, backend: Backend, signature: Signature, model: str, resources: Resources, watched: VersionMetrics
    ) -> None:
        self.backend = backend
        self.max_rows = resources.settings.batching.max_rows
        self._max_waiting = resources.settings.batching.max_waiting_requests
        self._timeout = resources.settings.request_timeout_seconds
        self._executor, self._metrics = resources.answering, resources.metrics
        self._loop = asyncio.get_running_loop()
        self._model = (model,)
        self._signature = signature
        self._types = {name: np.dtype(numpy_type(spec.dtype)) for name, spec in signature.inputs.items()}
        self._waiting: deque[_Waiting] = deque()
        self._running: list[_Waiting] = []
        self._watched = watched.table(signature)
        self._answered: list[tuple[dict[str, Array], Outputs, int]] = []
        self._turn, self._turns = 0, _FEWEST_TURNS
        self._scheduled = self._sweeping = False

    def submit(self, columns: Columns, rows: int | None, watched: bool = True) -> asyncio.Future[Outputs]:
        """Return the future answer, given alone if rows is None (see `tensors.rows_of`); refuse if too many wait.

        What is not `watched` is left out of what the metrics say of inputs and answers.
        """
        if len(self._waiting) >= self._max_waiting:
            # What TF Serving says if its batching queue is full.
            raise StatusError(Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full")
        answer: asyncio.Future[Outputs] = self._loop.create_future()
        self._waiting.append(_Waiting(columns, rows or 0, rows is None, answer, time.perf_counter(), watched))
        self._schedule()
        return answer

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled and not self._running:
            self._scheduled = True
            self._loop.call_soon(self._next)

    async def in_parts(self, columns: Mapping[str, Column], rows: int, watched: bool = True) -> Outputs:
        """Return the outputs of a request whose rows are asked for in parts: others are answered between them."""
        ends = time.perf_counter() + self._timeout
        answers: list[Outputs] = []
        for start in range(0, rows, self.max_rows):
            if time.perf_counter() > ends:
                raise self._too_late()
            part = slice(start, min(start + self.max_rows, rows))
            columns_of_part = {name: column[part] for name, column in columns.items()}
            answers.append(await self.submit(columns_of_part, part.stop - part.start, watched))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _too_late(self) -> StatusError:
        return StatusError(Code.DEADLINE_EXCEEDED, f"no answer within {self._timeout:g} s")

    def _next(self) -> None:
        if self._turn < self._turns and len(self._waiting) < _ENOUGH_REQUESTS:
            self._turn += 1
            self._loop.call_soon(self._next)
            return
        self._turn = 0
        self._scheduled = False
        batch = self._take()
        if not batch:
            return
        # Where waiting brought company it is worth more of it, else less: one client alone is not taxed.
        self._turns = min(self._turns * 2, _MOST_TURNS) if len(batch) > 1 else max(self._turns // 2, _FEWEST_TURNS)
        rows = sum(item.rows for item in batch)
        now = time.perf_counter()
        self._metrics.batch_size.add(self._model, rows)
        for item in batch:
            self._metrics.queuing_latency.add(self._model, (now - item.since) * 1e6)
        if rows <= self.backend.quick_rows and not batch[0].alone:
            self._done(batch, self._answer(batch))
            return
        self._running = batch
        if not self._sweeping:
            self._sweep()
        self._loop.run_in_executor(self._executor, self._answer, batch).add_done_callback(
            lambda done: self._done(batch, done.result())
        )

    def _done(self, batch: list[_Waiting], answers: Sequence[Outputs | StatusError]) -> None:
        self._running = []
        for item, answer in zip(batch, answers, strict=True):
            # Whoever asked may be gone.
            if item.answer.done():
                continue
            if isinstance(answer, StatusError):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)
        self._schedule()
        if self._watched is not None:
            for answered in self._answered:
                self._watched.add(*answered)
        self._answered.clear()

    def _sweep(self) -> None:
        """End what waits too long; looked after only while a thread works, since all else is answered at once."""
        self._sweeping = bool(self._running or self._waiting)
        if not self._sweeping:
            return
        limit = time.perf_counter() - self._timeout
        for item in (*self._running, *self._waiting):
            if item.since < limit and not item.answer.done():
                item.answer.set_exception(self._too_late())
        self._loop.call_later(min(1.0, self._timeout / 4), self._sweep)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            item = self._waiting[0]
            if item.answer.done():
                self._waiting.popleft()
                continue
            other = item.alone or (batch and (batch[0].alone or batch[0].watched != item.watched))
            if batch and (rows + item.rows > self.max_rows or other):
                break
            batch.append(self._waiting.popleft())
            rows += item.rows
        return batch

    def _answer(self, batch: list[_Waiting]) -> list[Outputs | StatusError]:
        try:
            return list(self._run(batch))
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is one request's failure, not the server's
            if len(batch) > 1:
                # One request must not spoil its neighbours': each is asked alone.
                return [answer for item in batch for answer in self._answer([item])]
            if isinstance(error, StatusError):
                return [error]
            _log.exception("%s failed", self.backend.name)
            return [StatusError(Code.INTERNAL, f"{self.backend.name} failed")]

    def _run(self, batch: list[_Waiting]) -> list[Outputs]:
        total, padding = sum(item.rows for item in batch), 0
        if total or batch[0].alone:
            padding = next((size - total for size in self.backend.sizes if size >= total), 0)
            inputs = self._inputs_of(batch, padding)
            began = time.perf_counter()
            outputs = self.backend.run(inputs)
            took = (time.perf_counter() - began) * 1e6
            self._metrics.runtime_latency.add((*self._model, "Predict", self.backend.name), took)
            if batch[0].watched:
                self._answered.append((inputs, outputs, total))
        else:
            outputs = {
                name: np.zeros((0, *(spec.shape or ())[1:]), numpy_type(spec.dtype))
                for name, spec in self._signature.outputs.items()
            }
        if len(batch) == 1 and not padding:
            # A model may give another number of rows than it was given.
            return [outputs]
        ends = itertools.accumulate(item.rows for item in batch)
        return [
            {name: values[end - item.rows : end] for name, values in outputs.items()}
            for item, end in zip(batch, ends, strict=True)
        ]

    def _inputs_of(self, batch: list[_Waiting], padding: int) -> dict[str, Array]:
        """Return the joined inputs of a batch, filled up with the last row: one that the model knows how to answer."""
        columns = [item.columns for item in batch]
        if all(type(one) is tuple for one in columns):
            rows = columns + columns[-1:] * padding
            return {
                name: np.array(values, kind)
                for (name, kind), values in zip(self._types.items(), zip(*rows, strict=True), strict=True)
            }
        named = [
            dict(zip(self._types, ([value] for value in one), strict=True)) if isinstance(one, tuple) else one
            for one in columns
        ]
        return {name: _joined([one[name] for one in named], kind, padding) for name, kind in self._types.items()}


def _joined(columns: list[Column], kind: np.dtype[Any], padding: int) -> Array:
    if all(isinstance(column, list) for column in columns):
        values = [value for column in columns for value in column]
        return np.array(values + values[-1:] * padding, kind)
    arrays = [np.asarray(column, kind) for column in columns]
    joined = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return np.concatenate([joined, np.repeat(joined[-1:], padding, axis=0)]) if padding else joined
