"""ExampleGen: the right span, every row once, the values of the source."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline import features
from bike_pipeline.errors import DataError, StageError
from tests.components.conftest import drive, generate, statistics_of


def parsed(examples: Any, split: str) -> list[Any]:
    """Return a split's tf.Examples, in order."""
    import tensorflow as tf

    files = sorted((Path(examples.uri) / f"Split-{split}").glob("*.gz"))
    dataset = tf.data.TFRecordDataset([str(file) for file in files], "GZIP")
    return [tf.train.Example.FromString(record) for record in dataset.as_numpy_iterator()]


def values(example: Any) -> dict[str, Any]:
    """Return a tf.Example as plain values."""
    out = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        (out[name],) = getattr(feature, kind).value
    return out


def test_every_row_of_the_source_once_and_in_order(examples: Any, store_uri: str) -> None:
    import numpy as np

    for split, folders in {
        "train": ["span-0002/version-0001/train"],
        "eval": ["span-0002/version-0001/eval"],
        "history": ["span-0001/version-0001/train", "span-0001/version-0001/eval"],
    }.items():
        source = [row for f in folders for row in csv.DictReader((Path(store_uri) / f / "data.csv").open())]
        found = [values(example) for example in parsed(examples, split)]
        assert len(found) == len(source) > 0
        for row, example in zip(source, found, strict=True):
            assert set(example) == {*features.COLUMNS, *features.OPTIONAL_NAMES}
            for feature in features.FEATURES:
                expected: Any = row[feature.name]
                if feature.kind == "int":
                    assert example[feature.name] == int(expected)
                elif feature.kind == "float":
                    assert example[feature.name] == np.float32(expected)
                else:
                    assert example[feature.name] == expected.encode()


def test_the_optional_inputs_are_those_of_all_rows_in_time_order_whatever_split_they_stand_in(
    examples: Any, store_uri: str
) -> None:
    import pyarrow as pa

    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore

    table = with_optional_inputs(pa.concat_tables(SpanStore(store_uri).read(span, 1) for span in (1, 2)))
    found = [values(example) for split in ("history", "train", "eval") for example in parsed(examples, split)]
    for name in features.OPTIONAL_NAMES:
        assert [example[name] for example in found] == table.column(name).to_pylist()
    # March 2011 begins the store, March 2012 follows eleven months later.
    lost = [row for row, example in enumerate(found) if example["temp_mean_24h"] == 0]
    assert lost == [0, [example["yr"] for example in found].index(1)]


def test_recorded_identity(examples: Any) -> None:
    assert (examples.span, examples.version) == (2, 1)
    rows = json.loads(examples.get_string_custom_property("rows_by_split"))
    assert set(rows) == {"train", "eval", "history"}
    window = json.loads(examples.get_string_custom_property("window"))
    assert [(entry["span"], entry["version"]) for entry in window] == [(1, 1), (2, 1)]


@pytest.mark.parametrize(("number", "spans"), [(1, [2]), (2, [1, 2]), (9, [1, 2]), (0, [1, 2])])
def test_window_of_spans(store_uri: str, number: int, spans: list[int]) -> None:
    driven = drive(store_uri, number)
    assert [entry["span"] for entry in json.loads(driven.properties["window"])] == spans


def test_without_history_the_split_is_empty(store_uri: str, tmp_path: Path) -> None:
    assert parsed(generate(store_uri, tmp_path / "1", spans=1), "history") == []


def test_newest_is_numeric_not_lexical(month_file: Callable[..., Path], tmp_path: Path) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings

    settings = load_settings(assignments=(f"data.store={tmp_path / 'spans'}",))
    ingest(settings, str(month_file("2011-02")), span=9)
    ingest(settings, str(month_file("2011-04")), span=10)
    assert drive(str(tmp_path / "spans"), 1).properties["span"] == 10


def test_a_correction_changes_the_fingerprint(store_uri: str, month_file: Callable[..., Path], tmp_path: Path) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings

    copy = tmp_path / "spans"
    shutil.copytree(store_uri, copy)
    before = drive(str(copy), 2).properties
    assert drive(str(copy), 2).properties == before
    corrected = month_file("2012-03", lambda row: {**row, "windspeed": "0.5"})
    ingest(load_settings(assignments=(f"data.store={copy}",)), str(corrected))
    after = drive(str(copy), 2).properties
    assert (after["span"], after["version"]) == (2, 2)
    assert after["input_fingerprint"] != before["input_fingerprint"]


