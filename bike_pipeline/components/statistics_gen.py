"""StatisticsGen that computes small splits in memory and large ones on Beam, with the same accumulators."""

from __future__ import annotations

import json
import os
from typing import Any

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx import components, types
from tfx.components.statistics_gen import executor as stock
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils
from tfx.utils import io_utils
from tfx_bsl.tfxio import dataset_options

from bike_pipeline import progress
from bike_pipeline.components import beam_engine
from bike_pipeline.components.example_gen import ROWS_PROPERTY


class StatisticsGenExecutor(stock.Executor):
    """Runs TFDV in this process or as TFX's own Beam job; see `beam_engine`."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compute the statistics of every split of `examples` under the curated schema."""
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        rows: dict[str, int] = json.loads(examples.get_string_custom_property(ROWS_PROPERTY))
        in_memory_rows = exec_properties["in_memory_rows"]
        if not beam_engine.computes_in_process(self._make_beam_pipeline(), sum(rows.values()), in_memory_rows):
            super().Do(input_dict, output_dict, exec_properties)
            return
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        )
        output = artifact_utils.get_single_instance(output_dict["statistics"])
        output.split_names = examples.split_names
        output.span = examples.span
        for index, split in enumerate(artifact_utils.decode_split_names(examples.split_names)):
            progress.report(index / len(rows), f"statistics of {split}")
            folder = artifact_utils.get_split_uri([output], split)
            io_utils.write_bytes_file(
                os.path.join(folder, stock.DEFAULT_FILE_NAME), _statistics(examples, split, schema).SerializeToString()
            )


def _statistics(
    examples: types.Artifact, split: str, schema: schema_pb2.Schema
) -> statistics_pb2.DatasetFeatureStatisticsList:
    source = tfxio_utils.get_split_tfxio(
        examples=[examples], split=split, telemetry_descriptors=["StatisticsGen"], schema=None
    )
    options = dataset_options.RecordBatchesOptions(batch_size=65_536, num_epochs=1, shuffle=False)
    batches = list(source.RecordBatches(options))
    if not batches:
        empty = statistics_pb2.DatasetFeatureStatisticsList()
        empty.datasets.add(num_examples=0)
        return empty
    table = pa.Table.from_batches(batches).combine_chunks()
    return stats_impl.generate_statistics_in_memory(table.to_batches()[0], tfdv.StatsOptions(schema=schema))


class StatisticsGen(components.StatisticsGen):
    """TFX's StatisticsGen with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(StatisticsGenExecutor)
