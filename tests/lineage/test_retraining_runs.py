"""What triggers asked for stands beside the pipeline's run, once, and changes nothing of what is said of that run."""

from pathlib import Path

import pytest

from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.reports.lineage_report import report_of_run
from bike_pipeline.lineage.reports.run_page import explain
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.lineage.store.retraining_runs import cause_of, record_run
from tests.lineage.world import Runs


def found(sha256: str = "a" * 64, outcome: str = "promoted") -> dict[str, str]:
    return {"trigger": "code, storage", "reason": "new rows in a.csv", "outcome": outcome, "sha256": sha256}


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage(Runs(tmp_path / "workspace").two().recorder.store)


def test_a_run_s_trigger_and_reason_are_told_and_the_run_is_as_it_was(lineage: Lineage) -> None:
    before = lineage.runs()
    run_id = before[-1].run_id
    stages = lineage.executions_of(run_id)
    for _ in range(2):
        record_run(lineage, run_id, found(), failed=False)
    assert lineage.runs() == before
    assert lineage.executions_of(run_id) == stages
    assert len(lineage.executions_of(run_id, stages=False)) == len(stages) + 1
    assert cause_of(lineage, run_id) == "code, storage: new rows in a.csv"
    assert cause_of(lineage, before[0].run_id) == ""
    assert ("asked for by", "code, storage: new rows in a.csv") in report_of_run(History(lineage), run_id, "").facts
    assert explain(lineage, run_id, "").trigger == "code, storage: new rows in a.csv"


def test_a_run_that_came_to_none_of_the_pipeline_is_on_record_too(lineage: Lineage) -> None:
    runs = lineage.runs()
    record_run(lineage, "", found("b" * 64, "refused"), failed=False)
    record_run(lineage, "", found("c" * 64, "failed"), failed=True)
    kept = lineage.store.get_executions_by_type("bike.RetrainingRun")
    assert [prop(one, "outcome") for one in kept] == ["refused", "failed"]
    assert lineage.runs() == runs
