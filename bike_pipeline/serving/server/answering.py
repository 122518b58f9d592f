"""What both protocols do with a request: find the version and the signature, ask the model, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bike_pipeline.serving.security.request_size import check_rows
from bike_pipeline.serving.security.shares import take_rows
from bike_pipeline.serving.server import signatures, tensors
from bike_pipeline.serving.server.batching import Column, Columns, Outputs
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.server.statuses import Code, StatusError, invalid


class Answering:
    """Asks models on behalf of requests.

    Attributes:
        metrics: what was asked and how long it took.
        max_rows: most rows in one request.
    """

    def __init__(self, metrics: Metrics, max_rows: int) -> None:
        """Count in these metrics, and answer no more than so many rows at once."""
        self.metrics = metrics
        self.max_rows = max_rows

    async def predict(
        self, version: ServedVersion, signature: Signature, columns: Columns, rows: int | None
    ) -> Outputs:
        """Return the outputs of one request.

        Args:
            version: what answers; the caller keeps it in memory.
            signature: the signature to run.
            columns: every input.
            rows: their rows; None where the request is answered alone (`tensors.rows_of`).

        Raises:
            StatusError: the model refuses, too many wait, or it took too long.
            Refusal: they are more rows than one request, or one client at the same time, may have.
        """
        counted = rows
        if counted is None:
            assert not isinstance(columns, tuple)
            counted = tensors.most_rows(columns)
        check_rows(counted, self.max_rows)
        take_rows(counted)
        batcher = version.batcher_at_hand(signature.name) or await version.batcher(signature)
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
        """Return the outputs of a classify or regress signature, and the number of examples.

        Args:
            version: what answers; the caller keeps it in memory.
            signature: the signature to run.
            columns: the examples, see `examples_api.columns_of`.

        Raises:
            StatusError: as for `predict`.
            Refusal: as for `predict`.
        """
        rows = tensors.most_rows(columns)
        return await self.predict(version, signature, columns, tensors.rows_of(columns, signature)), rows

    @contextmanager
    def counting(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count what is done within as one request (see `count`)."""
        began = time.perf_counter()
        code = Code.INTERNAL
        try:
            yield
            code = Code.OK
        except StatusError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            # Whoever asked is gone.
            code = Code.CANCELLED
            raise
        finally:
            self.count(model, entrypoint, began, code, api)

    def count(self, model: str, entrypoint: str, began: float, code: Code, api: str = "Predict") -> None:
        """Count one answered request.

        Args:
            model: the model that was asked for.
            entrypoint: REST or GRPC.
            began: `time.perf_counter()` at its beginning.
            code: how it ended.
            api: Predict, Classify, Regress or MultiInference.
        """
        self.metrics.request_count.add((model, code.name))
        self.metrics.request_latency.add((model, api, entrypoint), (time.perf_counter() - began) * 1e6)


def signature_of(there: Mapping[str, Signature], name: str, rest: bool) -> Signature:
    """Return the signature that a predict request asks for.

    Args:
        there: the signatures of the version that answers.
        name: the signature's name; empty for the default.
        rest: whether the REST API asks, which TF Serving answers with another code.

    Raises:
        StatusError: there is no such signature.
    """
    name = name or signatures.DEFAULT
    found = there.get(name)
    if found is None and rest:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if found is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return found


def check_filter(wanted: list[str], signature: Signature) -> None:
    """Hold a request's output filter to the signature.

    Raises:
        StatusError: it names an output that is not there, or one twice.
    """
    for position, alias in enumerate(wanted):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if alias in wanted[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")
