"""From files of the span store to TFRecords of tf.Examples: one shard a stored file, in Arrow batches.

A shard depends on nothing but its file, so it holds the same rows in the same order whichever process writes it.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bike_pipeline import errors
from bike_pipeline.data.manifest import Split
from bike_pipeline.data.spans import SpanStore

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN: Final = "train"
EVAL: Final = "eval"
HISTORY: Final = "history"
SPLITS = (TRAIN, EVAL, HISTORY)
ROWS_PER_BATCH = 65_536
# Unfinished shards stand in this folder of the artifact, where no reader of a split looks.
ASIDE = ".writing"


@dataclass(frozen=True)
class Shard:
    """One file to write.

    Attributes:
        store: folder or address of the span store.
        span: span to read from.
        version: version of the span.
        file: path of the stored file in the version; "" for a shard without rows.
        split: the split of the examples that it belongs to.
        output: folder of the artifact.
        target: path of the shard to write, absolute.
    """

    store: str
    span: int
    version: int
    file: str
    split: str
    output: str
    target: str


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Attributes:
        split: the split it belongs to.
        rows: rows written.
        failure: where it could not be written: the kind of the error and its parts what, where and fix; else ().
    """

    split: str
    rows: int
    failure: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise the error that kept the shard from being written, as the kind that it was.

        Raises:
            BikePipelineError: as it was raised where the shard was to be written.
        """
        if self.failure:
            kind, what, where, fix = self.failure
            raise getattr(errors, kind)(what, where=where, fix=fix)


def plan(store_uri: str, window: list[dict[str, Any]], folders: dict[str, str], output: str) -> list[Shard]:
    """Return every shard of an Examples artifact, in the order of its rows.

    Args:
        store_uri: folder or address of the span store.
        window: spans, rising, as the driver found them (`span` and `version`); all but the last are history.
        folders: folder of each split.
        output: folder of the artifact.

    Raises:
        DataError: a version does not exist or its manifest is damaged.
    """
    store = SpanStore(store_uri)
    sources: dict[str, list[tuple[dict[str, Any], Split]]] = {
        TRAIN: [(window[-1], TRAIN)],
        EVAL: [(window[-1], EVAL)],
        HISTORY: [(entry, split) for entry in window[:-1] for split in (TRAIN, EVAL)],
    }
    shards = []
    for split in SPLITS:
        files = [
            (entry["span"], entry["version"], name)
            for entry, part in sources[split]
            for name in store.get(entry["span"], entry["version"]).names(part)
        ] or [(0, 0, "")]
        for index, (span, version, name) in enumerate(files):
            target = os.path.join(folders[split], f"data_tfrecord-{index:05d}-of-{len(files):05d}.gz")
            shards.append(Shard(store.uri, span, version, name, split, output, target))
    return shards


def encode(batch: pa.RecordBatch) -> list[bytes]:
    """Return one serialized tf.Example a row: int64, float32 or bytes lists with one value each; dates as ISO text."""
    import pyarrow as pa
    from tfx_bsl.coders import example_coder

    offsets = pa.array(range(batch.num_rows + 1), pa.int32())
    columns = []
    for name in batch.schema.names:
        values = batch.column(name)
        if pa.types.is_date(values.type):
            values = values.cast(pa.string()).cast(pa.binary())
        elif pa.types.is_floating(values.type):
            values = values.cast(pa.float32())
        columns.append(pa.ListArray.from_arrays(offsets, values))
    lists = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    return list(example_coder.RecordBatchToExamplesEncoder().encode(lists))


def write(shard: Shard) -> Outcome:
    """Write a shard, whole or not at all; any number of processes may try the same one.

    An error that a user can act on is part of the outcome and not raised: Beam's engines hand on an exception of a
    worker as text at best.
    """
    import tensorflow as tf

    folder = os.path.join(shard.output, ASIDE)
    tf.io.gfile.makedirs(folder)
    tf.io.gfile.makedirs(os.path.dirname(shard.target))
    aside = os.path.join(folder, uuid.uuid4().hex)
    rows = 0
    try:
        with tf.io.TFRecordWriter(aside, "GZIP") as writer:
            if shard.file:
                table = SpanStore(shard.store).read_file(shard.span, shard.version, shard.file)
                for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH):
                    for example in encode(batch):
                        writer.write(example)
                rows = table.num_rows
    except errors.BikePipelineError as error:
        return Outcome(shard.split, 0, (type(error).__name__, error.what, error.where, error.fix))
    tf.io.gfile.rename(aside, shard.target, overwrite=True)
    return Outcome(shard.split, rows)
