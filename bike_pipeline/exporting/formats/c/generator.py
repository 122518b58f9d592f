"""From the serving graph to plain C99: no runtime, no allocation, no state; one function a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.formats.base import layer_of
from bike_pipeline.exporting.formats.c import ranges
from bike_pipeline.exporting.formats.frozen_graph import FrozenGraph, Operation, Value

SOURCES = Path(__file__).with_name("sources")
TYPES = {"float32": "float", "int64": "int64_t", "int32": "int32_t", "int16": "int16_t", "bool": "bool"}
# What a feature's value becomes, element by element; {0}, {1} and {2} are the inputs.
FLOAT_ONLY = {
    "Sigmoid": "1.0f / (1.0f + expf(-{0}))",
    "Exp": "expf({0})",
    "Expm1": "expm1f({0})",
    "Log": "logf({0})",
    "Log1p": "log1pf({0})",
    "Sin": "sinf({0})",
    "Cos": "cosf({0})",
    "Tanh": "tanhf({0})",
    "Sqrt": "sqrtf({0})",
    "Rsqrt": "1.0f / sqrtf({0})",
    "Floor": "floorf({0})",
    "Round": "rintf({0})",
    "Abs": "fabsf({0})",
    "Neg": "-{0}",
    "Square": "{0} * {0}",
    "Relu": "maximum({0}, 0.0f)",
    "Relu6": "minimum(maximum({0}, 0.0f), 6.0f)",
    "Elu": "{0} < 0.0f ? expm1f({0}) : {0}",
    "RealDiv": "{0} / {1}",
    "BiasAdd": "{0} + {1}",
    "Minimum": "minimum({0}, {1})",
    "Maximum": "maximum({0}, {1})",
}
WHOLE_ONLY = {
    "Minimum": "{0} < {1} ? {0} : {1}",
    "Maximum": "{0} > {1} ? {0} : {1}",
}
ANY = {
    "Add": "{0} + {1}",
    "AddV2": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Less": "{0} < {1}",
    "LessEqual": "{0} <= {1}",
    "Greater": "{0} > {1}",
    "GreaterEqual": "{0} >= {1}",
    "Equal": "{0} == {1}",
    "NotEqual": "{0} != {1}",
    "LogicalAnd": "{0} && {1}",
    "LogicalOr": "{0} || {1}",
    "LogicalNot": "!{0}",
    "SelectV2": "{0} ? {1} : {2}",
}
# Of C99, and of C++, which may compile the file as well; an operation in the graph may be called like them.
KEYWORDS = (SOURCES / "keywords.txt").read_text(encoding="utf-8").split()
HELPERS = {
    "minimum": """\
/* What is not a number stays so: a broken sensor must not look like an answer. */
static inline float minimum(float a, float b) { return a < b || a != a ? a : b; }
""",
    "maximum": """\
static inline float maximum(float a, float b) { return a > b || a != a ? a : b; }
""",
    "whole": """\
/* C leaves open what becomes of a float that no int64_t holds. */
static inline int64_t whole(float x)
{
    if (x >= 9223372036854775808.0f) return INT64_MAX;
    if (x <= -9223372036854775808.0f) return INT64_MIN;
    return x == x ? (int64_t)x : 0;
}
""",
    "row_of": """\
