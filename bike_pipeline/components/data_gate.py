"""DataGate: stops the run on anomalous data. TFX's ExampleValidator only writes anomalies down and goes on training."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator import executor as validator
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from bike_pipeline.components import base, statistics_gen
from bike_pipeline.components.artifact_types import DataGateReport
from bike_pipeline.components.base import Artifacts
from bike_pipeline.data import plausibility
from bike_pipeline.data.plausibility import Anomaly
from bike_pipeline.errors import DataGateError, and_more
from bike_pipeline.settings.data import GateSettings
from bike_pipeline.stages import EVAL, HISTORY, TRAIN, Stage

DRIFT: Final = "drift"
TOO_FEW_ROWS: Final = "TOO_FEW_ROWS"


def severity_of(anomaly: Anomaly, gate: GateSettings) -> str:
    """Return an anomaly's severity: the most precise entry of the table wins; too few rows are an error always."""
    if anomaly.kind == TOO_FEW_ROWS:
        return "error"
    keys = (f"{anomaly.feature}:{anomaly.kind}", anomaly.feature, anomaly.kind)
    return next((gate.severities[key] for key in keys if key in gate.severities), gate.default_severity)


def _anomalies_of(split: str, anomalies: anomalies_pb2.Anomalies) -> list[Anomaly]:
    """Return TFDV's anomalies of one split, sorted by feature."""
    named = [(info.path.step[-1] if info.path.step else name, info) for name, info in anomalies.anomaly_info.items()]
    if anomalies.HasField("dataset_anomaly_info"):
        named.append(("", anomalies.dataset_anomaly_info))
    found = [
        Anomaly(split, feature, anomalies_pb2.AnomalyInfo.Type.Name(reason.type), reason.description.strip())
        for feature, info in named
        for reason in info.reason
    ]
    return sorted(found, key=lambda anomaly: (anomaly.feature, anomaly.kind))


class DataGateExecutor(base_executor.BaseExecutor):
    """Collects anomalies, drift and row counts, weighs them by the severity table, and raises on an error."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Write the report; refuse the span where a finding is an error.

        A refused span's report goes to `refused/` beside the stage's other outputs, since TFX removes the outputs of
        a failed execution.

        Raises:
            DataGateError: at least one finding is an error.
        """
        gate = GateSettings.model_validate_json(exec_properties["gate"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        loaded = {
            split: stats_artifact_utils.load_statistics(statistics, split).proto() for split in (TRAIN, EVAL, HISTORY)
        }
        rows = {split: proto.datasets[0].num_examples for split, proto in loaded.items()}
        found = [
            Anomaly(split, "", TOO_FEW_ROWS, f"{rows[split]:g} rows, fewer than the {fewest} of gate.min_rows")
            for split in (TRAIN, EVAL)
            if rows[split] < (fewest := gate.min_rows[split])
        ]
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            path = os.path.join(artifact_utils.get_split_uri([anomalies], split), validator.DEFAULT_FILE_NAME)
            found += _anomalies_of(split, anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path)))
        if rows[HISTORY]:
            drift = tfdv.validate_statistics(
                loaded[TRAIN], base.schema_of(input_dict), previous_statistics=loaded[HISTORY]
            )
            # What the split shows by itself is ExampleValidator's; here only what the comparison shows.
            found += [a for a in _anomalies_of(DRIFT, drift) if a.kind.startswith("COMPARATOR_")]
        train, eval_, history = (statistics_gen.read_calendar(statistics, split) for split in (TRAIN, EVAL, HISTORY))
        found += plausibility.anomalies(train, eval_, history, gate.limits)
        findings = [
            {
                "split": anomaly.split,
                "feature": anomaly.feature,
                "kind": anomaly.kind,
                "severity": severity_of(anomaly, gate),
                "reason": anomaly.reason,
            }
            for anomaly in found
        ]
        report = artifact_utils.get_single_instance(output_dict["report"])
        report.set_int_custom_property("span", statistics.span)
        refused = [finding for finding in findings if finding["severity"] == "error"]
        content = json.dumps({"span": statistics.span, "passed": not refused, "findings": findings}, indent=2)
        if refused:
            folder, number = os.path.split(report.uri.rstrip("/"))
            kept = os.path.join(os.path.dirname(folder), "refused", f"{number}.json")
            io_utils.write_string_file(kept, content)
            first = refused[0]
            whole = "all of it" if first["split"] == plausibility.SPAN else "the split"
            subject = f"'{first['feature']}'" if first["feature"] else whole
            reason = f"{subject} in {first['split']}: {first['reason'].rstrip('.')}{and_more(refused)}"
            raise DataGateError(
                f"span {statistics.span} is refused: {reason}",
                where=Stage.DATA_GATE,
                fix=f"correct the source and ingest it again, or weigh it otherwise in gate.severities; report: {kept}",
            )
        io_utils.write_string_file(os.path.join(report.uri, "report.json"), content)
        report.set_int_custom_property("warnings", sum(finding["severity"] == "warning" for finding in findings))


class DataGate(base.Component):
    """Stops the run on anomalies.

    Inputs: statistics, schema, anomalies. Output: the report. Parameter: the `gate` section of the settings as JSON.
    """

    PARAMETERS = base.parameters(str, "gate")
    INPUTS = base.channels(
        statistics=standard_artifacts.ExampleStatistics,
        schema=standard_artifacts.Schema,
        anomalies=standard_artifacts.ExampleAnomalies,
    )
    OUTPUTS = base.channels(report=DataGateReport)
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(DataGateExecutor)
