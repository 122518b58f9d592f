"""What both clients share: calls made of requests, tried again if that is sound, within one deadline."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from bike_pipeline.serving.clients import answers
from bike_pipeline.serving.clients.answers import Arrays, Columns, ModelMetadata, VersionStatus
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.deadline import Deadline
from bike_pipeline.serving.clients.errors import ClientError

Value = TypeVar("Value")
Rentals = npt.NDArray[np.float32]
# Calls that an asynchronous client makes at the same time; more of them wait for a thread.
_THREADS = 64


@dataclass(frozen=True)
class Exchange(Generic[Value]):
    """One request and how its answer is read.

    Attributes:
        method: a method of a service, or GET or POST.
        target: the service or the path.
        body: what is sent.
        read: makes a value of the answer.
    """

    method: str
    target: str
    body: Any
    read: Callable[[Any], Value]


class Messages(Protocol):
    """A protocol: questions to a model as requests, answers as values; without a network."""

    def predict(self, columns: Arrays) -> Exchange[Rentals]: ...
    def status(self) -> Exchange[list[VersionStatus]]: ...
    def metadata(self) -> Exchange[ModelMetadata]: ...
    def health(self) -> Exchange[bool]: ...


class Client(ABC):
    """A blocking client; one may be used by several threads.

    Every method takes at most `connection.timeout` seconds as a whole and raises a `ClientError`: `UnavailableError`,
    `TimedOutError`, `UnknownModelError`, `BadRequestError`, `UnauthenticatedError`, `OverloadedError` or
    `ServerFailureError`.
    """

    def __init__(self, connection: Connection, messages: Messages) -> None:
        self.connection = connection
        self._messages = messages

    @abstractmethod
    def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        """Send a request once, wait at most `seconds`, and return the value of the answer."""

    @abstractmethod
    def close(self) -> None:
        """Give the connections back."""

    def _deadline(self) -> Deadline:
        return Deadline(self.connection.timeout)

    def _requests(self, columns: Columns) -> Iterator[Exchange[Rentals]]:
        typed, size = answers.arrays(columns), self.connection.rows_per_request
        for start in range(0, len(next(iter(typed.values()))), size):
            yield self._messages.predict({name: values[start : start + size] for name, values in typed.items()})

    def _answer(self, exchange: Exchange[Value], deadline: Deadline) -> Value:
        where = self.connection.where
        return self.connection.retries.run(lambda: self._send(exchange, deadline.remaining(where)), deadline)

    def answer(self, exchange: Exchange[Value]) -> Value:
        """Send a request as it is, tried again if that is sound, and return the value of its answer."""
        return self._answer(exchange, self._deadline())

    def predict(self, columns: Columns) -> Rentals:
        """Return the predicted rentals an hour, shape (rows,).

        Args:
            columns: one sequence of the same length for each of the model's inputs.
        """
        deadline = self._deadline()
        found = [self._answer(exchange, deadline) for exchange in self._requests(columns)]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def status(self) -> list[VersionStatus]:
        """Return the state of every version that the server knows of, the newest first."""
        return self.answer(self._messages.status())

    def metadata(self) -> ModelMetadata:
        return self.answer(self._messages.metadata())

    def healthy(self) -> bool:
        """Return whether the server serves: by gRPC's health service, else by a version that is available."""
        deadline = self._deadline()
        try:
            return self._answer(self._messages.health(), deadline)
        except ClientError as error:
            # TF Serving switches the health service off if nobody asked for it.
            if error.code != "UNIMPLEMENTED":
                raise
        return any(status.available for status in self._answer(self._messages.status(), deadline))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same for an event loop: each call of a blocking client waits in a thread.

    A call that is cancelled goes on in its thread until it is answered or its time is over.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(_THREADS, "model-server-client")

    async def _wait(self, method: Callable[..., Value], *arguments: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, method, *arguments)

    async def predict(self, columns: Columns) -> Rentals:
        return await self._wait(self._client.predict, columns)

    async def status(self) -> list[VersionStatus]:
        return await self._wait(self._client.status)

    async def metadata(self) -> ModelMetadata:
        return await self._wait(self._client.metadata)

    async def healthy(self) -> bool:
        return await self._wait(self._client.healthy)

    async def close(self) -> None:
        self._threads.shutdown(wait=False)
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
