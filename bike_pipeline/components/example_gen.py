"""ExampleGen on the span store: the newest span's train and eval rows, and the spans before it as `history`.

TFX's own CsvExampleGen reads the same files, one Python dictionary a row; this one reads and encodes Arrow batches.
Its driver takes span, version and hashes from the store's manifests, so that new content at an old path is never
mistaken for old content (TFX's fingerprint knows sizes and checksums of names only).
"""

from __future__ import annotations

import json
from typing import Any

from tfx.components.example_gen.driver import update_output_artifact
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types
from tfx.proto import example_gen_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts

from bike_pipeline.components import base, beam_engine, example_shards
from bike_pipeline.components.base import Artifacts
from bike_pipeline.data import window
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from bike_pipeline.stages import EVAL, HISTORY, MANIFESTS_PROPERTY, ROWS_PROPERTY, SPLITS, TRAIN, WINDOW_PROPERTY


class SpanDriver(base.Driver):
    """Finds the newest span and its newest version, and puts their identity into the execution's parameters."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Return span, version, content hash and files of every span in the window."""
        properties = dict(execution_info.exec_properties)
        store = SpanStore(properties["input_base"])
        versions, begin = window.choose(store, properties["window_spans"] or None, properties["window_days"] or None)
        newest = versions[-1]
        resolved = {
            "span": newest.span,
            "version": newest.version,
            "input_fingerprint": newest.manifest.content_sha256,
            WINDOW_PROPERTY: json.dumps(window.entries(store, versions, begin), sort_keys=True),
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


class SpanExampleGenExecutor(base_beam_executor.BaseBeamExecutor):
    """Writes gzipped TFRecords of tf.Examples for each split, one shard a stored file."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Read the window's files and write the splits, in this process or on Beam; see `beam_engine`.

        Raises:
            DataError: a stored file was changed, or a split's rows are not those that its manifests promise.
        """
        entries = json.loads(exec_properties[WINDOW_PROPERTY])
        newest, older = entries[-1], entries[:-1]
        promised = {
            TRAIN: newest["rows"][TRAIN],
            EVAL: newest["rows"][EVAL],
            HISTORY: sum(sum(entry["rows"].values()) for entry in older),
        }
        artifact = artifact_utils.get_single_instance(output_dict["examples"])
        artifact.split_names = artifact_utils.encode_split_names(list(SPLITS))
        folders = {split: artifact_utils.get_split_uri([artifact], split) for split in SPLITS}
        shards = example_shards.plan(exec_properties["input_base"], entries, folders)
        rows = beam_engine.for_each(
            self._make_beam_pipeline(),
            shards,
            example_shards.write,
            artifact.uri,
            rows=sum(promised.values()),
            in_memory_rows=exec_properties["in_memory_rows"],
            doing="writing examples",
        )
        for split in SPLITS:
            written = sum(count for count, shard in zip(rows, shards, strict=True) if shard.split == split)
            if written != promised[split]:
                raise DataError(
                    f"split '{split}' holds {written} rows, its manifests say {promised[split]}",
                    where=exec_properties["input_base"],
                    fix="`bike-pipeline data verify` names the damaged file; ingest that source again",
                )
        artifact.set_string_custom_property(ROWS_PROPERTY, json.dumps(promised))
        artifact.set_string_custom_property(WINDOW_PROPERTY, exec_properties[WINDOW_PROPERTY])
        # Beside the window and not in it: the same rows under another manifest are no reason to work again.
        store = SpanStore(exec_properties["input_base"])
        versions = [store.get(entry["span"], entry["version"]) for entry in entries]
        manifests = {f"{found.span}/{found.version}": found.manifest_sha256 for found in versions}
        artifact.set_string_custom_property(MANIFESTS_PROPERTY, json.dumps(manifests))
        examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(artifact, "tfrecords_gzip")


class SpanExampleGen(base.Component):
    """Reads the newest span and its history; output `examples` with the splits train, eval and history.

    Parameters: the store's folder or URL; most spans and most days that are read, 0 for all; most rows for one process.
    """

    PARAMETERS = {
        **base.parameters(str, "input_base"),
        **base.parameters(int, "window_spans", "window_days", "in_memory_rows"),
    }
    OUTPUTS = base.channels(examples=standard_artifacts.Examples)
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(SpanExampleGenExecutor)
    DRIVER_CLASS = SpanDriver
