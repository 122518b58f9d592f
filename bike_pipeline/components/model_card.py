"""ModelCard: what an evaluated model is, for whom, how good and why, on one page that goes wherever the model goes.

A candidate that is not blessed gets a card too, which says so; only the Pusher decides what leaves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.dsl.components.base import base_executor, executor_spec
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from bike_pipeline import features, progress
from bike_pipeline.components import base
from bike_pipeline.components.artifact_types import ModelCard as Card
from bike_pipeline.components.base import Artifacts
from bike_pipeline.lineage.queries.evidence import GATES
from bike_pipeline.lineage.reports import model_card
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.modeling import energy, rows, saved_model
from bike_pipeline.modeling.permutation_importance import permutation_importance
from bike_pipeline.stages import DECISIONS_FILE, EVAL, Stage

RECORD_PROPERTY, SUMMARY_PROPERTY = "record", "summary"
# Inputs that the summary names.
_NAMED = 3


class ModelCardDriver(base.Driver):
    """Gathers what ML Metadata and the span store tell of the model, for the executor."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Return the record on the output artifact."""
        model = execution_info.input_dict["model"][0]
        with self._mlmd_connection as connection:
            card = model_card.card_of_model(
                Lineage(connection.store), model.id, execution_info.exec_properties["store_uri"]
            )
        return self.output_with(execution_info, "model_card", RECORD_PROPERTY, card)


class ModelCardExecutor(base_executor.BaseExecutor):
    """Explains the model on the eval split, and writes the card."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Write the card as JSON, Markdown and HTML; set which inputs count most on the output.

        Raises:
            DataError: the examples lack a column or have no rows.
        """
        from bike_pipeline.modeling.loaded_model import LoadedModel

        output = artifact_utils.get_single_instance(output_dict["model_card"])
        evaluation = artifact_utils.get_single_uri(input_dict["evaluation"])
        decided = json.loads(io_utils.read_string_file(str(Path(evaluation) / DECISIONS_FILE)))
        names = [feature.name for feature in features.MODEL_INPUTS]
        # Evenly over the split, so over all its seasons and hours.
        there = base.rows_by_split(artifact_utils.get_single_instance(input_dict["examples"]))[EVAL]
        columns = rows.read_split(
            artifact_utils.get_split_uri(input_dict["examples"], EVAL),
            (*names, features.LABEL),
            base.schema_of(input_dict),
            Stage.MODEL_CARD,
            every=max(1, there // exec_properties["rows"]),
        )
        model = path_utils.serving_model_dir(artifact_utils.get_single_uri(input_dict["model"]))
        target = saved_model.target_of(model)
        label = target.label(columns.pop(features.LABEL))
        progress.report(0.1, "permuting each input")
        explanations = permutation_importance(
            LoadedModel(model).predict,
            columns,
            label,
            names,
            exec_properties["repeats"],
            exec_properties["seed"],
        )
        record = json.loads(output.get_string_custom_property(RECORD_PROPERTY))
        # Of the Trainer's seconds the driver knows; what they took from the socket stands beside the model.
        training = {**(record["training"] or {}), **energy.read(artifact_utils.get_single_uri(input_dict["model"]))}
        card = {
            **record,
            "training": training or None,
            **model_card.of_target(target.described()),
            # Of this evaluation: the model may have been evaluated by other limits since.
            "gates": {name: decided.get(name) for name in GATES},
            "metrics": decided["candidate_metrics"],
            "explanations": {**explanations, "unit": target.unit},
        }
        Path(output.uri).mkdir(parents=True, exist_ok=True)
        model_card.write(card, output.uri)
        most = explanations["inputs"][:_NAMED]
        text = ", ".join(f"{i['name']} {i['mae_increase'] or 0.0:+.3g}" for i in most)
        output.set_string_custom_property(SUMMARY_PROPERTY, f"MAE without {text}")


class ModelCard(base.Component):
    """Writes an evaluated model's card.

    Inputs: candidate, its evaluation, examples, schema. Output: the card. Parameters: the address of the span store;
    the rows of the eval split to explain the model on, how often each input is permuted, and the seed of that.
    """

    PARAMETERS = {**base.parameters(str, "store_uri"), **base.parameters(int, "rows", "repeats", "seed")}
    INPUTS = base.channels(
        model=standard_artifacts.Model,
        evaluation=standard_artifacts.ModelEvaluation,
        examples=standard_artifacts.Examples,
        schema=standard_artifacts.Schema,
    )
    OUTPUTS = base.channels(model_card=Card)
    DRIVER_CLASS = ModelCardDriver
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ModelCardExecutor)
