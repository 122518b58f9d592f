"""What both clients share: columns and answers, and calls made of requests, tried again within one deadline."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.serving.clients.connection import Connection, Deadline, Value
from bike_pipeline.serving.clients.errors import BadRequestError, ClientError, ServerFailureError

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
Arrays = dict[str, npt.NDArray[Any]]
Rentals = npt.NDArray[np.float32]
_DTYPES = {"int": np.int64, "float": np.float32}
# Calls that an asynchronous client makes at the same time; more of them wait for a thread.
_THREADS = 64


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version: START, LOADING, AVAILABLE, UNLOADING or END, and what went wrong."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""

    @property
    def available(self) -> bool:
        return self.state == "AVAILABLE"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: TensorFlow's name of its type, and its sizes, -1 for any; None for any rank."""

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class SignatureInfo:
    """What a signature takes and gives, by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclass(frozen=True)
class ModelMetadata:
    """What a version of the model takes and gives, by the signature's name."""

    model: str
    version: int
    signatures: dict[str, SignatureInfo]


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


class Client(AbstractContextManager["Client", None]):
    """A blocking client; one may be used by several threads.

    Every method takes at most `connection.timeout` seconds as a whole and raises a `ClientError`: `UnavailableError`,
    `TimedOutError`, `UnknownModelError`, `BadRequestError`, `UnauthenticatedError`, `OverloadedError` or
    `ServerFailureError`.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @abstractmethod
    def predict_request(self, columns: Arrays) -> Exchange[Rentals]: ...
    @abstractmethod
    def _status_request(self) -> Exchange[list[VersionStatus]]: ...
    @abstractmethod
    def _metadata_request(self) -> Exchange[ModelMetadata]: ...
    @abstractmethod
    def _health_request(self) -> Exchange[bool]: ...

    @abstractmethod
    def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        """Send a request once, wait at most `seconds`, and return the value of the answer."""

    @abstractmethod
    def close(self) -> None:
        """Give the connections back."""

    def answer(self, exchange: Exchange[Value], deadline: Deadline | None = None) -> Value:
        """Send a request as it is, tried again if that is sound, and return the value of its answer."""
        where, by = self.connection.where, deadline or Deadline(self.connection.timeout)
        return self.connection.retries.run(lambda: self._send(exchange, by.remaining(where)), by)

    def predict(self, columns: Columns) -> Rentals:
        """Return the predicted rentals an hour, shape (rows,), of one column for each of the model's inputs."""
        deadline, size = Deadline(self.connection.timeout), self.connection.rows_per_request
        typed, found = arrays(columns), [np.zeros(0, np.float32)]
        for start in range(0, len(next(iter(typed.values()))), size):
            part = {name: values[start : start + size] for name, values in typed.items()}
            found.append(self.answer(self.predict_request(part), deadline))
        return np.concatenate(found)

    def status(self) -> list[VersionStatus]:
        """Return the state of every version that the server knows of, the newest first."""
        return self.answer(self._status_request())

    def metadata(self) -> ModelMetadata:
        return self.answer(self._metadata_request())

    def healthy(self) -> bool:
        """Return whether the server serves: by gRPC's health service, else by a version that is available."""
        deadline = Deadline(self.connection.timeout)
        try:
            return self.answer(self._health_request(), deadline)
        except ClientError as error:
            # TF Serving switches the health service off if nobody asked for it.
            if error.code != "UNIMPLEMENTED":
                raise
        return any(status.available for status in self.answer(self._status_request(), deadline))

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(AbstractAsyncContextManager["AsyncClient", None]):
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

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def arrays(columns: Columns) -> Arrays:
    """Return the model's inputs as arrays of the types that its signature has, shape (rows,) each, or refuse them.

    The optional ones are among them, all, if one of them is given.
    """
    inputs = features.REQUIRED_INPUTS
    if any(name in columns for name in features.OPTIONAL_NAMES):
        inputs, columns = features.MODEL_INPUTS, features.with_defaults(columns)
    missing = [feature.name for feature in inputs if feature.name not in columns]
    if missing:
        raise BadRequestError(f"missing: {', '.join(missing)}", where="columns", fix="give one column for every input")
    found: Arrays = {}
    for feature in inputs:
        try:
            found[feature.name] = np.asarray(columns[feature.name], _DTYPES[feature.kind])
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequestError(str(error), where=f"column {feature.name}", fix=f"give {feature.kind}s") from None
    shapes = {values.shape for values in found.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise BadRequestError(
            f"shapes differ or are no columns: {sorted(shapes)}", where="columns", fix="give the same rows in each"
        )
    return found


def signature_for(connection: Connection, columns: Arrays) -> str:
    """Return the signature to ask: the connection's, else the one that takes these columns; "" for the served one."""
    every = features.SERVING_ALL_INPUTS if features.OPTIONAL_NAMES[0] in columns else ""
    return connection.signature or every


def rentals(values: Any, rows: int, where: str) -> npt.NDArray[np.float32]:
    """Return a server's answer as rentals an hour, shape (rows,), or refuse what is no number a row."""
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if found.size != rows:
        raise no_answer(f"the answer holds no number for each of the {rows} rows", where)
    return found.reshape(rows)


def no_answer(what: str, where: str) -> ServerFailureError:
    """Return the error for something that no server of this model answers."""
    return ServerFailureError(what, where=where, fix="check that the address is a model server's, and the model's name")


def statuses(response: Any) -> list[VersionStatus]:
    """Return what a GetModelStatusResponse says of each version."""
    from bike_pipeline.serving import protos

    state, code = protos.get_model_status_pb2.ModelVersionStatus.State, protos.error_codes_pb2.Code
    return [
        VersionStatus(one.version, state.Name(one.state), code.Name(one.status.error_code), one.status.error_message)
        for one in response.model_version_status
    ]


def model_metadata(model: str, version: int, definitions: Any) -> ModelMetadata:
    """Return what a SignatureDefMap says of a version."""
    signatures = {
        name: SignatureInfo(_tensors(one.inputs), _tensors(one.outputs))
        for name, one in definitions.signature_def.items()
    }
    return ModelMetadata(model, version, signatures)


def _tensors(infos: Any) -> dict[str, TensorInfo]:
    from bike_pipeline.serving.protos import types_pb2

    return {
        name: TensorInfo(
            types_pb2.DataType.Name(one.dtype),
            None if one.tensor_shape.unknown_rank else tuple(dim.size for dim in one.tensor_shape.dim),
        )
        for name, one in infos.items()
    }
