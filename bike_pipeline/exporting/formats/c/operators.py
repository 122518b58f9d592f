"""How C writes what the serving graph does: types, formulas of the operators, the functions that they call."""

from __future__ import annotations

from bike_pipeline.exporting.formats.c.templates import text_of

TYPES = {"float32": "float", "int64": "int64_t", "int32": "int32_t", "bool": "bool"}
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
KEYWORDS = text_of("keywords.txt").split()
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
