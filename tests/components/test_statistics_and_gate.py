"""StatisticsGen counts the same both ways; DataGate stops what it should and lets the rest pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.components.artifact_types import DataGateReport
from bike_pipeline.components.data_gate import DataGateExecutor, severity_of
from bike_pipeline.components.statistics_gen import read_calendar
from bike_pipeline.data.plausibility import Anomaly
from bike_pipeline.errors import BikePipelineError, DataGateError
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.data import GateSettings
from tests.components.conftest import generate, statistics_of

GATE: dict[str, Any] = {
    "default_severity": "error",
    # A year lies between the two months.
    "severities": {"GAP_TO_HISTORY": "warning"},
    "min_rows": {"train": 100, "eval": 50},
    "limits": load_settings().gate.limits.model_dump(),
}
LABEL_MAY_DRIFT = {
    **GATE["severities"],
    **{f"{n}:COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "warning" for n in ("cnt", "temp", "atemp", "hum")},
}


def numbers(statistics: Any, split: str) -> dict[str, Any]:
    """Return what is exact in a split's statistics."""
    from tfx.components.statistics_gen import stats_artifact_utils

    dataset = stats_artifact_utils.load_statistics(statistics, split).proto().datasets[0]
    out: dict[str, Any] = {"rows": dataset.num_examples}
    for feature in dataset.features:
        common = getattr(feature, feature.WhichOneof("stats")).common_stats
        out[feature.path.step[0]] = (common.num_missing, common.num_non_missing)
        if feature.HasField("num_stats"):
            s = feature.num_stats
            out[feature.path.step[0] + " numbers"] = pytest.approx((s.mean, s.std_dev, s.min, s.max), rel=1e-6)
    return out


@pytest.mark.slow
def test_in_memory_equals_beam(examples: Any, schema: Any, statistics: Any, tmp_path: Path) -> None:
    by_beam = statistics_of(examples, schema, tmp_path / "beam", in_memory_rows=1)
    for split in ("train", "eval", "history"):
        assert numbers(by_beam, split).keys() == numbers(statistics, split).keys()
        for name, value in numbers(by_beam, split).items():
            expected = numbers(statistics, split)[name]
            assert (value.expected if hasattr(value, "expected") else value) == expected, (split, name)
        # To the last bit: what the gate looks at may not depend on the engine.
        assert read_calendar(by_beam, split).to_bytes() == read_calendar(statistics, split).to_bytes()


def test_an_empty_history_has_no_rows(store_uri: str, schema: Any, tmp_path: Path) -> None:
    alone = generate(store_uri, tmp_path / "examples", spans=1)
    statistics = statistics_of(alone, schema, tmp_path / "statistics")
    assert numbers(statistics, "history") == {"rows": 0}
    assert numbers(statistics, "train")["rows"] > 500


def validated(statistics: Any, schema: Any, folder: Path) -> Any:
    """Run TFX's ExampleValidator; return the anomalies artifact."""
    from tfx.components.example_validator.executor import Executor
    from tfx.types import standard_artifacts

    anomalies = standard_artifacts.ExampleAnomalies()
    anomalies.uri = str(folder)
    Executor().Do(
        {"statistics": [statistics], "schema": [schema]},
        {"anomalies": [anomalies]},
        {"exclude_splits": json.dumps(["history"])},
    )
    return anomalies


def gate(statistics: Any, schema: Any, folder: Path, **changes: Any) -> DataGateReport:
    """Run the gate; return its report artifact."""
    report = DataGateReport()
    report.uri = str(folder / "DataGate" / "report" / "7")
    Path(report.uri).mkdir(parents=True, exist_ok=True)
    anomalies = validated(statistics, schema, folder / "anomalies")
    DataGateExecutor().Do(
        {"statistics": [statistics], "schema": [schema], "anomalies": [anomalies]},
        {"report": [report]},
        {"gate": json.dumps({**GATE, **changes})},
    )
    return report


def content(report: DataGateReport) -> dict[str, Any]:
    """Return the report's content."""
    parsed: dict[str, Any] = json.loads((Path(report.uri) / "report.json").read_text())
    return parsed


def test_the_most_precise_severity_wins() -> None:
    kind = "ENUM_TYPE_INVALID_UTF8"
    severities = {f"temp:{kind}": "ignore", "temp": "warning", kind: "warning"}
    table = GateSettings.model_validate({**GATE, "severities": severities})

    def severity(feature: str, kind: Any, table: GateSettings) -> str:
        return severity_of(Anomaly("train", feature, kind, "why"), table)

    assert severity("temp", "ENUM_TYPE_INVALID_UTF8", table) == "ignore"
    assert severity("temp", "LABEL_STEP", table) == "warning"
    assert severity("hum", "ENUM_TYPE_INVALID_UTF8", table) == "warning"
    assert severity("hum", "LABEL_STEP", table) == "error"
    assert severity("", "TOO_FEW_ROWS", table.model_copy(update={"default_severity": "ignore"})) == "error"


def test_drift_that_only_warns_passes(statistics: Any, schema: Any, tmp_path: Path) -> None:
    report = gate(statistics, schema, tmp_path, severities=LABEL_MAY_DRIFT)
    found = content(report)
    assert found["passed"]
    assert found["span"] == 2
    drifted = [f for f in found["findings"] if f["feature"] == "cnt"]
    assert [(f["split"], f["severity"]) for f in drifted] == [("drift", "warning")]
    assert report.get_int_custom_property("warnings") == len(found["findings"])


