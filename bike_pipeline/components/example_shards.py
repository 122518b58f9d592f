"""From files of the span store to TFRecords of tf.Examples: one shard a stored file, in Arrow batches.

Beside the stored columns a row gets the optional inputs, made of its date and of the weather of the rows before it. A
shard depends on nothing but its file and the end of those before it, so it holds the same rows in the same order
whichever process writes it.
"""

from __future__ import annotations

import io
import os
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bike_pipeline.components import beam_engine
from bike_pipeline.data import past_weather, window
from bike_pipeline.data.manifest import Split
from bike_pipeline.data.rows import hours_of
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.modeling import rows
from bike_pipeline.stages import EVAL, HISTORY, SPLITS, TRAIN

ROWS_PER_BATCH = 65_536
# A quarter of the time of the default level 6, for files that are 30 % larger.
GZIP_LEVEL = 1


@dataclass(frozen=True)
class Shard:
    """One file to write.

    Attributes:
        store: folder or address of the span store.
        span: span to read from.
        version: version of the span.
        file: path of the stored file in the version; "" for a shard without rows.
        split: the split of the examples that it belongs to.
        target: path of the shard to write, absolute.
        before: (span, version, file) of the files of the window before it, the nearest first.
        begin: first hour that is written, ISO 8601; "" for all. Earlier ones still are past weather.
    """

    store: str
    span: int
    version: int
    file: str
    split: str
    target: str
    before: tuple[tuple[int, int, str], ...] = ()
    begin: str = ""


def plan(store_uri: str, entries: list[dict[str, Any]], folders: dict[str, str]) -> list[Shard]:
    """Return every shard of an Examples artifact, in the order of its rows.

    Args:
        store_uri: folder or address of the span store.
        entries: spans, rising, as the driver found them (see `data.window.entries`); all but the last are history.
        folders: folder of each split in the artifact.
    """
    store = SpanStore(store_uri)
    sources: dict[str, list[tuple[dict[str, Any], Split]]] = {
        TRAIN: [(entries[-1], TRAIN)],
        EVAL: [(entries[-1], EVAL)],
        HISTORY: [(entry, split) for entry in entries[:-1] for split in (TRAIN, EVAL)],
    }
    files_of = {
        split: [
            (entry["span"], entry["version"], name)
            for entry, part in parts
            for name in store.get(entry["span"], entry["version"]).names(part)
        ]
        for split, parts in sources.items()
    }
    begins = {(entry["span"], entry["version"]): entry.get("from", "") for entry in entries}
    in_order = [*files_of[HISTORY], *files_of[TRAIN], *files_of[EVAL]]
    shards = []
    for split in SPLITS:
        files = files_of[split] or [(0, 0, "")]
        for index, file in enumerate(files):
            target = os.path.join(folders[split], f"data_tfrecord-{index:05d}-of-{len(files):05d}.gz")
            before = tuple(reversed(in_order[: in_order.index(file)])) if file[-1] else ()
            shards.append(Shard(store.uri, *file, split, target, before, begins.get(file[:2], "")))
    return shards


def encode(batch: pa.RecordBatch) -> list[bytes]:
    """Return one serialized tf.Example a row: int64, float32 or bytes lists with one value each; dates as ISO text."""
    from tfx_bsl.coders import example_coder

    stored = _stored(batch)
    offsets = pa.array(range(batch.num_rows + 1), pa.int32())
    lists = [pa.ListArray.from_arrays(offsets, values) for values in stored.columns]
    return list(
        example_coder.RecordBatchToExamplesEncoder().encode(pa.RecordBatch.from_arrays(lists, batch.schema.names))
    )


def _stored(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns in the types that tf.Examples have: int64, float32, bytes."""
    columns = []
    for values in batch.columns:
        if pa.types.is_date(values.type):
            columns.append(values.cast(pa.string()).cast(pa.binary()))
        else:
            columns.append(values.cast(pa.float32()) if pa.types.is_floating(values.type) else values)
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _completed(table: pa.Table, store: SpanStore, before: tuple[tuple[int, int, str], ...]) -> pa.Table:
    """Return the rows of one file with their optional inputs."""
    begin = hours_of(table)[0]
    earlier = []
    for file in before:
        rows_before = store.read_file(*file)
        hours = hours_of(rows_before)
        near = (hours >= begin - past_weather.LONGEST_HOURS) & (hours < begin)
        earlier.append(rows_before.filter(pa.array(near)))
        if hours[0] <= begin - past_weather.LONGEST_HOURS:
            break
    return past_weather.with_optional_inputs(table, *earlier)


def write(shard: Shard) -> int:
    """Write a shard and its rows as Parquet (see `rows.columns_file`), whole or not at all, and return how many rows.

    Any number of processes may try the same shard.
    """
    import tensorflow as tf

    columns = rows.columns_file(shard.target)
    folder = os.path.join(os.path.dirname(os.path.dirname(shard.target)), beam_engine.ASIDE)
    for made in (folder, os.path.dirname(shard.target), os.path.dirname(columns)):
        tf.io.gfile.makedirs(made)
    table, store = pa.table({}), SpanStore(shard.store)
    if shard.file:
        whole = _completed(store.read_file(shard.span, shard.version, shard.file), store, shard.before)
        table = window.cut(whole, shard.begin)
    batches = [_stored(batch) for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH)]
    aside = os.path.join(folder, uuid.uuid4().hex)
    with tf.io.TFRecordWriter(aside, tf.io.TFRecordOptions("GZIP", compression_level=GZIP_LEVEL)) as writer:
        for batch in batches:
            for example in encode(batch):
                writer.write(example)
    with tf.io.gfile.GFile(f"{aside}.parquet", "wb") as file:
        stored, buffer = pa.Table.from_batches(batches, None if batches else pa.schema([])), io.BytesIO()
        pq.write_table(stored, buffer, write_page_checksum=True)
        file.write(buffer.getvalue())
    # The Parquet file first: a reader that finds the shard must find it too.
    tf.io.gfile.rename(f"{aside}.parquet", columns, overwrite=True)
    tf.io.gfile.rename(aside, shard.target, overwrite=True)
    return int(table.num_rows)
