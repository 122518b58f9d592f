"""A small model with every kind of tensor, for what the bike model's numbers cannot show, and two of TensorFlow 1.

    python -m tests.serving.conformance.model FOLDER

writes FOLDER/conformance with its versions 1 and 2 (a server under test serves both, with the label `stable` for 1 and
`canary` for 2), and FOLDER/half_plus_two and FOLDER/half_plus_three with version 123, the label `stable`: what
TensorFlow's and TF Serving's models of these names do, made anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

LABELS = {"stable": 1, "canary": 2}
# Models of TensorFlow 1 by name, with what they add to half of x.
CLASSICS = {"half_plus_two": 2.0, "half_plus_three": 3.0}
CLASSIC_VERSION = 123


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
        signatures |= _by_type()
        module.functions = list(signatures.values())
        temporary = folder / f".{version}"
        tf.saved_model.save(module, str(temporary), signatures)
        temporary.rename(folder / str(version))


def _by_type() -> dict[str, Any]:
    """Return signatures that give back what they get, one a type, and what JSON cannot say."""
    import tensorflow as tf

    def taking(*dtypes: tf.DType) -> Any:
        names = "x" if len(dtypes) == 1 else "ab"
        return tf.function(
            input_signature=[tf.TensorSpec([None], dtype, name) for name, dtype in zip(names, dtypes, strict=True)]
        )

    return {
        "whole": taking(tf.int32)(lambda x: {"y": tf.identity(x)}),
        "real": taking(tf.float64)(lambda x: {"y": tf.identity(x)}),
        "text": taking(tf.string)(lambda x: {"y_bytes": tf.identity(x)}),
        "half": taking(tf.float16)(lambda x: {"y": tf.cast(x, tf.float32)}),
        "imaginary": taking(tf.float32)(lambda x: {"y": tf.complex(x, x)}),
        "uneven": taking(tf.float32)(lambda x: {"y": tf.identity(x), "z": x[:1]}),
        "texts": taking(tf.string, tf.string)(lambda a, b: {"a": tf.identity(a), "b": tf.identity(b)}),
    }


def write_classic(folder: Path, plus: float) -> None:
    """Write version 123 of a model that adds to half of x, with TensorFlow 1's own means and signatures."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        half, added = v1.Variable(0.5, name="a"), v1.Variable(plus, name="b")
        examples = v1.placeholder(tf.string, name="tf_example")
        parsed = v1.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(tf.multiply(half, x), added, name="y")
        session.run(v1.global_variables_initializer())
        told = {name: v1.saved_model.build_tensor_info(one) for name, one in (("e", examples), ("x", x), ("y", y))}

        def signature(inputs: dict[str, str], outputs: dict[str, str], method: str) -> object:
            named = [{name: told[one] for name, one in tensors.items()} for tensors in (inputs, outputs)]
            return v1.saved_model.build_signature_def(*named, f"tensorflow/serving/{method}")

        regress = signature({"inputs": "e"}, {"outputs": "y"}, "regress")
        builder = v1.saved_model.Builder(str(folder / f".{CLASSIC_VERSION}"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": signature({"x": "x"}, {"y": "y"}, "predict"),
                "regress_x_to_y": regress,
                "tensorflow/serving/regress": regress,
                "classify_x_to_y": signature({"inputs": "e"}, {"scores": "y"}, "classify"),
            },
        )
        builder.save()
    (folder / f".{CLASSIC_VERSION}").rename(folder / str(CLASSIC_VERSION))


def write_all(folder: Path) -> None:
    """Write all models below `folder`, each into a folder of its name."""
    for name in ("conformance", *CLASSICS):
        (folder / name).mkdir()
    write(folder / "conformance")
    for name, plus in CLASSICS.items():
        write_classic(folder / name, plus)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
