"""What both protocols do with a request: find the version and the signature, ask the model, count."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bike_pipeline.serving.server import signatures
from bike_pipeline.serving.server.batching import Column, Outputs
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.server.statuses import Code, StatusError, invalid


class Answering:
    """Asks models on behalf of requests.

    Attributes:
        metrics: what was asked and how long it took.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Count in these metrics."""
        self.metrics = metrics

    async def predict(
        self, version: ServedVersion, signature: Signature, columns: Mapping[str, Column], rows: int
    ) -> Outputs:
        """Return the outputs of one request.

        Args:
            version: what answers; the caller keeps it in memory.
            signature: the signature to run.
            columns: every input.
            rows: their rows; 0 where the signature does not batch.

        Raises:
            StatusError: the model refuses, too many wait, or it took too long.
        """
        batcher = version.batcher_at_hand(signature.name) or await version.batcher(signature)
        outputs = await batcher.submit(columns, rows)
        self.metrics.example_count.add((version.model,), rows)
        self.metrics.example_counts.add((version.model,), rows)
        return outputs

    def count(self, model: str, entrypoint: str, began: float, code: Code) -> None:
        """Count one answered request.

        Args:
            model: the model that was asked for.
            entrypoint: REST or GRPC.
            began: `time.perf_counter()` at its beginning.
            code: how it ended.
        """
        self.metrics.request_count.add((model, code.name))
        self.metrics.request_latency.add((model, "Predict", entrypoint), (time.perf_counter() - began) * 1e6)


def signature_of(version: ServedVersion, name: str, rest: bool) -> Signature:
    """Return the signature that a predict request asks for.

    Args:
        version: the version that answers.
        name: the signature's name; empty for the default.
        rest: whether the REST API asks, which TF Serving answers with another code.

    Raises:
        StatusError: there is no such signature.
    """
    name = name or signatures.DEFAULT
    found = version.loaded.signatures.get(name)
    if found is None and rest:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if found is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return found


def refuse_examples_api(version: ServedVersion, name: str, kind: str) -> StatusError:
    """Return why a model without such a signature does not classify or regress, as TF Serving says it.

    Args:
        version: the version that was asked.
        name: the signature's name; empty for the default.
        kind: "classification" or "regression".
    """
    name = name or signatures.DEFAULT
    found = version.loaded.signatures.get(name)
    if found is None:
        return invalid(f"No signature was found with the name: {name}")
    if len(found.inputs) != 1:
        return invalid("Expected one input Tensor.")
    return invalid(f"No {kind} inputs found in SignatureDef: {name}")


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