def test_drift_that_is_an_error_stops_and_is_written_down(statistics: Any, schema: Any, tmp_path: Path) -> None:
    severities = {**LABEL_MAY_DRIFT, "cnt:COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "error"}
    with pytest.raises(DataGateError, match="'cnt' in drift"):
        gate(statistics, schema, tmp_path, severities=severities)
    kept = json.loads((tmp_path / "DataGate" / "refused" / "7.json").read_text())
    assert not kept["passed"]
    assert not (tmp_path / "DataGate" / "report" / "7" / "report.json").exists()


def test_too_few_rows(statistics: Any, schema: Any, tmp_path: Path) -> None:
    with pytest.raises(DataGateError, match=r"the split in eval: \d+ rows, fewer than the 5000"):
        gate(statistics, schema, tmp_path, severities=LABEL_MAY_DRIFT, min_rows={"train": 100, "eval": 5000})


def test_first_span_has_nothing_to_drift_from(store_uri: str, schema: Any, tmp_path: Path) -> None:
    alone = generate(store_uri, tmp_path / "examples", spans=1)
    statistics = statistics_of(alone, schema, tmp_path / "statistics")
    assert content(gate(statistics, schema, tmp_path))["findings"] == []


def test_what_breaks_the_schema_stops(month_file: Callable[..., Path], schema: Any, tmp_path: Path) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings
    from tests.components import conftest

    uri = str(tmp_path / "spans")
    ingest(load_settings(assignments=(f"data.store={uri}",)), str(month_file("2011-05")))
    narrow = conftest.ROOT / "configs" / "schema.pbtxt"
    strict = type(schema)()
    strict.uri = str(tmp_path / "strict")
    Path(strict.uri).mkdir()
    text = narrow.read_text().replace("int_domain { min: 1 max: 12 }", "int_domain { min: 1 max: 4 }")
    (Path(strict.uri) / "schema.pbtxt").write_text(text)
    statistics = statistics_of(generate(uri, tmp_path / "examples"), strict, tmp_path / "statistics")
    with pytest.raises(DataGateError, match="'mnth' in"):
        gate(statistics, strict, tmp_path)


ALWAYS_150 = {"casual": "30", "registered": "120", "cnt": "150"}


def by_fifty(row: dict[str, str]) -> dict[str, str]:
    """The temperatures of a row as °C / 50."""
    temp, atemp = float(row["temp"]) * 47 - 8, float(row["atemp"]) * 66 - 16
    return {**row, "temp": str(max(temp, 0) / 50), "atemp": str(max(atemp, 0) / 50)}


@pytest.mark.parametrize(
    ("poison", "refusal"),
    [
        (lambda row: {**row, **ALWAYS_150}, "'cnt' in train: the label is nearly constant"),
        (by_fifty, "'atemp' in span: it no longer follows temp as in the history"),
    ],
)
def test_a_poisoned_month_is_refused_though_every_drift_may_pass(
    poison: Callable[[dict[str, str]], dict[str, str]],
    refusal: str,
    month_file: Callable[..., Path],
    schema: Any,
    tmp_path: Path,
) -> None:
    from bike_pipeline.data.ingest import ingest

    settings = load_settings(assignments=(f"data.store={tmp_path / 'spans'}",))
    ingest(settings, str(month_file("2011-02")))
    ingest(settings, str(month_file("2012-02", poison)))
    statistics = statistics_of(generate(settings.store_uri, tmp_path / "examples"), schema, tmp_path / "statistics")
    with pytest.raises(DataGateError, match=refusal):
        gate(statistics, schema, tmp_path, severities=LABEL_MAY_DRIFT)
    kept = json.loads((tmp_path / "DataGate" / "refused" / "7.json").read_text())
    assert {(f["feature"], f["severity"]) for f in kept["findings"] if "COMPARATOR" in f["kind"]} >= {
        ("cnt", "warning")
    }


def test_what_the_calendar_says_may_be_weighed_otherwise(statistics: Any, schema: Any, tmp_path: Path) -> None:
    limits = {**GATE["limits"], "label_variation": 1.0}
    with pytest.raises(DataGateError, match="nearly constant"):
        gate(statistics, schema, tmp_path / "shipped", severities=LABEL_MAY_DRIFT, limits=limits)
    severities = {**LABEL_MAY_DRIFT, "cnt:LABEL_NEAR_CONSTANT": "warning"}
    report = content(gate(statistics, schema, tmp_path / "changed", severities=severities, limits=limits))
    assert ("LABEL_NEAR_CONSTANT", "warning") in {(f["kind"], f["severity"]) for f in report["findings"]}


def test_without_the_sums_by_day_nothing_passes(examples: Any, schema: Any, tmp_path: Path) -> None:
    statistics = statistics_of(examples, schema, tmp_path / "statistics")
    (tmp_path / "statistics" / "calendar" / "history.npz").unlink()
    with pytest.raises(BikePipelineError, match="the sums by day are gone"):
        gate(statistics, schema, tmp_path, severities=LABEL_MAY_DRIFT)


def test_missing_evidence_never_passes(statistics: Any, schema: Any, tmp_path: Path) -> None:
    anomalies = validated(statistics, schema, tmp_path / "anomalies")
    shutil.rmtree(tmp_path / "anomalies" / "Split-eval")
    report = DataGateReport()
    report.uri = str(tmp_path / "report" / "1")
    with pytest.raises(Exception, match="Split-eval"):
        DataGateExecutor().Do(
            {"statistics": [statistics], "schema": [schema], "anomalies": [anomalies]},
            {"report": [report]},
            {"gate": json.dumps({**GATE, "severities": LABEL_MAY_DRIFT})},
        )