/* No input may read beside a table. */
static inline size_t row_of(int64_t index, size_t rows)
{
    return index < 0 ? 0 : (uint64_t)index >= rows ? rows - 1 : (size_t)index;
}
""",
}
_WHOLE = ("int64", "int32", "int16")
# Sums of a dense layer that are kept at once: they fit the registers of every processor with vector instructions, and
# are enough of them that none waits for the one before.
_BLOCK = 32
_PER_LINE = 6


def number(value: float | int | bool, dtype: str) -> str:
    """Return a number as C reads back the very same: nine digits name every float32 (IEEE 754-2019, 5.12.2)."""
    if dtype == "float32":
        text = f"{value:.9g}"
        return f"{text if '.' in text or 'e' in text else f'{text}.0'}f"
    return f"INT64_C({int(value)})" if dtype == "int64" else str(int(value))


class Body:
    """Writes the tables and the statements of one row."""

    def __init__(self, graph: FrozenGraph) -> None:
        """Generate the code."""
        self.tables: list[str] = []
        self.statements: list[str] = []
        # The functions of `HELPERS` that the statements call.
        self.helpers: set[str] = set()
        self._names: dict[str, str] = {value.name: f"features->{value.name}" for value in graph.inputs}
        self._taken: set[str] = {*HELPERS, "features", "i", "j", "k", "sums", *KEYWORDS}
        self._tables: dict[str, str] = {}
        self._ranges: dict[str, ranges.Range] = {}
        for operation in graph.operations:
            self._write(operation)
            if (found := ranges.range_of(operation, self._ranges)) is not None:
                self._ranges[operation.outputs[0].name] = found
        if graph.output.size != 1:
            raise ExportError("the model answers more than one number a row", where=layer_of(graph.output.name))
        self.statements.append(f"return {self._element(graph.output, '0')};")

    def _write(self, operation: Operation) -> None:
        for value in (*operation.inputs, *operation.outputs):
            if value.dtype not in TYPES:
                raise operation.refusal(f"numbers of type {value.dtype}")
        special: dict[str, Callable[[Operation], None]] = {
            "MatMul": self._dense,
            "GatherV2": self._gather,
            "Pack": self._pack,
            "Unpack": self._unpack,
            "ConcatV2": self._concatenate,
            "Reshape": self._reshape,
            "Cast": self._cast,
            "Sum": self._sum,
        }
        if operation.kind in special:
            special[operation.kind](operation)
            return
        formulas = ANY | (WHOLE_ONLY if operation.inputs[0].dtype in _WHOLE else FLOAT_ONLY)
        formula = formulas.get(operation.kind)
        if formula is None:
            raise operation.refusal("it is none of those that are written as C")
        self._each(operation, formula)

    def _name(self, value: Value) -> str:
        if value.name not in self._names:
            operation, _, output = value.name.partition(":")
            short = "_".join(layer_of(operation).split("/")[-2:])
            name = re.sub(r"\W", "_", short).lower().strip("_") + ("" if output in ("", "0") else f"_{output}")
            name = name if name[:1].isalpha() else f"value_{name}"
            unique, count = name, 1
            while unique in self._taken:
                count += 1
                unique = f"{name}_v{count}"
            self._taken.add(unique)
            self._names[value.name] = unique
        return self._names[value.name]

    def _element(self, value: Value, index: str) -> str:
        """Return the text of one number of a value."""
        if value.constant is not None:
            return self._numbers(value)[0] if value.size == 1 else f"{self._table(value)}[{index}]"
        return f"{self._name(value)}[{index}]" if value.shape else self._name(value)

    def _numbers(self, value: Value) -> list[str]:
        """Return the texts of the numbers of a constant."""
        assert value.constant is not None
        if not np.isfinite(value.constant).all():
            raise ExportError("the model holds a number that is not finite", where=layer_of(value.name))
        return [number(item, value.dtype) for item in value.constant.reshape(-1).tolist()]

    def _table(self, value: Value) -> str:
        if value.name not in self._tables:
            name, texts = f"table_{len(self._tables)}", self._numbers(value)
            lines = [", ".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE)]
            joined = ",\n    ".join(lines)
            shape = " x ".join(map(str, value.shape))
            self.tables.append(
                f"/* {shape} */\nstatic const {TYPES[value.dtype]} {name}[{len(texts)}] = {{\n    {joined}\n}};\n"
            )
            self._tables[value.name] = name
        return self._tables[value.name]

    def _each(self, operation: Operation, formula: str) -> None:
        """Write an operator that works element by element, with TensorFlow's broadcasting where it is plain."""
        output = operation.outputs[0]
        texts = []
        for value in operation.inputs:
            if value.size not in (1, output.size):
                raise operation.refusal(f"{value.shape} beside {output.shape}")
            # A constant as wide as there are rows would stand for one number a row.
            leading = value.constant is not None and len(value.shape) > len(output.shape)
            if leading and value.shape[0] != 1:
                raise operation.refusal(f"a constant of shape {value.shape} over the rows")
            texts.append(self._element(value, "0" if value.size == 1 else "i"))
        self._assign(operation, formula.format(*texts))

    def _assign(self, operation: Operation, expression: str) -> None:
        """Write `output[i] = expression` for every i; the expression names i where it differs."""
        self.helpers.update(name for name in HELPERS if f"{name}(" in expression)
        output = operation.outputs[0]
        name = self._name(output)
        self._remark(operation)
        if not output.shape:
            self.statements.append(f"const {TYPES[output.dtype]} {name} = {expression};")
            return
        self._declare(output)
        if output.size == 1:
            self.statements.append(f"{name}[0] = {expression};")
        else:
            self.statements.append(f"for (size_t i = 0; i < {output.size}; i++) {name}[i] = {expression};")

    def _declare(self, value: Value) -> None:
        self.statements.append(f"{TYPES[value.dtype]} {self._name(value)}[{value.size}];")

    def _remark(self, operation: Operation) -> None:
        self.statements.append(f"/* {operation.kind}: {layer_of(operation.name)} */")

    def _cast(self, operation: Operation) -> None:
        value, output = operation.inputs[0], operation.outputs[0]
        element = self._element(value, "i" if value.size > 1 else "0")
        if value.dtype == "float32" and output.dtype in _WHOLE:
            text = f"whole({element})"
            self._assign(operation, text if output.dtype == "int64" else f"({TYPES[output.dtype]}){text}")
        else:
            self._assign(operation, f"({TYPES[output.dtype]}){element}")

    def _reshape(self, operation: Operation) -> None:
        value, output = operation.inputs[0], operation.outputs[0]
        if value.size != output.size:
            raise operation.refusal(f"{value.shape} a row becomes {output.shape}")
        self._assign(operation, self._element(value, "0" if value.size == 1 else "i"))

    def _sum(self, operation: Operation) -> None:
        value, axis = operation.inputs
        output = operation.outputs[0]
        along = None if axis.constant is None else axis.constant.reshape(-1).tolist()
        # From behind, the same axis of a vector has this number.
        if along not in ([1], [-len(value.shape)]) or output.shape != value.shape[1:]:
            raise operation.refusal("only along the axis behind the rows")
        self._remark(operation)
        name = self._name(output)
        if not output.shape:
            self.statements.append(f"{TYPES[output.dtype]} {name} = 0;")
            self.statements.append(f"for (size_t i = 0; i < {value.size}; i++) {name} += {self._element(value, 'i')};")
            return
        self.statements.append(f"{TYPES[output.dtype]} {name}[{output.size}] = {{0}};")
        self.statements.append(
            f"for (size_t j = 0; j < {value.size}; j += {output.size})\n"
            f"    for (size_t i = 0; i < {output.size}; i++) {name}[i] += {self._element(value, 'j + i')};"
        )

    def _pack(self, operation: Operation) -> None:
        if operation.attributes["axis"] != 1 or any(value.shape for value in operation.inputs):
            raise operation.refusal("only numbers, along the axis behind the rows")
        self._fill(operation, operation.inputs)

    def _concatenate(self, operation: Operation) -> None:
        *parts, axis = operation.inputs
        rank = len(operation.outputs[0].shape)
        if rank != 1 or axis.constant is None or int(axis.constant) not in (1, -1):
            raise operation.refusal("only along the axis behind the rows")
        if any(value.constant is not None for value in parts):
            raise operation.refusal("a part is constant")
        self._fill(operation, parts)

    def _fill(self, operation: Operation, parts: Sequence[Value]) -> None:
        """Write the parts of a vector one after the other."""
        self._remark(operation)
        output = operation.outputs[0]
        name = self._name(output)
        self._declare(output)
        start = 0
        for value in parts:
            if value.size == 1:
                self.statements.append(f"{name}[{start}] = {self._element(value, '0')};")
            else:
                self.statements.append(
                    f"for (size_t i = 0; i < {value.size}; i++) {name}[{start} + i] = {self._element(value, 'i')};"
                )
            start += value.size

    def _unpack(self, operation: Operation) -> None:
        value = operation.inputs[0]
        if operation.attributes["axis"] not in (1, -1) or len(value.shape) != 1:
            raise operation.refusal("only a vector, along the axis behind the rows")
        self._remark(operation)
        for index, output in enumerate(operation.outputs):
            element = self._element(value, str(index))
            self.statements.append(f"const {TYPES[output.dtype]} {self._name(output)} = {element};")

    def _gather(self, operation: Operation) -> None:
        """Write what is taken from a constant table by rows, or from a vector, by one place or by a vector of them."""
        table, index, axis = operation.inputs
        along = None if axis.constant is None else int(axis.constant)
        width, rows = 1, table.size
        if table.constant is not None and along == 0 and (not index.shape or len(table.shape) == 1):
            rows = table.shape[0]
            width = table.size // rows
        elif not (len(table.shape) == len(index.shape) == 1 and along == 1):
            raise operation.refusal("only rows of a constant table, or places of a vector")
        elif (index.constant is None) != (operation.attributes["batch_dims"] == 1):
            raise operation.refusal("a row's places of another row's vector")
        read = self._table(table) if table.constant is not None else self._name(table)
        place, known = self._element(index, "i" if index.shape else "0"), ranges.known_of(index, self._ranges)
        if known is None or known[0].min() < 0 or known[1].max() >= rows:
            place = f"row_of({place}, {rows})"
        self._assign(operation, f"{read}[{place}{'' if width == 1 else f' * {width} + i'}]")

    def _dense(self, operation: Operation) -> None:
        value, weights = operation.inputs
        output = operation.outputs[0]
        plain = weights.constant is not None and len(weights.shape) == 2 and len(value.shape) == 1
        if not plain or operation.attributes["transpose"]:
            raise operation.refusal("only a vector times a constant matrix")
        if value.dtype != "float32":
            raise operation.refusal(f"numbers of type {value.dtype}")
        self._remark(operation)
        self._declare(output)
        inputs, outputs = weights.shape
        table, read, made = self._table(weights), self._name(value), self._name(output)
        start = 0
        while start < outputs:
            width = min(_BLOCK, outputs - start)
            blocks = (outputs - start) // width
            self.statements.append(
                f"for (size_t k = {start}; k < {start + blocks * width}; k += {width}) {{\n"
                f"    float sums[{width}] = {{0.0f}};\n"
                f"    for (size_t j = 0; j < {inputs}; j++)\n"
                f"        {'UNROLLED ' if width > 1 else ''}for (size_t i = 0; i < {width}; i++)\n"
                f"            sums[i] += {read}[j] * {table}[j * {outputs} + k + i];\n"
                f"    for (size_t i = 0; i < {width}; i++) {made}[k + i] = sums[i];\n"
                "}"
            )
            start += blocks * width
