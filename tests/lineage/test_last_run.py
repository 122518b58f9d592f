from __future__ import annotations

from bike_pipeline.lineage.records.last_run import last_run, record_last_run


def test_a_run_is_noted_and_found(tmp_path):
    assert last_run(tmp_path) == ""
    record_last_run(tmp_path, "2026-11-28T12-00-00-abc")
    assert last_run(tmp_path) == "2026-11-28T12-00-00-abc"


def test_a_damaged_note_names_no_run_and_is_written_anew(tmp_path):
    (tmp_path / "last-run").write_bytes(b"\xff\xfe\x00run")
    assert last_run(tmp_path) == ""
    record_last_run(tmp_path, "next")
    assert last_run(tmp_path) == "next"