def test_an_older_span_is_part_of_the_identity(store_uri: str, month_file: Callable[..., Path], tmp_path: Path) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings

    copy = tmp_path / "spans"
    shutil.copytree(store_uri, copy)
    before = drive(str(copy), 2).properties
    corrected = month_file("2011-03", lambda row: {**row, "windspeed": "0.5"})
    ingest(load_settings(assignments=(f"data.store={copy}",)), str(corrected))
    assert drive(str(copy), 2).properties["window"] != before["window"]
    assert drive(str(copy), 1).properties["window"] == drive(store_uri, 1).properties["window"]


@pytest.mark.parametrize("in_memory_rows", [1, 10**6])
def test_a_changed_file_is_refused(store_uri: str, tmp_path: Path, in_memory_rows: int) -> None:
    copy = tmp_path / "spans"
    shutil.copytree(store_uri, copy)
    data = copy / "span-0002" / "version-0001" / "train" / "data.csv"
    data.write_text(data.read_text().replace("2012-03-01,1,1,3,0,", "2012-03-01,1,1,3,1,", 1))
    with pytest.raises(DataError, match=r"data\.csv"):
        generate(str(copy), tmp_path / "1", in_memory_rows=in_memory_rows)


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data ingest"):
        drive(str(tmp_path), 2)


def test_a_large_split_is_several_files_in_the_store_and_in_the_examples(
    month_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: Any
) -> None:
    from bike_pipeline.data import rows
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings

    monkeypatch.setattr(rows, "ROWS_PER_FILE", 250)
    uri = str(tmp_path / "spans")
    ingest(load_settings(assignments=(f"data.store={uri}",)), str(month_file("2012-03")))
    stored = sorted(path.name for path in (tmp_path / "spans/span-0001/version-0001/train").iterdir())
    assert stored == [f"data-0000{i}-of-00003.csv" for i in range(3)]
    split = generate(uri, tmp_path / "1")
    files = sorted(path.name for path in (tmp_path / "1" / "Split-train").iterdir())
    assert files == [f"data_tfrecord-0000{i}-of-00003.gz" for i in range(3)]
    assert [values(e) for e in parsed(split, "train")] == [values(e) for e in parsed(examples, "train")]


def test_on_beam_the_same_files_with_the_same_rows(store_uri: str, tmp_path: Path, examples: Any) -> None:
    def files(artifact: Any) -> set[str]:
        return {str(p.relative_to(artifact.uri)) for p in Path(artifact.uri).rglob("*") if p.is_file()}

    by_beam = generate(store_uri, tmp_path / "1", in_memory_rows=1)
    assert files(by_beam) == files(examples)
    assert {name.split("/")[0] for name in files(by_beam)} == {"Split-train", "Split-eval", "Split-history", "columns"}
    for split in ("train", "eval", "history"):
        assert [values(e) for e in parsed(by_beam, split)] == [values(e) for e in parsed(examples, split)]
    for name in ("rows_by_split", "window"):
        assert by_beam.get_string_custom_property(name) == examples.get_string_custom_property(name)


def test_on_beam_without_history_the_split_is_empty(store_uri: str, tmp_path: Path) -> None:
    by_beam = generate(store_uri, tmp_path / "1", spans=1, in_memory_rows=1)
    assert parsed(by_beam, "history") == []
    assert len(parsed(by_beam, "train")) > 500


@pytest.mark.parametrize("split", ["train", "eval", "history"])
def test_the_rows_beside_the_examples_are_those_of_the_examples(examples: Any, split: str) -> None:
    from bike_pipeline.modeling import rows

    files = rows.readable_files(f"{examples.uri}/Split-{split}")
    assert all(path.endswith(".parquet") for path in files)
    for size in (100, 10**6):
        batches = [batch for path in files for batch in rows.record_batches(path, size)]
        assert max(batch.num_rows for batch in batches) <= size
        stored = [{name: value for name, (value,) in row.items()} for batch in batches for row in batch.to_pylist()]
        assert stored == [values(example) for example in parsed(examples, split)]


def test_the_same_examples_from_stores_of_either_format(
    month_file: Callable[..., Path], store_uri: str, tmp_path: Path, examples: Any
) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.settings import load_settings

    mixed = str(tmp_path / "spans")
    for version, data_format in zip(SpanStore(store_uri).all_versions(), ("parquet", "csv"), strict=True):
        month = version.manifest.first.strftime("%Y-%m")
        settings = load_settings(assignments=(f"data.store={mixed}", f"data.format={data_format}"))
        assert ingest(settings, str(month_file(month))).version.manifest.format == data_format
    made = generate(mixed, tmp_path / "examples")
    assert made.get_string_custom_property("window") == examples.get_string_custom_property("window")
    for split in ("train", "eval", "history"):
        assert [values(e) for e in parsed(made, split)] == [values(e) for e in parsed(examples, split)]


