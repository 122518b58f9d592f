"""Classify, Regress and MultiInference: tf.Examples in, classes or values out, for signatures that are made for it.

Which tensors such a signature has, and what is said if one is missing, follows TF Serving's classifier.cc,
regressor.cc and multi_inference.cc. A signature of another method is answered as not implemented.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bike_pipeline.serving.protos import example_pb2, input_pb2, regression_pb2
from bike_pipeline.serving.server.json_values import FLOAT_MAX, excerpt, from_base64, in_utf8, is_object, type_of
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.tensors import DEFAULT_SIGNATURE, Array, Outputs, Signature
from bike_pipeline.serving.statuses import Code, StatusError, invalid

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
# Names of a signature's tensors (tensorflow/cc/saved_model/signature_constants.h).
_INPUTS, _VALUES, _CLASSES, _SCORES = "inputs", "outputs", "classes", "scores"
# What kind of feature a JSON value is.
_KINDS = {bool: "int64_list", int: "int64_list", float: "float_list", str: "bytes_list", dict: "bytes_list"}


def signature_of(version: ServedVersion, name: str, method: str) -> Signature:
    """Return the signature that a request asks for, or refuse: none, made for another method, or without a tensor."""
    name = name or DEFAULT_SIGNATURE
    if name not in version.loaded.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    found = version.loaded.signatures[name]
    if found.method != method:
        signature, made_for = f"The signature {name} of model {version.model}", found.method or "no method"
        raise StatusError(Code.UNIMPLEMENTED, f"{signature} is made for {made_for}, not for {method}")
    if len(found.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    problem = ""
    if _INPUTS not in found.inputs:
        kind = "classification" if method == CLASSIFY else "regression"
        problem = f"No {kind} inputs found in SignatureDef: {name}"
    elif method == REGRESS and _VALUES not in found.outputs:
        problem = f"No regression outputs found in SignatureDef: {name}"
    elif method == CLASSIFY and not {_CLASSES, _SCORES} & found.outputs.keys():
        problem = f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}".'
    if problem:
        raise StatusError(Code.FAILED_PRECONDITION, problem)
    return found


def columns_of(proto: Any) -> dict[str, Array]:
    """Return a `tensorflow.serving.Input` as serialized tf.Examples, the context before each; refuse one of none."""
    context = b""
    kind = proto.WhichOneof("kind")
    if kind == "example_list_with_context":
        # As bytes: what an example says again counts, and the model sees both if it is a list.
        context = proto.example_list_with_context.context.SerializeToString()
    examples = getattr(proto, kind).examples if kind else ()
    if not examples:
        raise invalid("Input is empty.")
    values = np.empty(len(examples), np.object_)
    values[:] = [context + example.SerializeToString() for example in examples]
    return {_INPUTS: values}


def results_of(method: str, outputs: Outputs, rows: int) -> Any:
    """Return what a signature answers to each example, or refuse outputs that are none of the method's.

    They are float32 of a regression, (rows,). Of a classification each is a list of labels and scores by class; a label
    is empty, and a score 0, if the model has none.
    """
    return (_regressions if method == REGRESS else _classifications)(outputs, rows)


def _regressions(outputs: Outputs, rows: int) -> Array:
    values = outputs[_VALUES]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    if len(values) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(values)}")
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype.name}")
    return values.reshape(rows)


def _classifications(outputs: Outputs, rows: int) -> list[list[tuple[str, Any]]]:
    found = {name: outputs[name] for name in (_CLASSES, _SCORES) if name in outputs}
    for name, values in found.items():
        if values.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {list(values.shape)}")
        if name == _CLASSES and values.dtype.kind != "O":
            raise invalid(f"Expected classes Tensor of DT_STRING. Got: {values.dtype.name}")
        if name == _SCORES and values.dtype != np.float32:
            raise invalid(f"Expected scores Tensor of DT_FLOAT. Got: {values.dtype.name}")
        if len(values) != rows:
            raise invalid(f"Expected {name} output batch size of {rows}. Got: {len(values)}")
    widths = {values.shape[1] for values in found.values()}
    if len(widths) > 1:
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {sorted(widths)}")
    shape = (rows, widths.pop())
    labels = found.get(_CLASSES, np.full(shape, b"", np.object_))
    scores = found.get(_SCORES, np.zeros(shape, np.float32))
    return [
        [(label.decode(errors="replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(labels, scores, strict=True)
    ]


def fill(result: Any, found: Any) -> None:
    """Write results into an empty ClassificationResult or RegressionResult."""
    if isinstance(result, regression_pb2.RegressionResult):
        for value in found.tolist():
            result.regressions.add(value=value)
        return
    for classes in found:
        entry = result.classifications.add()
        for label, score in classes:
            entry.classes.add(label=label, score=score)


def input_of(body: dict[str, Any]) -> Any:
    """Return the examples of a REST request's body as a `tensorflow.serving.Input`; refuse what is none.

    As in json_tensor.cc, whole numbers and truth values are int64 features, other numbers float ones, texts and
    `{"b64": …}` bytes; one kind a feature.
    """
    found = input_pb2.Input()
    if "context" in body:
        found.example_list_with_context.context.CopyFrom(_example(body["context"]))
    if "examples" not in body:
        raise invalid(
            f"JSON Value: {excerpt(body)} When method is classify, key 'examples' is expected and was not found"
        )
    rows = body["examples"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {excerpt(body)} Expecting 'examples' value to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {excerpt(body)} 'examples' value is an empty array")
    examples = found.example_list_with_context if "context" in body else found.example_list
    examples.examples.extend(_example(row) for row in rows)
    return found


def _example(value: Any) -> Any:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_of(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for one in content if isinstance(content, list) else [content]:
            _add(one, name, feature)
    return example


def _add(value: Any, name: str, feature: Any) -> None:
    kind = _KINDS.get(type(value))
    if kind is None or is_object(value):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_of(value)}")
    if kind == "int64_list" and value >= 1 << 63:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    there = feature.WhichOneof("kind")
    if there not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {there.removesuffix('_list')}")
    if kind == "float_list" and abs(value) > FLOAT_MAX:
        # Python's protobuf would refuse what C's cast makes infinite.
        value = math.copysign(math.inf, value)
    elif kind == "bytes_list":
        value = from_base64(value) if isinstance(value, dict) else in_utf8(value)
    getattr(feature, kind).value.append(value)
