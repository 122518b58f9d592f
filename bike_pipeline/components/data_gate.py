"""DataGate: stops the run on anomalous data. TFX's ExampleValidator only writes anomalies down and goes on training."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx import types
from tfx.components.example_validator import executor as validator
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from bike_pipeline.components import base, statistics_gen
from bike_pipeline.components.artifact_types import DataGateReport
from bike_pipeline.data import plausibility
from bike_pipeline.errors import DataGateError
from bike_pipeline.settings.data import GateLimits
from bike_pipeline.stages import EVAL, HISTORY, TRAIN, Stage

REPORT_FILE = "report.json"
DRIFT = "drift"


@dataclass(frozen=True)
class Finding:
    """One anomaly.

    Attributes:
        split: the split it was found in, "span" for train and eval together, or "drift" where the newest train split is
            held against the history.
        feature: the column, or "" where it concerns the whole split.
        kind: TFDV's anomaly type, TOO_FEW_ROWS, or one of `GateKind`.
        severity: "error", "warning" or "ignore".
        reason: what was found, in words.
    """

    split: str
    feature: str
    kind: str
    severity: str
    reason: str


def severity_of(feature: str, kind: str, severities: dict[str, str], default: str) -> str:
    """Return the severity of an anomaly: the most precise entry of the table wins."""
    for key in (f"{feature}:{kind}", feature, kind):
        if key in severities:
            return severities[key]
    return default


def findings_of(
    split: str, anomalies: anomalies_pb2.Anomalies, severities: dict[str, str], default: str
) -> list[Finding]:
    """Return TFDV's anomalies of one split as findings, sorted by feature."""
    found = []
    named = [(info.path.step[-1] if info.path.step else name, info) for name, info in anomalies.anomaly_info.items()]
    if anomalies.HasField("dataset_anomaly_info"):
        named.append(("", anomalies.dataset_anomaly_info))
    for feature, info in named:
        for reason in info.reason:
            kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            severity = severity_of(feature, kind, severities, default)
            found.append(Finding(split, feature, kind, severity, reason.description.strip()))
    return sorted(found, key=lambda finding: (finding.feature, finding.kind))


class DataGateSpec(component_spec.ComponentSpec):
    """Inputs: statistics, schema, anomalies. Parameter: the `gate` section of the settings as JSON."""

    PARAMETERS = base.parameters(str, "gate")
    INPUTS = base.channels(
        statistics=standard_artifacts.ExampleStatistics,
        schema=standard_artifacts.Schema,
        anomalies=standard_artifacts.ExampleAnomalies,
    )
    OUTPUTS = base.channels(report=DataGateReport)


class DataGateExecutor(base_executor.BaseExecutor):
    """Collects anomalies, drift and row counts, weighs them by the severity table, and raises on an error."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the report; refuse the span where a finding is an error.

        A refused span's report goes to `refused/` beside the stage's other outputs, since TFX removes the outputs of
        a failed execution.

        Raises:
            DataGateError: at least one finding is an error.
        """
        gate = json.loads(exec_properties["gate"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        schema = base.schema_of(input_dict)
        findings = self._rows(statistics, gate["min_rows"])
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            path = os.path.join(artifact_utils.get_split_uri([anomalies], split), validator.DEFAULT_FILE_NAME)
            proto = anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
            findings += findings_of(split, proto, gate["severities"], gate["default_severity"])
        findings += self._drift(statistics, schema, gate)
        findings += self._doubts(statistics, gate)
        report = artifact_utils.get_single_instance(output_dict["report"])
        report.set_int_custom_property("span", statistics.span)
        refused = [finding for finding in findings if finding.severity == "error"]
        content = json.dumps(
            {"span": statistics.span, "passed": not refused, "findings": [asdict(finding) for finding in findings]},
            indent=2,
        )
        if refused:
            folder, number = os.path.split(report.uri.rstrip("/"))
            kept = os.path.join(os.path.dirname(folder), "refused", f"{number}.json")
            io_utils.write_string_file(kept, content)
            first = refused[0]
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            whole = "all of it" if first.split == plausibility.SPAN else "the split"
            subject = f"'{first.feature}'" if first.feature else whole
            raise DataGateError(
                f"span {statistics.span} is refused: {subject} in {first.split}: {first.reason.rstrip('.')}{more}",
                where=Stage.DATA_GATE,
                fix=f"correct the source and ingest it again, or weigh it otherwise in gate.severities; report: {kept}",
            )
        io_utils.write_string_file(os.path.join(report.uri, REPORT_FILE), content)
        report.set_int_custom_property("warnings", sum(finding.severity == "warning" for finding in findings))

    @staticmethod
    def _rows(statistics: types.Artifact, min_rows: dict[str, int]) -> list[Finding]:
        found = []
        for split in (TRAIN, EVAL):
            rows = stats_artifact_utils.load_statistics(statistics, split).proto().datasets[0].num_examples
            if rows < min_rows[split]:
                reason = f"{rows:g} rows, fewer than the {min_rows[split]} of gate.min_rows"
                found.append(Finding(split, "", "TOO_FEW_ROWS", "error", reason))
        return found

    @staticmethod
    def _drift(statistics: types.Artifact, schema: schema_pb2.Schema, gate: dict[str, Any]) -> list[Finding]:
        before = stats_artifact_utils.load_statistics(statistics, HISTORY).proto()
        if before.datasets[0].num_examples == 0:
            return []
        now = stats_artifact_utils.load_statistics(statistics, TRAIN).proto()
        anomalies = tfdv.validate_statistics(now, schema, previous_statistics=before)
        found = findings_of(DRIFT, anomalies, gate["severities"], gate["default_severity"])
        # What the split shows by itself is ExampleValidator's; here only what the comparison shows.
        return [finding for finding in found if finding.kind.startswith("COMPARATOR_")]

    @staticmethod
    def _doubts(statistics: types.Artifact, gate: dict[str, Any]) -> list[Finding]:
        limits = GateLimits.model_validate(gate["limits"])
        train, eval_, history = (statistics_gen.read_calendar(statistics, split) for split in (TRAIN, EVAL, HISTORY))
        found = []
        for anomaly in plausibility.anomalies(train, eval_, history, limits):
            severity = severity_of(anomaly.feature, anomaly.kind, gate["severities"], gate["default_severity"])
            found.append(Finding(anomaly.split, anomaly.feature, anomaly.kind, severity, anomaly.reason))
        return found


class DataGate(base.Component):
    """Stops the run on anomalies; output `report`."""

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(DataGateExecutor)
