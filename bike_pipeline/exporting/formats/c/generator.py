"""From the serving graph to plain C99: no runtime, no allocation, no state.

The statements are written for one row and, with another number, for a block of rows: each value is then one number a
row, side by side, of which compilers make vector instructions, and a weight is read once for all of them. Either way a
row's numbers are worked out in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.formats.base import layer_of
from bike_pipeline.exporting.formats.c import ranges
from bike_pipeline.exporting.formats.c.formulas import ANY, FLOAT_ONLY, HELPERS, KEYWORDS, TYPES, WHOLE_ONLY, number
from bike_pipeline.exporting.formats.c.loops import APART, loops, trips
from bike_pipeline.exporting.formats.frozen_graph import FrozenGraph, Operation, Value

_WHOLE = ("int64", "int32", "int16")
# Sums of a dense layer that are kept at once: they fit the registers of every processor with vector instructions, and
# are enough of them that none waits for the one before.
_SUMS = 32
_SUMS_OF_ROWS = 2
_PER_LINE = 6


class Tables:
    """The constants of a model, each written once."""

    def __init__(self) -> None:
        """Begin without any."""
        self.texts: list[str] = []
        self._names: dict[str, str] = {}

    def name(self, value: Value) -> str:
        """Return the name of a constant's table."""
        if value.name not in self._names:
            name, texts = f"table_{len(self._names)}", numbers(value)
            lines = [", ".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE)]
            joined = ",\n    ".join(lines)
            shape = " x ".join(map(str, value.shape))
            self.texts.append(
                f"/* {shape} */\nstatic const {TYPES[value.dtype]} {name}[{len(texts)}] = {{\n    {joined}\n}};\n"
            )
            self._names[value.name] = name
        return self._names[value.name]


def numbers(value: Value) -> list[str]:
    """Return the texts of the numbers of a constant."""
    assert value.constant is not None
    if not np.isfinite(value.constant).all():
        raise ExportError("the model holds a number that is not finite", where=layer_of(value.name))
    return [number(item, value.dtype) for item in value.constant.reshape(-1).tolist()]


def _looped(name: str, count: int, lines: Sequence[str]) -> list[str]:
    """Return lines as the body of a loop, or as they are if it goes round once."""
    if count == 1:
        return [*lines]
    start = f"for (size_t {name} = 0; {name} < {count}; {name}++)"
    return [f"{start} {{", *(f"    {line}" for each in lines for line in each.splitlines()), "}"]


