"""A small model with every kind of tensor, for what the bike model's numbers cannot show.

    python -m tests.serving.conformance.model FOLDER

writes its versions 1 and 2; a server under test serves both, with the label `stable` for 1 and `canary` for 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

LABELS = {"stable": 1, "canary": 2}


def write(folder: Path) -> None:
    """Write versions 1 and 2 of the model below `folder`, each as one atomic step."""
    import tensorflow as tf

    def tensor(dtype: tf.DType, *shape: int | None, name: str) -> tf.TensorSpec:
        return tf.TensorSpec(shape, dtype, name)

    for version in LABELS.values():
        module = tf.Module()

        @tf.function(input_signature=[tensor(tf.float32, None, name="x")])
        def half_plus_two(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * 0.5 + 2.0}

        @tf.function(input_signature=[tensor(tf.float32, None, name="x")])
        def same(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.identity(x)}

        @tf.function(input_signature=[tensor(tf.float32, None, name="x")])
        def which(x: tf.Tensor, version: int = version) -> dict[str, tf.Tensor]:
            return {"version": tf.fill(tf.shape(x), tf.constant(version, tf.int64))}

        @tf.function(input_signature=[tensor(tf.float32, name="x")])
        def scalar(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * 2.0}

        @tf.function(
            input_signature=[
                tensor(tf.string, None, name="text"),
                tensor(tf.bool, None, name="flag"),
                tensor(tf.int32, None, name="whole"),
                tensor(tf.int64, None, name="wide"),
                tensor(tf.float64, None, name="real"),
                tensor(tf.float32, None, 2, name="pair"),
            ]
        )
        def kinds(text, flag, whole, wide, real, pair) -> dict[str, tf.Tensor]:
            return {
                "text_out": tf.identity(text),
                "text_bytes": tf.identity(text),
                "flag_out": tf.identity(flag),
                "whole_out": tf.identity(whole),
                "wide_out": tf.identity(wide),
                "real_out": tf.identity(real),
                "pair_out": tf.identity(pair),
            }

        signatures = {"serving_default": half_plus_two, "same": same, "which": which, "scalar": scalar, "kinds": kinds}
        module.functions = list(signatures.values())
        temporary = folder / f".{version}"
        tf.saved_model.save(module, str(temporary), signatures)
        temporary.rename(folder / str(version))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
