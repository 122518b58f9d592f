"""`run_fn` as the Trainer calls it: from tf.Examples of the named splits to the served model."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bike_pipeline import extras
from bike_pipeline.errors import DataError, MissingExtraError
from bike_pipeline.modeling import energy, feedback, naive_baseline, rows, saved_model, served_state, slices, training
from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
from tests.components.test_example_gen import parsed, values
from tests.conftest import ROOT, TRAINING


@pytest.fixture(scope="module")
def running(examples: Any, transform_graph: Path) -> Callable[..., Path]:
    """A function that trains on files of tf.Examples into a folder; returns the folder of the served model."""
    from tfx.components.trainer.fn_args_utils import DataAccessor
    from tfx.components.util import tfxio_utils

    def train(
        place: Path,
        files: list[str],
        schema_path: Path = ROOT / "configs" / "schema.pbtxt",
        hyperparameters: Any = None,
        **settings: Any,
    ) -> Path:
        factory = tfxio_utils.get_record_batch_factory_from_artifact([examples], telemetry_descriptors=["Trainer"])
        arguments = SimpleNamespace(
            custom_config={"training": {**TRAINING, **settings}, "seed": 7},
            schema_path=str(schema_path),
            data_accessor=DataAccessor(tf_dataset_factory=None, record_batch_factory=factory, data_view_decode_fn=None),
            train_files=files,
            eval_files=files_of(examples, "eval"),
            transform_graph_path=str(transform_graph),
            base_model=None,
            hyperparameters=hyperparameters,
            model_run_dir=str(place / "run"),
            serving_model_dir=str(place / "model" / "Format-Serving"),
        )
        training.run_fn(arguments)
        return place / "model" / "Format-Serving"

    return train


@pytest.fixture
def run(running: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """The same into a folder of the test's own."""
    return functools.partial(running, tmp_path)


@pytest.fixture(scope="module")
def trained(running: Callable[..., Path], examples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the newest span's rows were trained on once, with `run` and `model`; tests only read it."""
    place = tmp_path_factory.mktemp("trained")
    running(place, files_of(examples, "train"))
    return place


def files_of(examples: Any, *splits: str) -> list[str]:
    """Return the file patterns of the named splits, as TFX hands them to the Trainer."""
    return [f"{examples.uri}/Split-{split}/*" for split in splits]


def test_the_labels_of_the_eval_split_are_where_feedback_begins(trained: Path, examples: Any) -> None:
    folder = trained / "model" / "Format-Serving"
    kept = Feedback.from_json((folder / saved_model.EXTRA_FOLDER / FEEDBACK_FILE).read_text())
    evaluated = rows.read(files_of(examples, "eval"), str(ROOT / "configs" / "schema.pbtxt"))
    assert kept.labels.hours[-1] == feedback.hours_of(evaluated).max()
    assert kept.labels.rentals.sum() <= evaluated["cnt"].sum()
    assert kept.backtest is not None
    assert kept.backtest.rows > 0
    assert kept.updates == 0
    as_of, table = served_state.read(str(folder))
    assert as_of == kept.state.as_of
    np.testing.assert_array_equal(table, kept.state.table())


def test_it_writes_the_served_model_of_the_rows_it_was_given(run: Any, examples: Any, tmp_path: Path) -> None:
    import numpy as np

    folder = run(files_of(examples, "history", "train"))
    signatures = {"serving_default", "serving_all_inputs", "serving_intervals", "serving_examples"}
    assert set(saved_model.signature_of(str(folder))) == signatures
    losses = list(csv.DictReader((tmp_path / "run" / training.LOSS_FILE).open(encoding="utf-8")))
    assert [row["epoch"] for row in losses] == [str(n) for n in range(1, TRAINING["epochs"] + 1)]
    assert float(losses[-1]["loss"]) < float(losses[0]["loss"])
    rows = [values(example) for split in ("history", "train") for example in parsed(examples, split)]
    columns = [np.array([row[name] for row in rows]) for name in ("hr", "workingday", "cnt")]
    written = (folder / saved_model.EXTRA_FOLDER / saved_model.NAIVE_BASELINE_FILE).read_text(encoding="utf-8")
    # The mean to beat is that of these rows: eval rows in it would make it too strong or too weak a reference.
    expected = naive_baseline.NaiveBaseline.fit(*columns)
    read = naive_baseline.NaiveBaseline.from_json(written)
    np.testing.assert_allclose(read.table, expected.table)
    # And that of the newest span's alone: the candidate must beat the better of the two.
    last = naive_baseline.NaiveBaseline.fit(*(values[-len(list(parsed(examples, "train"))) :] for values in columns))
    np.testing.assert_allclose(read.newest, last.table)
    named = slices.from_json((folder / saved_model.EXTRA_FOLDER / saved_model.TRAINED_SLICES_FILE).read_text())
    assert sum(named["season"].values()) == len(rows)
    assert named["workingday"] == {str(v): int((columns[1] == v).sum()) for v in (0, 1)}


def test_tensorboard_reads_loss_and_learning_rate_of_each_epoch(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.util.tensor_util import make_ndarray

    # As `tensorboard --logdir` looks for runs.
    found = EventMultiplexer().AddRunsFromDirectory(str(trained / "run")).Reload()
    assert list(found.Runs()) == [training.EVENTS_FOLDER]
    assert found.PluginRunToTagToContent("scalars")[training.EVENTS_FOLDER].keys() == {
        "epoch_loss", "epoch_learning_rate",
    }  # fmt: skip
    series = {
        name: [(event.step, float(make_ndarray(event.tensor_proto))) for event in found.Tensors("train", name)]
        for name in ("epoch_loss", "epoch_learning_rate")
    }
    written = list(csv.DictReader((trained / "run" / training.LOSS_FILE).open(encoding="utf-8")))
    assert series["epoch_loss"] == [
        (number, pytest.approx(float(row["loss"]), abs=1e-5)) for number, row in enumerate(written)
    ]
    steps, rates = zip(*series["epoch_learning_rate"], strict=True)
    assert list(steps) == list(range(TRAINING["epochs"]))
    assert 0 < max(rates) <= TRAINING["learning_rate"]
    # The last step is one before the cosine's end.
    assert rates[-1] == min(rates) < 0.05 * TRAINING["learning_rate"]


def test_without_rows_nothing_is_written(run: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "none.gz"), "GZIP"):
        pass
    with pytest.raises(DataError, match="no examples"):
        run([str(tmp_path / "none.gz")])
    assert not (tmp_path / "model").exists()


def test_a_row_that_lacks_an_input_stops_the_training(run: Any, examples: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    kept = parsed(examples, "train")[:20]
    del kept[11].features.feature["hum"]
    # Examples of another origin, without the rows as Parquet beside them.
    (tmp_path / "Split-train").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "Split-train" / "some.gz"), "GZIP") as writer:
        for example in kept:
            writer.write(example.SerializeToString())
    # The schema of TFX's reader must not refuse it first: what is tested is our own check.
    shipped = (ROOT / "configs" / "schema.pbtxt").read_text(encoding="utf-8")
    (tmp_path / "loose.pbtxt").write_text(
        shipped.replace("shape {}", "value_count { min: 0 max: 1 }"), encoding="utf-8"
    )
    with pytest.raises(DataError, match="'hum'"):
        run([str(tmp_path / "Split-train" / "*")], tmp_path / "loose.pbtxt")
    assert not (tmp_path / "model").exists()


