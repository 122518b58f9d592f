"""One case of TF Serving's REST API, and what several cases are written with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

SAME = "the same"
SECOND = "conformance"
TWO, THREE = "half_plus_two", "half_plus_three"
NAME = "modelname%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D"
PLAIN_NAME = "modelname!#$%&'()*+,/:;=?@[]"
LABEL = NAME.replace("modelname", "latest")


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        source: file and test or section, or the function of the source.
        path: where it asks, with the method.
        body: the body's text; empty for none.
        status: TF Serving's HTTP status.
        answer: part of the error's text, or the whole answer as JSON.
        here: what differs here, in words; `SAME` for nothing.
        here_status: the status here, where it differs.
        here_answer: the answer here, where it differs.
        exact: whether the numbers' own texts count, as in TF Serving's test.
    """

    source: str
    path: str
    body: str
    status: int
    answer: Any
    here: str = SAME
    here_status: int = 0
    here_answer: Any = None
    exact: bool = False

    @property
    def ours(self) -> tuple[int, Any]:
        """What this server answers."""
        return self.here_status or self.status, self.answer if self.here_answer is None else self.here_answer


def predict(model: str, place: str = "") -> str:
    """Return where a model predicts."""
    return f"POST /v1/models/{model}{place}:predict"


def to(signature: str, **content: Any) -> str:
    """Return a body that names a signature; what is a text stands there as it is."""
    fields = [f'"{name}": {value if isinstance(value, str) else json.dumps(value)}' for name, value in content.items()]
    return "{" + ", ".join([f'"signature_name": "{signature}"', *fields]) + "}"


def ask(source: str, signature: str, status: int, answer: Any, **rest: Any) -> Case:
    options = {name: rest.pop(name) for name in ("here", "here_status", "here_answer", "exact") if name in rest}
    return Case(source, predict(SECOND), to(signature, **rest), status, answer, **options)


REST, TENSOR = "api_rest.md", "json_tensor_test.cc"
HANDLER, UTIL = "http_rest_api_handler_test.cc", "http_rest_api_util_test.cc"
STATUS = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
KINDS = {
    "text": '"a"',
    "flag": "true",
    "whole": "[[1, 2], [3, 4], [5, 6]]",
    "wide": "-7",
    "real": "[NaN]",
    "pair": "[1.0, NaN]",
}
KINDS_TOO = {**KINDS, "text": '"b"', "whole": "[[7, 8], [9, 0], [1, 2]]", "real": "[2.0]", "pair": "[2.0, Infinity]"}


def as_object(values: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def as_bytes(*texts: str) -> list[dict[str, str]]:
    return [{"b64": text} for text in texts]