class Body:
    """Writes the statements that answer one row, or a block of rows."""

    def __init__(self, graph: FrozenGraph, tables: Tables, rows: int = 1) -> None:
        """Generate the code."""
        self.statements: list[str] = []
        # The functions of `HELPERS` that the statements call.
        self.helpers: set[str] = set()
        self._tables, self._rows = tables, rows
        # What follows the name of a value, and its declaration, where it is one number a row.
        self._lane, self._lanes = ("", "") if rows == 1 else ("[r]", f"[{rows}]")
        row = "features->" if rows == 1 else "features[r]."
        self._features = {value.name: f"{row}{value.name}" for value in graph.inputs}
        self._names: dict[str, str] = {}
        self._taken: set[str] = {*HELPERS, "features", "answers", "i", "j", "k", "r", "sums", *KEYWORDS}
        self._ranges: dict[str, ranges.Range] = {}
        # Lines of the loop that is being written, and what it alone reads, of which one number is enough.
        self._lines: list[str] = []
        self._here: set[str] = set()
        readers: dict[str, set[str]] = {graph.output.name: {""}}
        for operation in graph.operations:
            for value in operation.inputs:
                readers.setdefault(value.name, set()).add(operation.name)
        for loop in loops(graph.operations):
            self._loop(loop, readers)
        if graph.output.size != 1:
            raise ExportError("the model answers more than one number a row", where=layer_of(graph.output.name))
        answer = self._element(graph.output)
        self._every(f"return {answer};" if rows == 1 else f"answers[r] = {answer};")
        self.statements += self._lines

    def _loop(self, loop: Sequence[Operation], readers: Mapping[str, set[str]]) -> None:
        """Write operations as one loop over the numbers of their values, and in it one over the rows."""
        names = {operation.name for operation in loop}
        made = (value.name for operation in loop for value in operation.outputs)
        self._here = {name for name in made if readers.get(name, {""}) <= names}
        for operation in loop:
            self._write(operation)
            if (found := ranges.range_of(operation, self._ranges)) is not None:
                self._ranges[operation.outputs[0].name] = found
        if loop[0].kind not in APART:
            self._lines = _looped("i", trips(loop[0]), _looped("r", self._rows, self._lines))
        self.statements += self._lines
        self._lines = []

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

    def _element(self, value: Value, index: str = "i") -> str:
        """Return the text of one number of a value, for the row at hand."""
        if value.constant is not None:
            return numbers(value)[0] if value.size == 1 else f"{self._tables.name(value)}[{index}]"
        if value.name in self._features:
            return self._features[value.name]
        if value.name in self._here:
            return self._name(value)
        return f"{self._name(value)}{f'[{index}]' if value.size > 1 else ''}{self._lane}"

    def _every(self, statement: str, count: int = 1) -> None:
        """Write a statement for every row, and every i if there are several."""
        each = f"for (size_t i = 0; i < {count}; i++) " if count > 1 else ""
        self._lines.append(
            each + ("" if self._rows == 1 else f"for (size_t r = 0; r < {self._rows}; r++) ") + statement
        )

    def _declared(self, value: Value) -> str:
        return f"{TYPES[value.dtype]} {self._name(value)}{f'[{value.size}]' if value.size > 1 else ''}{self._lanes}"

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
            texts.append(self._element(value))
        self._assign(operation, formula.format(*texts))

    def _assign(self, operation: Operation, expression: str) -> None:
        """Write the number at place i of what an operation makes; the expression names i where it differs."""
        self.helpers.update(name for name in HELPERS if f"{name}(" in expression)
        self._remark(operation)
        output = operation.outputs[0]
        element = self._element(output)
        single = output.name in self._here or output.size * self._rows == 1
        if not single:
            self.statements.append(f"{self._declared(output)};")
        self._lines.append(f"{f'const {TYPES[output.dtype]} ' if single else ''}{element} = {expression};")

    def _remark(self, operation: Operation) -> None:
        self._lines.append(f"/* {operation.kind}: {layer_of(operation.name)} */")

    def _cast(self, operation: Operation) -> None:
        value, output = operation.inputs[0], operation.outputs[0]
        element = self._element(value)
        if value.dtype == "float32" and output.dtype in _WHOLE:
            text = f"whole({element})"
            self._assign(operation, text if output.dtype == "int64" else f"({TYPES[output.dtype]}){text}")
        else:
            self._assign(operation, f"({TYPES[output.dtype]}){element}")

    def _reshape(self, operation: Operation) -> None:
        value, output = operation.inputs[0], operation.outputs[0]
        if value.size != output.size:
            raise operation.refusal(f"{value.shape} a row becomes {output.shape}")
        self._assign(operation, self._element(value))

    def _sum(self, operation: Operation) -> None:
        value, axis = operation.inputs
        output = operation.outputs[0]
        along = None if axis.constant is None else axis.constant.reshape(-1).tolist()
        # From behind, the same axis of a vector has this number.
        if along not in ([1], [-len(value.shape)]) or output.shape != value.shape[1:]:
            raise operation.refusal("only along the axis behind the rows")
        self._remark(operation)
        zero = "0" if output.size * self._rows == 1 else "{{0}}" if output.size > 1 < self._rows else "{0}"
        self.statements.append(f"{self._declared(output)} = {zero};")
        self._lines.append(f"{self._element(output, f'i % {output.size}')} += {self._element(value)};")

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
        self._lines.append(f"{self._declared(output)};")
        start = 0
        for value in parts:
            place = f"{start} + i" if value.size > 1 else f"{start}"
            self._every(f"{self._element(output, place)} = {self._element(value)};", value.size)
            start += value.size

    def _unpack(self, operation: Operation) -> None:
        value = operation.inputs[0]
        if operation.attributes["axis"] not in (1, -1) or len(value.shape) != 1:
            raise operation.refusal("only a vector, along the axis behind the rows")
        for index, output in enumerate(operation.outputs):
            self._names[output.name] = f"{self._name(value)}[{index}]" if value.size > 1 else self._name(value)

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
        place, known = self._element(index), ranges.known_of(index, self._ranges)
        if known is None or known[0].min() < 0 or known[1].max() >= rows:
            place = f"row_of({place}, {rows})"
        self._assign(operation, self._element(table, f"{place}{'' if width == 1 else f' * {width} + i'}"))

    def _dense(self, operation: Operation) -> None:
        value, weights = operation.inputs
        output = operation.outputs[0]
        plain = weights.constant is not None and len(weights.shape) == 2 and len(value.shape) == 1
        if not plain or operation.attributes["transpose"]:
            raise operation.refusal("only a vector times a constant matrix")
        if value.dtype != "float32":
            raise operation.refusal(f"numbers of type {value.dtype}")
        self._remark(operation)
        self._lines.append(f"{self._declared(output)};")
        inputs, outputs = weights.shape
        table, start = self._tables.name(weights), 0
        read, made = self._element(value, "j"), self._element(output, "k + i")
        every = "" if self._rows == 1 else f"for (size_t r = 0; r < {self._rows}; r++) "
        while start < outputs:
            width = min(_SUMS if self._rows == 1 else _SUMS_OF_ROWS, outputs - start)
            blocks = (outputs - start) // width
            self._lines.append(
                f"for (size_t k = {start}; k < {start + blocks * width}; k += {width}) {{\n"
                f"    float sums[{width}]{self._lanes} = {'{0.0f}' if self._rows == 1 else '{{0.0f}}'};\n"
                f"    for (size_t j = 0; j < {inputs}; j++)\n"
                f"        {'UNROLLED ' if width > 1 else ''}for (size_t i = 0; i < {width}; i++)\n"
                f"            {every}sums[i]{self._lane} += {read} * {table}[j * {outputs} + k + i];\n"
                f"    for (size_t i = 0; i < {width}; i++) {every}{made} = sums[i]{self._lane};\n"
                "}"
            )
            start += blocks * width
