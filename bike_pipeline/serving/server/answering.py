"""What both protocols do with a request: find the version and the signature, ask the model, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from bike_pipeline.serving.security.limits import take_rows
from bike_pipeline.serving.security.request_size import check_rows
from bike_pipeline.serving.server import signatures, tensors
from bike_pipeline.serving.server.batching import Column, Columns, Outputs
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.model_versions import ModelVersions
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.statuses import Code, StatusError, invalid


class Counted:
    """One request as the metrics count it, from here to its answer; a context manager."""

    __slots__ = ("_api", "_began", "_entrypoint", "_metrics", "_model")

    def __init__(self, metrics: Metrics, model: str, entrypoint: str, api: str) -> None:
        self._metrics, self._model, self._entrypoint, self._api = metrics, model, entrypoint, api
        self._began = time.perf_counter()

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            code = Code.OK
        elif isinstance(error, StatusError):
            code = error.code
        else:
            # A request is cancelled if whoever asked is gone.
            code = Code.CANCELLED if isinstance(error, asyncio.CancelledError) else Code.INTERNAL
        self._metrics.request_count.add((self._model, code.name))
        microseconds = (time.perf_counter() - self._began) * 1e6
        self._metrics.request_latency.add((self._model, self._api, self._entrypoint), microseconds)


class Answering:
    """Asks models on behalf of requests of at most `max_rows`, and counts them."""

    def __init__(self, versions: ModelVersions, metrics: Metrics, max_rows: int) -> None:
        self.versions = versions
        self.metrics = metrics
        self.max_rows = max_rows

    def counting(self, model: str, entrypoint: str, api: str = "Predict") -> Counted:
        """Return what counts a request; the API is Predict, Classify, Regress or MultiInference."""
        return Counted(self.metrics, model if model in self.versions.models else "unknown", entrypoint, api)

    async def predict(
        self, version: ServedVersion, signature: Signature, columns: Columns, rows: int | None
    ) -> Outputs:
        """Return the outputs of one request.

        Args:
            version: what answers; the caller keeps it in memory.
            signature: the signature to run.
            columns: every input.
            rows: their rows; None if the request is answered alone (`tensors.rows_of`).

        Raises:
            StatusError: the model refuses, too many wait, or it took too long.
            StatusError: they are more rows than one request, or one client at the same time, may have.
        """
        counted = rows
        if counted is None:
            assert not isinstance(columns, tuple)
            counted = tensors.most_rows(columns)
        check_rows(counted, self.max_rows)
        take_rows(counted)
        batcher = version.batchers.get(signature.name) or await version.batcher(signature)
        if rows is None and not batcher.backend.any_shape:
            assert not isinstance(columns, tuple)
            raise tensors.unfitting(columns, signature)
        if rows is None or rows <= batcher.max_rows or isinstance(columns, tuple):
            outputs = await batcher.submit(columns, rows)
        else:
            outputs = await batcher.in_parts(columns, rows)
        self.metrics.example_count.add((version.model,), counted)
        self.metrics.example_counts.add((version.model,), counted)
        return outputs

    async def examples(
        self, version: ServedVersion, signature: Signature, columns: Mapping[str, Column]
    ) -> tuple[Outputs, int]:
        """Return the outputs of a classify or regress signature, and the number of examples; see `predict`."""
        rows = tensors.most_rows(columns)
        return await self.predict(version, signature, columns, tensors.rows_of(columns, signature)), rows


def signature_of(found: Mapping[str, Signature], name: str, rest: bool) -> Signature:
    """Return the signature that a predict request asks for, or refuse; REST and gRPC do so with different codes."""
    name = name or signatures.DEFAULT
    signature = found.get(name)
    if signature is None and rest:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if signature is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signature


def check_filter(wanted: list[str], signature: Signature) -> None:
    """Refuse an output filter that names an output which the signature lacks, or one twice."""
    for position, alias in enumerate(wanted):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if alias in wanted[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")
