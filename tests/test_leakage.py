from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.components.example_shards import encode
from bike_pipeline.modeling import architectures, preprocessing, rows, saved_model, training
from bike_pipeline.modeling.trend import Trend
from tests.conftest import TRAINING

INPUT_NAMES = {feature.name for feature in features.MODEL_INPUTS}
NEVER_READ = sorted(set(features.COLUMNS) - INPUT_NAMES)


class Recording(dict):
    """A dictionary that keeps the names that were read from it."""

    def __init__(self, values):
        super().__init__(values)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("preprocessing_fn walks over all columns")

    def items(self):
        raise AssertionError("preprocessing_fn walks over all columns")

    values = keys = items


def examples(rows, count=200, **changed):
    taken = {name: values[:count] for name, values in {**rows, **changed}.items()}
    return encode(pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in taken.items()}))


def predict(model, serialized):
    return model.signatures[features.SERVING_EXAMPLES](examples=tf.constant(serialized))[features.LABEL].numpy()


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported.path))


def test_what_is_only_known_after_the_hour_is_no_input():
    assert set(NEVER_READ) == {"instant", "dteday", "season", "casual", "registered", "cnt"}


@pytest.mark.parametrize("name", NEVER_READ)
def test_a_column_outside_the_contract_never_moves_a_prediction(served, few_rows, name):
    before = predict(served, examples(few_rows))
    values = few_rows[name]
    if name == "dteday":
        other = np.full_like(values, b"1999-09-09")
    else:
        other = np.random.default_rng(1).integers(1, 10_000, len(values)) * 1000
    assert (predict(served, examples(few_rows, **{name: other})) == before).all()


def test_every_input_of_the_contract_moves_predictions(served, few_rows):
    before = predict(served, examples(few_rows))
    for feature in features.MODEL_INPUTS:
        values = few_rows[feature.name]
        other = np.where(values == values[0], values[0] + 1, values[0]).astype(values.dtype)
        assert (predict(served, examples(few_rows, **{feature.name: other})) != before).any(), feature.name


def test_a_client_need_not_send_the_other_columns(served, few_rows):
    alone = {name: few_rows[name] for name in sorted(INPUT_NAMES)}
    assert (predict(served, examples(alone)) == predict(served, examples(few_rows))).all()


def test_the_served_signature_takes_the_inputs_of_the_contract_and_no_more(served):
    kinds = {"int": tf.int64, "float": tf.float32}
    for signature, inputs in (
        (features.SERVING_DEFAULT, features.REQUIRED_INPUTS),
        (features.SERVING_ALL_INPUTS, features.MODEL_INPUTS),
    ):
        _, named = served.signatures[signature].structured_input_signature
        assert set(named) == {feature.name for feature in inputs}
        for feature in inputs:
            assert named[feature.name].dtype == kinds[feature.kind]
            assert named[feature.name].shape.as_list() == [None]


def test_preprocessing_reads_the_inputs_and_the_labels_and_no_more():
    kinds = {"int": tf.int64, "float": tf.float32, "date": tf.string}
    with tf.compat.v1.Graph().as_default():
        recording = Recording(
            {f.name: tf.compat.v1.placeholder(kinds[f.kind], [None], name=f.name) for f in features.BY_NAME.values()}
        )
        preprocessing.preprocessing_fn(recording)
    assert recording.read == INPUT_NAMES | set(features.LABELS)


def test_what_the_model_reads_can_be_computed_from_the_inputs_alone(exported, few_rows):
    outputs = [tensor.name for tensor in exported.model.inputs]
    inputs = {name: tf.constant(few_rows[name]) for name in INPUT_NAMES}
    transformed = saved_model.Transform(str(exported.transform_graph), INPUT_NAMES, outputs)(inputs)
    assert set(transformed) == set(outputs)
    for name in INPUT_NAMES:
        with pytest.raises(ValueError, match="Unexpected output keys"):
            saved_model.Transform(str(exported.transform_graph), INPUT_NAMES - {name}, outputs)
    every = tuple(preprocessing.OUTPUTS)
    assert set(saved_model.Transform(str(exported.transform_graph), INPUT_NAMES, every)(inputs)) == set(every)
    for label in features.LABELS:
        with pytest.raises(ValueError, match=label):
            saved_model.Transform(str(exported.transform_graph), INPUT_NAMES, [*outputs, label])


@pytest.mark.parametrize("architecture", sorted(architectures.BUILDERS))
@pytest.mark.parametrize("trend", [Trend((4, 2, 3), (0, 0, 0)), Trend((4, 2, 3), (0.1, 0, 0.2), False, 60.0, 5)])
def test_no_architecture_reads_a_label(architecture, trend):
    model = architectures.build({**TRAINING, "architecture": architecture}, trend)
    assert {tensor.name for tensor in model.inputs} <= set(preprocessing.OUTPUTS)
    assert not set(preprocessing.OUTPUTS) & set(features.COLUMNS)


def test_training_reads_the_labels_as_labels_only(few_rows, transform_graph):
    assert set(rows.RAW_NAMES) == set(features.INPUT_NAMES) | INPUT_NAMES | set(features.LABELS)
    inputs, labels = training.split_labels(training.transformed(few_rows, str(transform_graph)))
    assert set(inputs) == set(preprocessing.OUTPUTS)
    for place, name in enumerate(features.LABELS):
        assert (labels[:, place] == few_rows[name]).all()
    others = {name: np.random.default_rng(3).permutation(few_rows[name]) for name in features.LABELS}
    again, _ = training.split_labels(training.transformed({**few_rows, **others}, str(transform_graph)))
    assert all((again[name] == values).all() for name, values in inputs.items())
