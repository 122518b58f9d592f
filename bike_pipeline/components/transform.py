"""Transform: TFT's graph, over rows that are read as Parquet in large batches.

TFX's own Transform reads a record at a time through Python and hands TensorFlow at most a thousand rows at once. Where
a stage computes in its own process (see `beam_engine`), what the transforms learn is summed up here and TFT writes its
graph around these numbers: its analysis on Beam costs more than a second however few the rows. Graph and files are
TFT's either way.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io
from tfx import components
from tfx.components.util import udf_utils
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import transform_pb2
from tfx.types import artifact_utils
from tfx.utils import proto_utils
from tfx_bsl.tfxio import tf_example_record

from bike_pipeline import progress
from bike_pipeline.components import base, beam_engine
from bike_pipeline.components.base import Artifacts
from bike_pipeline.errors import ConfigurationError, DataError
from bike_pipeline.modeling import preprocessing, rows
from bike_pipeline.stages import Stage
from bike_pipeline.storage.files import as_pattern

# Large enough that what a batch costs in Python does not count, small enough for any worker's memory.
ROWS_PER_BATCH = 32_768


class TransformExecutor(base_beam_executor.BaseBeamExecutor):
    """Analyzes the splits and writes the transform graph."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Write the transform graph with its raw and transformed metadata, as TFX's Transform does.

        Raises:
            ConfigurationError: workers on other machines cannot write to the artifact's path.
            DataError: there are no rows, or a file of the examples is damaged.
        """
        progress.report(0.0, "analyzing on Beam")
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        schema = base.schema_of(input_dict)
        splits = transform_pb2.SplitsConfig()
        proto_utils.json_to_proto(exec_properties["splits_config"], splits)
        folders = [artifact_utils.get_split_uri([examples], split) for split in splits.analyze]
        files = [path for folder in folders for path in rows.readable_files(folder)]
        preprocessing_fn = udf_utils.get_fn(exec_properties, "preprocessing_fn")
        output = artifact_utils.get_single_uri(output_dict["transform_graph"])
        pipeline = self._make_beam_pipeline()
        count = base.rows_by_split(examples)
        in_process = beam_engine.computes_in_process(
            pipeline, sum(count[split] for split in splits.analyze), exec_properties["in_memory_rows"]
        )
        # Only of our own transforms is known what they learn.
        if in_process and preprocessing_fn is preprocessing.preprocessing_fn:
            _write_graph(_learn(files, schema), schema, output)
            return
        with _literal(output, pipeline) as place:
            aside = os.path.join(place, beam_engine.ASIDE)
            _analyze(pipeline, files, schema, preprocessing_fn, place, aside)
            fileio.rmtree(aside)


@contextlib.contextmanager
def _literal(output: str, pipeline: Any) -> Iterator[str]:
    """Have a folder to write the graph to, whose path TFT's steps on Beam do not take for a pattern."""
    if "://" in output or as_pattern(output) == output:
        yield output
        return
    if beam_engine.is_remote(pipeline):
        raise ConfigurationError(
            "TensorFlow's workers on Beam take its path for a pattern",
            where=output,
            fix=r"choose a workspace whose path has none of [ * ? \, or beam.engine=direct",
        )
    with tempfile.TemporaryDirectory(prefix="bike-transform-") as folder:
        yield folder
        shutil.copytree(folder, output, dirs_exist_ok=True)


def _learn(files: list[str], schema: schema_pb2.Schema) -> preprocessing.Learnt:
    """Return what the rows of the files say, summed in the files' order."""
    sums = preprocessing.LearntSums()
    names = [*preprocessing.MEASURED, *preprocessing.DATE]
    for path in files:
        for batch in rows.record_batches(path, ROWS_PER_BATCH, names, schema):
            if batch.num_rows:
                sums = sums.plus(preprocessing.LearntSums.of(rows.to_columns([batch], names)))
    if not sums.rows:
        raise DataError("there are no examples to learn from", where=Stage.TRANSFORM, fix="ingest a span with rows")
    return sums.learnt()


def write_graph_of(columns: rows.Columns, schema: schema_pb2.Schema, output: str) -> None:
    """Write the transform graph of raw rows, by column, into a folder."""
    _write_graph(preprocessing.LearntSums.of(columns).learnt(), schema, output)


def _write_graph(learnt: preprocessing.Learnt, schema: schema_pb2.Schema, output: str) -> None:
    reader = tf_example_record.TFExampleBeamRecord("tfrecords_gzip", ["Transform"], schema)
    impl_helper.analyze_in_place(
        functools.partial(preprocessing.transformed, learnt=learnt),
        force_tf_compat_v1=False,
        feature_specs={},
        type_specs=reader.TensorAdapter().OriginalTypeSpecs(),
        transform_output_path=output,
    )
    folder = os.path.join(output, tft.TFTransformOutput.RAW_METADATA_DIR)
    metadata_io.write_metadata(dataset_metadata.DatasetMetadata(schema), folder)


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
