"""ExampleGen on the span store: the newest span's train and eval rows, and the spans before it as `history`.

TFX's own CsvExampleGen reads the same files, one Python dictionary a row; this one reads and encodes Arrow batches.
Its driver takes span, version and hashes from the store's manifests, so that new content at an old path is never
mistaken for old content (TFX's fingerprint knows sizes and checksums of names only).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa
import tensorflow as tf
from tfx import types
from tfx.components.example_gen.driver import update_output_artifact
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types
from tfx.proto import example_gen_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx_bsl.coders import example_coder

from bike_pipeline import progress
from bike_pipeline.components import driver
from bike_pipeline.data.manifest import Split
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError

TRAIN: Final = "train"
EVAL: Final = "eval"
HISTORY: Final = "history"
SPLITS = (TRAIN, EVAL, HISTORY)
ROWS_PROPERTY = "rows_by_split"
WINDOW_PROPERTY = "window"
ROWS_PER_FILE = 500_000
ROWS_PER_BATCH = 65_536


class SpanExampleGenSpec(component_spec.ComponentSpec):
    """Parameters: the store's folder or URL, and how many spans before the newest one are read as history."""

    PARAMETERS = {
        "input_base": component_spec.ExecutionParameter(type=str),
        "history_spans": component_spec.ExecutionParameter(type=int),
    }
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {"examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class SpanDriver(driver.Driver):
    """Finds the newest span and its newest version, and puts their identity into the execution's parameters."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Return span, version, content hash and files of every span in the window.

        Raises:
            DataError: the store holds no span.
        """
        properties = dict(execution_info.exec_properties)
        store = SpanStore(properties["input_base"])
        numbers = store.spans()
        if not numbers:
            raise DataError(
                "the span store is empty", where=store.uri, fix="ingest data first: `bike-pipeline data ingest FILE`"
            )
        older = numbers[:-1][-properties["history_spans"] :] if properties["history_spans"] else []
        versions = [store.latest(number) for number in (*older, numbers[-1])]
        newest = versions[-1]
        window = [
            {
                "span": v.span,
                "version": v.version,
                "content_sha256": v.manifest.content_sha256,
                "rows": {TRAIN: v.manifest.rows.train, EVAL: v.manifest.rows.eval},
            }
            for v in versions
        ]
        resolved = {
            "span": newest.span,
            "version": newest.version,
            "input_fingerprint": newest.manifest.content_sha256,
            WINDOW_PROPERTY: json.dumps(window, sort_keys=True),
        }
        result = driver_output_pb2.DriverOutput()
        for key, value in resolved.items():
            data_types_utils.set_metadata_value(result.exec_properties[key], value)
        artifact = execution_info.output_dict["examples"][0].mlmd_artifact
        update_output_artifact(resolved, artifact)
        # TFX's own function writes custom properties; statistics and anomalies read the declared ones.
        artifact.properties["span"].int_value = newest.span
        artifact.properties["version"].int_value = newest.version
        result.output_artifacts["examples"].artifacts.append(artifact)
        return result


def encode(batch: pa.RecordBatch) -> list[bytes]:
    """Return one serialized tf.Example a row: int64, float32 or bytes lists with one value each; dates as ISO text."""
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


class SpanExampleGenExecutor(base_executor.BaseExecutor):
    """Writes gzipped TFRecords of tf.Examples for each split."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Read the window's CSV files and write the splits.

        Raises:
            DataError: a split's rows are not those that its manifests promise.
        """
        store = SpanStore(exec_properties["input_base"])
        window = json.loads(exec_properties[WINDOW_PROPERTY])
        newest, older = window[-1], window[:-1]
        sources: dict[str, list[tuple[int, int, tuple[Split, ...]]]] = {
            TRAIN: [(newest["span"], newest["version"], (TRAIN,))],
            EVAL: [(newest["span"], newest["version"], (EVAL,))],
            HISTORY: [(entry["span"], entry["version"], (TRAIN, EVAL)) for entry in older],
        }
        promised = {
            TRAIN: newest["rows"][TRAIN],
            EVAL: newest["rows"][EVAL],
            HISTORY: sum(sum(entry["rows"].values()) for entry in older),
        }
        artifact = artifact_utils.get_single_instance(output_dict["examples"])
        artifact.split_names = artifact_utils.encode_split_names(list(SPLITS))
        for index, split in enumerate(SPLITS):
            progress.report(index / len(SPLITS), f"writing {split}")
            tables = (store.read(*source) for source in sources[split])
            written = _write(tables, artifact_utils.get_split_uri([artifact], split), promised[split])
            if written != promised[split]:
                raise DataError(
                    f"split '{split}' holds {written} rows, its manifests say {promised[split]}",
                    where=store.uri,
                    fix="`bike-pipeline data verify` names the damaged file; ingest that source again",
                )
        artifact.set_string_custom_property(ROWS_PROPERTY, json.dumps(promised))
        artifact.set_string_custom_property(WINDOW_PROPERTY, exec_properties[WINDOW_PROPERTY])
        examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(artifact, "tfrecords_gzip")


def _write(tables: Iterable[pa.Table], folder: str, rows: int) -> int:
    """Write all rows of `tables` in order as `ceil(rows / ROWS_PER_FILE)` files; return how many there were."""
    tf.io.gfile.makedirs(folder)
    files = max(1, math.ceil(rows / ROWS_PER_FILE))
    names = [os.path.join(folder, f"data_tfrecord-{i:05d}-of-{files:05d}.gz") for i in range(files)]
    written = 0
    writer = tf.io.TFRecordWriter(names[0], "GZIP")
    try:
        for table in tables:
            for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH):
                for example in encode(batch):
                    if written and written % ROWS_PER_FILE == 0 and written // ROWS_PER_FILE < files:
                        writer.close()
                        writer = tf.io.TFRecordWriter(names[written // ROWS_PER_FILE], "GZIP")
                    writer.write(example)
                    written += 1
    finally:
        writer.close()
    return written


class SpanExampleGen(base_component.BaseComponent):
    """Reads the newest span and its history; output `examples` with the splits train, eval and history."""

    SPEC_CLASS = SpanExampleGenSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(SpanExampleGenExecutor)
    DRIVER_CLASS = SpanDriver

    def __init__(self, input_base: str, history_spans: int) -> None:
        """Name the store and the length of the history; see `DataSettings`."""
        super().__init__(
            SpanExampleGenSpec(
                input_base=input_base,
                history_spans=history_spans,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )
