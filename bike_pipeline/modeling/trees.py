"""Gradient-boosted trees: LightGBM fits them, and the graph asks them with plain operations that every format has.

Every tree becomes a complete binary heap, and all trees go down together, a level at a time: from place i of a level to
place 2i, or to 2i + 1 where the row's number is above the node's threshold. All comparisons that any node makes are
made once, at first: few of them differ, since a column has few thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from bike_pipeline.errors import InstallationError, first_words
from bike_pipeline.lean_imports import lean_imports

if TYPE_CHECKING:
    from lightgbm import Booster

# Of the mean of a count, and of its logarithm: the one does well by RMSE and MAE, the other by RMSLE.
POISSON, LOG = "poisson", "l2"
# Of the log odds that a label of 0 or 1 is 1.
BINARY = "binary"
# Thresholds a column: chosen on inner splits of the training rows, where 63, 127 and 255 do equally well. Fewer make
# the table of comparisons small.
THRESHOLDS = 63
# Of the rows and of the columns, which each tree sees: as is usual (Friedman 2002, "Stochastic gradient boosting").
SHARE = 0.8
# LightGBM asks 0 in place of what is not farther from it (kZeroThreshold in its meta.h).
_ZERO = np.float32(1e-35)


def _lightgbm() -> ModuleType:
    """Return the library; InstallationError if what it was built for is not there."""
    try:
        # It offers itself to scikit-learn where it finds that, which takes a second to import.
        with lean_imports(google_cloud=True):
            import lightgbm
    except OSError as error:
        raise InstallationError(
            f"its library cannot be loaded ({first_words(error)})",
            where="LightGBM",
            fix="install GNU's OpenMP runtime (Debian, Ubuntu: apt install libgomp1)",
        ) from None
    return lightgbm


def boosted(
    matrix: npt.NDArray[np.float32],
    label: npt.NDArray[Any],
    objective: str,
    rounds: int,
    depth: int,
    learning_rate: float,
    seed: int,
) -> Booster:
    """Return trees that LightGBM fits to rows, the same for the same arguments.

    Args:
        matrix: finite numbers, (rows, columns).
        label: positive numbers, (rows,); 0 or 1 of `BINARY`.
        objective: `POISSON` for the mean of the label, `LOG` for the mean of its logarithm. The trees' sum is the
            logarithm of the label either way. Of `BINARY` it is the log odds.
        rounds: number of trees; there are fewer where no split is left.
        depth: most comparisons on the way to a leaf.
        learning_rate: share of each tree's answer that is added.
        seed: of the rows and columns that each tree sees.

    Raises:
        InstallationError: the machine lacks what LightGBM needs.
    """
    lightgbm = _lightgbm()

    parameters: dict[str, Any] = {
        "objective": objective,
        "learning_rate": learning_rate,
        "max_depth": depth,
        "num_leaves": 2**depth,
        "max_bin": THRESHOLDS,
        "bagging_fraction": SHARE,
        # A share of a single row is none.
        "bagging_freq": int(len(label) > 1),
        "feature_fraction": SHARE,
        "use_missing": False,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    target = np.asarray(label, np.float64)
    rows = lightgbm.Dataset(matrix, np.log(target) if objective == LOG else target, params=parameters)
    booster: Booster = lightgbm.train(parameters, rows, rounds)
    return booster


@dataclass(frozen=True)
class Forest:
    """Ensembles of trees as arrays; trees that an ensemble has fewer than another are filled up with zeros.

    Attributes:
        columns: the column that each comparison is about, (comparisons,) int32.
        thresholds: what its number must be above, (comparisons,) float32.
        nodes: by level, the comparison of each node: (trees · ensembles · 2^level,) int16 each.
        leaves: (trees · ensembles · 2^depth,) float32.
        starts: what is added to the sum of each ensemble's leaves, (ensembles,) float32.
    """

    columns: npt.NDArray[np.int32]
    thresholds: npt.NDArray[np.float32]
    nodes: tuple[npt.NDArray[np.int16], ...]
    leaves: npt.NDArray[np.float32]
    starts: npt.NDArray[np.float32]

    @classmethod
    def of(cls, boosters: Sequence[Booster], depth: int) -> Self:
        """Return ensembles of trees that are at most `depth` deep."""
        ensembles = [[tree["tree_structure"] for tree in booster.dump_model()["tree_info"]] for booster in boosters]
        trees = max(map(len, ensembles))
        nodes = [np.zeros((trees, len(boosters), 2**level), np.int16) for level in range(depth)]
        leaves = np.zeros((trees, len(boosters), 2**depth))
        comparisons: dict[tuple[int, np.float32], int] = {(0, np.float32(0.0)): 0}

        def grow(node: dict[str, Any], tree: tuple[int, int], level: int, place: int) -> None:
            if "leaf_value" in node:
                # All that lies below it in a complete tree.
                width = 2 ** (depth - level)
                leaves[tree][place * width : (place + 1) * width] = node["leaf_value"]
                return
            key = int(node["split_feature"]), _below(node["threshold"])
            nodes[level][tree][place] = comparisons.setdefault(key, len(comparisons))
            grow(node["left_child"], tree, level + 1, 2 * place)
            grow(node["right_child"], tree, level + 1, 2 * place + 1)

        for ensemble, structures in enumerate(ensembles):
            for tree, structure in enumerate(structures):
                grow(structure, (tree, ensemble), 0, 0)
        # LightGBM adds the mean to the first tree; apart, the numbers that are summed are small.
        starts = leaves[0].mean(axis=1)
        leaves[0] -= starts[:, None]
        columns, thresholds = zip(*comparisons, strict=True)
        return cls(
            np.array(columns, np.int32),
            np.array(thresholds, np.float32),
            tuple(level.reshape(-1) for level in nodes),
            leaves.reshape(-1).astype(np.float32),
            starts.astype(np.float32),
        )


def _below(threshold: float) -> np.float32:
    """Return the largest float32 that is not above the threshold: of any float32, it says the same."""
    nearest = np.float32(threshold)
    is_above = float(nearest) > threshold or nearest == -_ZERO
    return np.nextafter(nearest, np.float32(-np.inf)) if is_above else nearest


@keras.saving.register_keras_serializable(package="bike_pipeline")
class Trees(keras.layers.Layer):
    """Sums of the leaves that a row comes to: (batch, columns) float32 to (batch, ensembles).

    A number that is NaN is above no threshold.
    """

    def __init__(self, comparisons: int, ensembles: int, trees: int, depth: int, **kwargs: Any) -> None:
        """Have so many comparisons, and so many trees in each ensemble."""
        super().__init__(**kwargs)
        self.comparisons, self.ensembles, self.trees, self.depth = comparisons, ensembles, trees, depth

    @classmethod
    def of(cls, forest: Forest, **kwargs: Any) -> Self:
        """Return the layer with a forest's numbers."""
        ensembles, depth = len(forest.starts), len(forest.nodes)
        trees = len(forest.leaves) // ensembles // 2**depth
        layer = cls(len(forest.columns), ensembles, trees, depth, **kwargs)
        layer.build()
        layer.set_weights([forest.columns, forest.thresholds, *forest.nodes, forest.leaves, forest.starts])
        return layer

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made of, without its numbers."""
        sizes = ("comparisons", "ensembles", "trees", "depth")
        return {**super().get_config(), **{name: getattr(self, name) for name in sizes}}

    def build(self, _: Any = None) -> None:
        """Make the weights, all of them zero."""

        def numbers(name: str, count: int, dtype: str) -> Any:
            return self.add_weight((count,), initializer="zeros", dtype=dtype, trainable=False, name=name)

        count = self.ensembles * self.trees
        self.columns = numbers("columns", self.comparisons, "int32")
        self.thresholds = numbers("thresholds", self.comparisons, "float32")
        self.nodes = [numbers(f"nodes_{level}", count * 2**level, "int16") for level in range(self.depth)]
        self.leaves = numbers("leaves", count * 2**self.depth, "float32")
        self.starts = numbers("starts", self.ensembles, "float32")
        self.built = True

    def call(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return each ensemble's sum."""
        above = tf.cast(tf.gather(matrix, self.columns, axis=1) > self.thresholds, tf.int32)
        # At the root all rows ask the same, whoever they are.
        found = tf.gather(above, tf.cast(self.nodes[0], tf.int32), axis=1)
        place = 2 * tf.range(self.ensembles * self.trees) + found
        for nodes in self.nodes[1:]:
            asked = tf.cast(tf.gather(nodes, place), tf.int32)
            place = place + place + tf.gather(above, asked, axis=1, batch_dims=1)
        # The sums are not along the last axis, where OpenVINO adds wrongly (openvinotoolkit/openvino#23616).
        values = tf.reshape(tf.gather(self.leaves, place), (-1, self.trees, self.ensembles))
        return tf.reduce_sum(values, axis=1) + self.starts
