"""What all clients share: calls made of requests, tried again where that is sound, within one deadline.

A protocol turns what is asked into requests and answers into values (`Messages`); a transport sends one request once
(`_send`). Everything else stands here, for the blocking and the asynchronous clients alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
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


@dataclass(frozen=True)
class Exchange(Generic[Value]):
    """One request and how its answer is read.

    Attributes:
        method: what is called: a method of a service, or GET or POST.
        target: the service or the path.
        body: what is sent.
        read: makes a value of the answer.
    """

    method: str
    target: str
    body: Any
    read: Callable[[Any], Value]


class Messages(Protocol):
    """A protocol: what is asked as requests, answers as values."""

    def predict(self, columns: Arrays) -> Exchange[Rentals]:
        """Return the request for predictions."""
        ...

    def status(self) -> Exchange[list[VersionStatus]]:
        """Return the request for the states of all versions."""
        ...

    def metadata(self) -> Exchange[ModelMetadata]:
        """Return the request for the signatures."""
        ...

    def health(self) -> Exchange[bool]:
        """Return the request whether the server serves."""
        ...


class _Shared:
    """What a client is made of."""

    def __init__(self, connection: Connection, messages: Messages) -> None:
        self.connection = connection
        self._messages = messages

    def _deadline(self) -> Deadline:
        return Deadline(self.connection.timeout)

    def _retrying(self, deadline: Deadline) -> dict[str, Any]:
        return self.connection.retries.arguments(deadline)

    def _requests(self, columns: Columns) -> Iterator[Exchange[Rentals]]:
        typed = answers.arrays(columns)
        return (self._messages.predict(part) for part in answers.parts(typed, self.connection.rows_per_request))


class Client(_Shared, ABC):
    """A blocking client; one may be used by several threads.

    Every method takes at most `connection.timeout` seconds as a whole and raises a `ClientError`: `UnavailableError`,
    `TimedOutError`, `UnknownModelError`, `BadRequestError`, `UnauthenticatedError`, `OverloadedError` or
    `ServerFailureError`.
    """

    @abstractmethod
    def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        """Send a request once, wait at most `seconds`, and return the value of the answer."""

    @abstractmethod
    def close(self) -> None:
        """Give the connections back."""

    def _answer(self, exchange: Exchange[Value], deadline: Deadline) -> Value:
        from tenacity import Retrying

        where = self.connection.where
        return Retrying(**self._retrying(deadline))(lambda: self._send(exchange, deadline.remaining(where)))

    def answer(self, exchange: Exchange[Value]) -> Value:
        """Send a request as it is, tried again where that is sound, and return the value of its answer."""
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
        return self._answer(self._messages.status(), self._deadline())

    def metadata(self) -> ModelMetadata:
        """Return what the model takes and gives."""
        return self._answer(self._messages.metadata(), self._deadline())

    def healthy(self) -> bool:
        """Return whether the server serves: by gRPC's health service, else by a version that is available."""
        deadline = self._deadline()
        try:
            return self._answer(self._messages.health(), deadline)
        except ClientError as error:
            # TF Serving switches the health service off where nobody asked for it.
            if error.code != "UNIMPLEMENTED":
                raise
        return any(status.available for status in self._answer(self._messages.status(), deadline))

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the connections back."""
        self.close()


class AsyncClient(_Shared, ABC):
    """A client for one event loop; see `Client` for times and errors."""

    @abstractmethod
    async def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        """Send a request once, wait at most `seconds`, and return the value of the answer."""

    @abstractmethod
    async def close(self) -> None:
        """Give the connections back."""

    async def _answer(self, exchange: Exchange[Value], deadline: Deadline) -> Value:
        from tenacity import AsyncRetrying

        async def once() -> Value:
            return await self._send(exchange, deadline.remaining(self.connection.where))

        return await AsyncRetrying(**self._retrying(deadline))(once)

    async def predict(self, columns: Columns) -> Rentals:
        """Return the predicted rentals an hour, shape (rows,).

        Args:
            columns: one sequence of the same length for each of the model's inputs.
        """
        deadline = self._deadline()
        found = [await self._answer(exchange, deadline) for exchange in self._requests(columns)]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    async def status(self) -> list[VersionStatus]:
        """Return the state of every version that the server knows of, the newest first."""
        return await self._answer(self._messages.status(), self._deadline())

    async def metadata(self) -> ModelMetadata:
        """Return what the model takes and gives."""
        return await self._answer(self._messages.metadata(), self._deadline())

    async def healthy(self) -> bool:
        """Return whether the server serves: by gRPC's health service, else by a version that is available."""
        deadline = self._deadline()
        try:
            return await self._answer(self._messages.health(), deadline)
        except ClientError as error:
            if error.code != "UNIMPLEMENTED":
                raise
        return any(status.available for status in await self._answer(self._messages.status(), deadline))

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the connections back."""
        await self.close()
