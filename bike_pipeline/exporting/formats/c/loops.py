"""Which operations one loop in C does together: what only they read of each other needs no room but for one number."""

from __future__ import annotations

from collections.abc import Sequence

from bike_pipeline.exporting.formats.frozen_graph import Operation

# What is no loop over the numbers of a value, each by itself.
APART = ("MatMul", "Pack", "Unpack", "ConcatV2")


def trips(operation: Operation) -> int:
    """Return how often the loop of an operation goes round."""
    return (operation.inputs if operation.kind == "Sum" else operation.outputs)[0].size


def loops(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Return the operations in their order, those together that one loop over the numbers of a value does."""
    grouped: list[list[Operation]] = []
    for operation in operations:
        last = grouped[-1] if grouped else []
        # A sum is there only after the last trip, and so are all places of a vector.
        ready = {value.name: each.kind != "Sum" for each in last for value in each.outputs}
        whole = operation.inputs[:1] if operation.kind == "GatherV2" else ()
        if (
            last
            and operation.kind not in APART
            and last[0].kind not in APART
            and trips(operation) == trips(last[0])
            and all(ready.get(value.name, True) for value in operation.inputs)
            and not any(value.name in ready for value in whole)
        ):
            last.append(operation)
        else:
            grouped.append([operation])
    return grouped
