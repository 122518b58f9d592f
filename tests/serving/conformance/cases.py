"""What TF Serving's documentation and tests say of REST, one case each: source, request, its answer, the answer here.

Facts of tensorflow/serving: g3doc/api_rest.md, util/json_tensor_test.cc, and http_rest_api_handler_test.cc and
http_rest_api_util_test.cc of model_servers. Where documentation and the older tests contradict each other (numbers that
a float does not hold), the documentation counts, which describes releases since 2.10. What no test shows is taken from
the source named.

    python -m tests.serving.conformance.cases

prints the table of docs/tf-serving-conformance.md.
"""

from __future__ import annotations

import json
from typing import Any

from tests.serving.conformance.case import REST, SAME, STATUS, THREE, Case, as_bytes, ask, predict
from tests.serving.conformance.tensor_cases import EXAMPLE_CASES, TENSORS
from tests.serving.conformance.url_cases import SOURCE, URLS

DOCUMENTED = [
    Case(f"{REST}: status of a model", f"GET /v1/models/{THREE}", "", 200, STATUS),
    Case(f"{REST}: status of a version", f"GET /v1/models/{THREE}/versions/123", "", 200, STATUS),
    Case(f"{REST}: status of a label", f"GET /v1/models/{THREE}/labels/stable", "", 200, STATUS),
    Case(
        f"{REST}: example, predict", predict(THREE), '{"instances": [1.0,2.0,5.0]}', 200, {"predictions": [3.5, 4, 5.5]}
    ),
    Case(
        f"{REST}: example, regress",
        f"POST /v1/models/{THREE}:regress",
        '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}',
        200,
        {"results": [3.5, 4.0]},
    ),
    Case(
        f"{REST}: example, an unknown model",
        predict("half"),
        '{"instances": [1.0,5.0]}',
        404,
        "Servable not found for request: Latest(half)",
    ),
    ask(f"{REST}: rows of scalars", "text", 200, {"predictions": as_bytes("Zm9v", "YmFy")}, instances='["foo", "bar"]'),
    ask(
        f"{REST}: rows of [1, 2]", "same", 200, {"predictions": [[[1, 2]], [[3, 4]]]}, instances="[[[1, 2]], [[3, 4]]]"
    ),
    ask(f"{REST}: columns", "texts", 200, {"outputs": {"a": ["x"], "b": "y"}}, inputs='{"a": ["x"], "b": "y"}'),
    ask(
        f"{REST}: rows of objects",
        "texts",
        200,
        {"predictions": [{"a": "x", "b": ["y"]}, {"a": "z", "b": [""]}]},
        instances='[{"a": "x", "b": ["y"]}, {"a": "z", "b": [""]}]',
    ),
    ask(f"{REST}: JSON mapping, exponents", "same", 200, {"outputs": [100, -0.5, 0]}, inputs="[1e2, -5E-1, 0]"),
    ask(
        f"{REST}: floating point precision",
        "same",
        200,
        '"outputs": [1.43577434e+09]',
        here="taken, and the same float32 (1435774336), in the fewest digits that give it back",
        here_answer='"outputs":[1435774300.0]',
        exact=True,
        inputs="[1435774380]",
    ),
    ask(
        f"{REST}: JSON conformance",
        "same",
        200,
        "[1.0, NaN, Infinity, -Infinity]",
        inputs="[1, NaN, Infinity, -Infinity]",
    ),
    ask(
        f"{REST}: bytes in and out",
        "text",
        200,
        {"outputs": as_bytes("aW1hZ2UgYnl0ZXM=")},
        inputs='[{"b64": "aW1hZ2UgYnl0ZXM="}]',
    ),
]
CASES = [*DOCUMENTED, *TENSORS, *EXAMPLE_CASES, *URLS, *SOURCE]


def _cell(text: str) -> str:
    # GitHub's tables know no other way to write a bar.
    shown = text.replace("\0", "\\0").replace("\ufeff", "BOM ").replace("|", "\\|")
    return f"`{shown}`" if shown else ""


def _told(status: int, answer: Any) -> str:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return f"{status} {_cell(text)}"


def table() -> str:
    """Return the cases as the table of docs/tf-serving-conformance.md."""
    lines = ["| source | request | TF Serving | here |", "|---|---|---|---|"]
    for case in CASES:
        request = f"{_cell(case.path)} {_cell(case.body)}".strip()
        here = case.here if case.here == SAME else f"{case.here}: {_told(*case.ours)}"
        lines.append(f"| {case.source} | {request} | {_told(case.status, case.answer)} | {here} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