@pytest.mark.parametrize("in_memory_rows", [1, 10**6])
def test_a_missing_file_is_the_same_error_on_every_engine(store_uri: str, tmp_path: Path, in_memory_rows: int) -> None:
    copy = tmp_path / "spans"
    shutil.copytree(store_uri, copy)
    (copy / "span-0001" / "version-0001" / "eval" / "data.csv").unlink()
    with pytest.raises(DataError, match=r"span-0001/version-0001/eval/data\.csv: the file is gone"):
        generate(str(copy), tmp_path / "1", in_memory_rows=in_memory_rows)


@pytest.mark.slow
def test_same_examples_as_the_stock_component(store_uri: str, tmp_path: Path, examples: Any) -> None:
    from tfx.components.example_gen.csv_example_gen.executor import Executor
    from tfx.proto import example_gen_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    splits = [
        example_gen_pb2.Input.Split(name=name, pattern=f"span-0002/version-0001/{name}/*") for name in ("train", "eval")
    ]
    stock = standard_artifacts.Examples()
    stock.uri = str(tmp_path / "stock")
    Executor().Do(
        {},
        {"examples": [stock]},
        {
            "input_base": store_uri,
            "input_config": proto_utils.proto_to_json(example_gen_pb2.Input(splits=splits)),
            "output_config": proto_utils.proto_to_json(example_gen_pb2.Output()),
            "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
            "output_file_format": 5,
        },
    )

    def key(example: Any) -> str:
        return str([(name, value) for name, value in sorted(values(example).items()) if name in features.COLUMNS])

    for split in ("train", "eval"):
        assert sorted(map(key, parsed(stock, split))) == sorted(map(key, parsed(examples, split)))


def test_statistics_of_other_rows_than_were_written_blame_no_source(examples: Any, schema: Any, tmp_path: Path) -> None:
    copied = copy.deepcopy(examples)
    counts = json.loads(examples.get_string_custom_property("rows_by_split"))
    copied.set_string_custom_property("rows_by_split", json.dumps({**counts, "train": counts["train"] + 1}))
    with pytest.raises(StageError, match="rows of split 'train' where ExampleGen wrote") as refused:
        statistics_of(copied, schema, tmp_path / "statistics")
    assert "not of the source" in refused.value.fix


@pytest.mark.parametrize("in_memory_rows", [1, 10**6])
def test_a_window_of_days_leaves_earlier_rows_out_and_says_so(
    store_uri: str, tmp_path: Path, examples: Any, in_memory_rows: int
) -> None:
    # The last day is 31 March 2012; from 29 March 2011 on those are 369.
    made = generate(store_uri, tmp_path / "1", spans=0, days=369, in_memory_rows=in_memory_rows)
    for split in ("train", "eval"):
        assert parsed(made, split) == parsed(examples, split)
    history = [values(example) for example in parsed(made, "history")]
    # What the rows before the window tell of the weather stays.
    assert history == [values(e) for e in parsed(examples, "history") if values(e)["dteday"] >= b"2011-03-29"]
    assert len(history) == json.loads(made.get_string_custom_property("rows_by_split"))["history"] == 72
    window = json.loads(made.get_string_custom_property("window"))
    assert [entry.get("from") for entry in window] == ["2011-03-29T00:00:00", None]
    assert set(json.loads(made.get_string_custom_property("manifests"))) == {"1/1", "2/1"}


def test_a_stored_file_before_the_window_makes_a_shard_without_rows(
    month_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.modeling import rows
    from bike_pipeline.settings import load_settings

    monkeypatch.setattr("bike_pipeline.data.rows.ROWS_PER_FILE", 200)
    uri = str(tmp_path / "spans")
    ingest(load_settings(assignments=(f"data.store={uri}",)), str(month_file("2012-03")))
    # Six days are the eval split; three files of the train split are before the window.
    made = generate(uri, tmp_path / "1", spans=0, days=8, in_memory_rows=10**6)
    assert json.loads(made.get_string_custom_property("rows_by_split"))["train"] == 48
    assert len(parsed(made, "train")) == 48
    files = rows.readable_files(f"{made.uri}/Split-train")
    assert len(files) > 2
    assert sum(batch.num_rows for path in files for batch in rows.record_batches(path, 100)) == 48
