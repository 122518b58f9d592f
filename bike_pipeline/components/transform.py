"""Transform: TFT's analysis on Beam, over rows that are read as Parquet in large batches.

TFX's own Transform reads a record at a time through Python and hands TensorFlow at most a thousand rows at once. The
analysis, the graph and the files are TFT's either way. It runs on Beam wherever it runs, since TFT knows nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx import components, types
from tfx.components.util import udf_utils
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import transform_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, proto_utils
from tfx_bsl.tfxio import tf_example_record

from bike_pipeline import progress
from bike_pipeline.components import beam_engine
from bike_pipeline.modeling import rows

# Large enough that what a batch costs in Python does not count, small enough for any worker's memory.
ROWS_PER_BATCH = 32_768


class TransformExecutor(base_beam_executor.BaseBeamExecutor):
    """Analyzes the splits and writes the transform graph."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the transform graph with its raw and transformed metadata, as TFX's Transform does."""
        progress.report(0.0, "analyzing on Beam")
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        )
        splits = transform_pb2.SplitsConfig()
        proto_utils.json_to_proto(exec_properties["splits_config"], splits)
        folders = [artifact_utils.get_split_uri([examples], split) for split in splits.analyze]
        files = [path for folder in folders for path in rows.readable_files(folder)]
        preprocessing_fn = udf_utils.get_fn(exec_properties, "preprocessing_fn")
        output = artifact_utils.get_single_uri(output_dict["transform_graph"])
        aside = os.path.join(output, beam_engine.ASIDE)
        _analyze(self._make_beam_pipeline(), files, schema, preprocessing_fn, output, aside)
        fileio.rmtree(aside)


def _analyze(
    pipeline: Any, files: list[str], schema: schema_pb2.Schema, preprocessing_fn: Any, output: str, aside: str
) -> None:
    reader = tf_example_record.TFExampleBeamRecord("tfrecords_gzip", ["Transform"], schema)
    names = tft.get_analyze_input_columns(preprocessing_fn, reader.TensorAdapter().OriginalTypeSpecs())
    projected = reader.Project(names)
    with pipeline, tft_beam.Context(temp_dir=aside, use_deep_copy_optimization=True):
        batches = (
            pipeline
            | "Files" >> beam.Create(files, reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read, projected.ArrowSchema().names).with_output_types(pa.RecordBatch)
        )
        graph = (batches, projected.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = graph | tft_beam.WriteTransformFn(output)
        folder = os.path.join(output, tft.TFTransformOutput.RAW_METADATA_DIR)
        _ = dataset_metadata.DatasetMetadata(schema) | tft_beam.WriteMetadata(folder, pipeline)


def _read(path: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in rows.record_batches(path, ROWS_PER_BATCH, names):
        # A file keeps its own order of columns; TFT goes by the schema's.
        yield batch.select(names)


class Transform(components.Transform):
    """TFX's Transform with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(TransformExecutor)
