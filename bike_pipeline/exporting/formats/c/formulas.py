"""What the operators of a graph are in C, a number at a time, and the functions that they call."""

from __future__ import annotations

from pathlib import Path

SOURCES = Path(__file__).with_name("sources")
TYPES = {"float32": "float", "int64": "int64_t", "int32": "int32_t", "int16": "int16_t", "bool": "bool"}
# What a feature's value becomes, element by element; {0}, {1} and {2} are the inputs.
FLOAT_ONLY = {
    "Sigmoid": "1.0f / (1.0f + exponential(-{0}))",
    "Exp": "exponential({0})",
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
    "exponential": """\
/* e^x within two units in the last place, without a call or a branch, so that vector instructions can do it: x is
   k ln 2 + r, and e^r a polynomial (Cephes, expf.c). Its ends are where a float is 0, and where it is infinite. */
static inline float exponential(float x)
{
    const float inside = x < -104.0f ? -104.0f : x;
    /* Beside 1.5 * 2^23, whose bits these are, a float has room for whole numbers only. */
    const float rounded = inside * 1.44269504f + 12582912.0f;
    int32_t k;
    memcpy(&k, &rounded, sizeof k);
    k -= 0x4B400000;
    k = k < 128 ? k : 128;
    const float r = inside - (float)k * 0.693359375f - (float)k * -2.12194440e-4f;
    const float p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r
        + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    /* 2^k by the bits of two floats, since one does not reach all of them. */
    const int32_t half = (k + 254) / 2;
    const uint32_t low = (uint32_t)half << 23, high = (uint32_t)(k + 254 - half) << 23;
    float first, second;
    memcpy(&first, &low, sizeof first);
    memcpy(&second, &high, sizeof second);
    return (p * r * r + r + 1.0f) * first * second;
}
""",
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


def number(value: float | int | bool, dtype: str) -> str:
    """Return a number as C reads back the very same: nine digits name every float32 (IEEE 754-2019, 5.12.2)."""
    if dtype == "float32":
        text = f"{value:.9g}"
        return f"{text if '.' in text or 'e' in text else f'{text}.0'}f"
    return f"INT64_C({int(value)})" if dtype == "int64" else str(int(value))
