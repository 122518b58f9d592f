"""What windows are compared with, and that they are told."""

import numpy as np
import pytest

from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases.data import ingest, span_store
from tests.monitoring.watching import reference, windows


def test_a_window_is_compared_with_the_same_weeks_of_earlier_years():
    compared = reference().of(windows("2012-03-05", 1)[0])
    assert compared.words == "the same weeks of 2011, ± 14 days"
    assert set(compared.columns["mnth"]) == {2, 3}


def test_where_no_earlier_year_is_there_the_training_rows_count():
    compared = reference().of(windows("2011-11-07", 1)[0])
    assert compared.words == "the training rows, 2011-01-01 to 2011-10-20"


def test_spans_of_one_day_are_no_earlier_year():
    rows = {name: values[:24] for name, values in reference().columns.items()}
    assert (
        Reference(rows).of(windows("2012-01-02", 1)[0]).words == "the spans before the window, 2011-01-01 to 2011-01-01"
    )


def test_without_rows_the_words_say_so():
    rows = {name: values[:0] for name, values in reference().columns.items()}
    assert Reference(rows).of(windows("2012-01-02", 1)[0]).words.startswith("nothing:")


def test_an_empty_store_is_a_reference_without_rows(tmp_path):
    assert not len(Reference.of_spans(SpanStore(str(tmp_path))).columns["hour"])


def test_rows_come_from_the_spans_with_the_weather_before_them(tmp_path):
    settings = load_settings(assignments=(f"workspace={tmp_path}",))
    ingest(settings, EMBEDDED_FILE)
    found = Reference.of_spans(span_store(settings)).columns
    ours = reference().columns
    count = len(ours["hour"])
    assert found["hour"][:count].tolist() == ours["hour"].tolist()
    for name in ours:
        assert found[name][:count] == pytest.approx(np.asarray(ours[name])), name
