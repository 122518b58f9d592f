"""Examples and sources that are not what was written: refused, in words."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import DataError
from tests.components.conftest import drive, generate, statistics_of


@pytest.mark.parametrize("in_memory_rows", [1, 10**6])
def test_rows_that_the_manifest_does_not_promise_are_refused(
    store_uri: str, tmp_path: Path, in_memory_rows: int
) -> None:
    window = json.loads(drive(store_uri, 1).properties["window"])
    window[-1]["rows"]["eval"] += 1
    with pytest.raises(DataError, match=r"split 'eval' holds \d+ rows, its manifests say \d+.*data verify"):
        generate(store_uri, tmp_path / "1", 0, window=json.dumps(window), in_memory_rows=in_memory_rows)


def test_flipped_bits_of_pages_are_not_read_as_values(examples: Any, tmp_path: Path) -> None:
    from bike_pipeline.modeling import rows

    (path,) = rows.readable_files(f"{examples.uri}/Split-eval")
    sound = Path(path).read_bytes()
    before = [batch.to_pydict() for batch in rows.record_batches(path, 10**6)]
    damaged = tmp_path / "damaged.parquet"
    outcomes = []
    for place in range(100, len(sound), len(sound) // 100):
        content = bytearray(sound)
        content[place] ^= 0b1000
        damaged.write_bytes(content)
        try:
            read = [batch.to_pydict() for batch in rows.record_batches(str(damaged), 10**6)]
            outcomes.append("same" if read == before else "silent")
        except DataError:
            outcomes.append("told")
    # Headers of pages and the footer have no checksum of their own in Parquet; the seal of the stage has.
    assert outcomes.count("silent") <= 3, outcomes
    assert outcomes.count("told") > 60, outcomes


@pytest.mark.parametrize("reader", ["rows", "evaluation"])
def test_tensorflows_checksum_errors_get_words(examples: Any, tmp_path: Path, reader: str) -> None:
    import gzip

    from bike_pipeline.modeling import rows, slice_sums

    shard = tmp_path / "data_tfrecord-00000-of-00001.gz"
    (source,) = rows.shards(f"{examples.uri}/Split-eval")
    content = bytearray(gzip.decompress(Path(source).read_bytes()))
    content[len(content) // 2] ^= 0b1000
    shard.write_bytes(gzip.compress(bytes(content)))
    read = rows.record_batches(str(shard), 10) if reader == "rows" else slice_sums._batches(str(shard))
    with pytest.raises(DataError, match="the file is damaged since it was written") as refused:
        list(read)
    assert refused.value.where == str(shard)
    assert "{{" not in str(refused.value)


def test_a_folder_whose_name_is_a_pattern_is_read_and_no_other(examples: Any, schema: Any, tmp_path: Path) -> None:
    from bike_pipeline.modeling import rows

    odd, decoy = tmp_path / "w [1]*?" / "1", tmp_path / "w 1x" / "1"
    shutil.copytree(examples.uri, odd)
    shutil.copytree(examples.uri, decoy)
    copied = copy.deepcopy(examples)
    copied.uri = str(odd)
    assert rows.shards(f"{odd}/Split-eval") == [f"{odd}/Split-eval/data_tfrecord-00000-of-00001.gz"]
    statistics = statistics_of(copied, schema, tmp_path / "s [1]")
    from tfx.components.statistics_gen import stats_artifact_utils

    rows_read = stats_artifact_utils.load_statistics(statistics, "eval").proto().datasets[0].num_examples
    assert rows_read == json.loads(examples.get_string_custom_property("rows_by_split"))["eval"]
