"""StatisticsGen by TFDV's own accumulators, over bounded batches of one file at a time.

In the same pass it takes the sums by day and hour that DataGate holds against the calendar and the history; they stand
beside the statistics, where no reader of TFX looks.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx import components, types
from tfx.components.statistics_gen import executor as stock
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from bike_pipeline.components import base, beam_engine
from bike_pipeline.components.base import Artifacts
from bike_pipeline.data import calendar_sums
from bike_pipeline.data.calendar_sums import CalendarSums
from bike_pipeline.errors import DataError
from bike_pipeline.modeling import rows
from bike_pipeline.stages import Stage

# A larger batch gains nothing and costs memory.
ROWS_PER_BATCH = 32_768


def read_calendar(statistics: types.Artifact, split: str) -> CalendarSums:
    """Return the sums by day and hour of a split."""
    path = calendar_sums.file_of(statistics.uri, split)
    if not fileio.exists(path):
        raise DataError("the sums by day are gone", where=path, fix="run again with --no-cache")
    return calendar_sums.from_bytes(io_utils.read_bytes_file(path), path)


class StatisticsGenExecutor(stock.Executor):
    """Runs TFDV's accumulators in this process or on Beam's workers; see `beam_engine`.

    TFX's own executor decodes a record at a time in Python and shuffles every distinct value; the accumulators that
    TFDV has for one process take whole Arrow batches, and merge.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Compute the statistics of every split of `examples` under the curated schema.

        Raises:
            DataError: a file of the examples is damaged.
            StageError: the examples are not as many as ExampleGen recorded.
        """
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        count = base.rows_by_split(examples)
        schema = base.schema_of(input_dict)
        output = artifact_utils.get_single_instance(output_dict["statistics"])
        output.split_names = examples.split_names
        output.span = examples.span
        splits = artifact_utils.decode_split_names(examples.split_names)
        files = [
            (split, (path, schema))
            for split in splits
            for path in rows.readable_files(artifact_utils.get_split_uri([examples], split))
        ]
        partial = beam_engine.for_each(
            self._make_beam_pipeline(),
            [file for _, file in files],
            _accumulate,
            output.uri,
            rows=sum(count.values()),
            in_memory_rows=exec_properties["in_memory_rows"],
            doing="statistics of examples",
        )
        for split in splits:
            of_split = [found for (name, _), found in zip(files, partial, strict=True) if name == split and found]
            merged = _merged([found for found, _ in of_split], schema)
            rows.check_count(Stage.STATISTICS_GEN, split, int(merged.datasets[0].num_examples), count[split])
            path = os.path.join(artifact_utils.get_split_uri([output], split), stock.DEFAULT_FILE_NAME)
            io_utils.write_bytes_file(path, merged.SerializeToString())
            by_day = calendar_sums.total([found for _, found in of_split])
            io_utils.write_bytes_file(calendar_sums.file_of(output.uri, split), by_day.to_bytes())


def _accumulate(file: tuple[str, schema_pb2.Schema]) -> tuple[list[Any], CalendarSums] | None:
    """Return TFDV's accumulators under a schema and the sums by day over one file; None where it has no rows."""
    path, schema = file
    options = tfdv.StatsOptions(schema=schema)
    generators = stats_impl.get_generators(options, in_memory=True)
    accumulators: list[Any] = []
    by_day = []
    for batch in rows.record_batches(path, ROWS_PER_BATCH):
        if not accumulators:
            accumulators = [generator.create_accumulator() for generator in generators]
        accumulators = [
            generator.add_input(accumulator, batch)
            for generator, accumulator in zip(generators, accumulators, strict=True)
        ]
        by_day.append(calendar_sums.of_batch(batch))
    if not by_day:
        return None
    compact = [generator.compact(found) for generator, found in zip(generators, accumulators, strict=True)]
    return compact, calendar_sums.total(by_day)


def _merged(partial: list[list[Any]], schema: schema_pb2.Schema) -> statistics_pb2.DatasetFeatureStatisticsList:
    if not partial:
        empty = statistics_pb2.DatasetFeatureStatisticsList()
        empty.datasets.add(num_examples=0)
        return empty
    generators = stats_impl.get_generators(tfdv.StatsOptions(schema=schema), in_memory=True)
    merged = [
        generator.merge_accumulators(accumulators)
        for generator, accumulators in zip(generators, zip(*partial, strict=True), strict=True)
    ]
    return stats_impl.extract_statistics_output(merged, generators)


class StatisticsGen(components.StatisticsGen):
    """TFX's StatisticsGen with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(StatisticsGenExecutor)