def test_files_are_read_one_after_the_other_on_any_machine(examples: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import numpy as np
    import tensorflow as tf

    kept = parsed(examples, "train")[:90]
    paths = [str(tmp_path / f"part-{number}.gz") for number in range(3)]
    for number, path in enumerate(paths):
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for example in kept[number * 30 : (number + 1) * 30]:
                writer.write(example.SerializeToString())
    opened: list[str] = []
    record_batches = rows.record_batches

    def remembered(path: str, *arguments: Any) -> Any:
        opened.append(path)
        return record_batches(path, *arguments)

    monkeypatch.setattr(rows, "record_batches", remembered)
    columns = rows.read([str(tmp_path / "part-*")], str(ROOT / "configs" / "schema.pbtxt"))
    np.testing.assert_array_equal(columns["cnt"], [values(example)["cnt"] for example in kept])
    # Given all at once, TensorFlow takes turns between them on machines with more than three cores.
    assert opened == paths


def test_what_a_search_found_goes_over_the_settings(run: Any, examples: Any, tmp_path: Path) -> None:
    import keras

    found = {"space": [], "values": {"epochs": 1, "hidden_units": "[5]"}}
    folder = run(files_of(examples, "train"), hyperparameters=found)
    losses = list(csv.DictReader((tmp_path / "run" / training.LOSS_FILE).open(encoding="utf-8")))
    assert len(losses) == 1
    model = keras.saving.load_model(folder / saved_model.EXTRA_FOLDER / saved_model.KERAS_FILE, compile=False)
    assert [layer.units for layer in model.layers if layer.name.startswith("trunk")] == [5]


def test_what_the_training_took_from_the_socket_stands_beside_its_model(
    run: Any, examples: Any, tmp_path: Path
) -> None:
    run(files_of(examples, "train"), energy=True)
    told = energy.read(str(tmp_path / "model"))
    assert 0 < told["energy_kwh"] < 1
    assert told["energy_kwh"] == pytest.approx(sum(told["energy_by"].values()))
    assert told["energy_source"].startswith("codecarbon 3.")


def test_nothing_is_told_of_energy_that_nobody_measured(trained: Path) -> None:
    assert energy.read(str(trained / "model")) == {}


def test_energy_without_its_library_is_refused_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(extras.EXTRAS, "energy", ("no_such_module",))
    with pytest.raises(MissingExtraError, match="measuring the energy"), energy.measured(str(tmp_path), wanted=True):
        pytest.fail("it was trained")
