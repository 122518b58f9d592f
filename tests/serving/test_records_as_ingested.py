"""A record that is asked about and a row that is ingested: one reader, one set of words."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.data.columns import parse_column
from tests.serving.test_records import NAMES, RECORD, columns, refused

SPELLINGS = st.one_of(
    st.sampled_from(
        ["1_0", "٨", "8.", "+8", " 8", "8.0", "08", "0x8", "1e1", "١", "8 ", "", "nan", "ınf", "-0", "½", "8\u00a0"]
    ),
    st.integers(-3, 40).map(str),
    st.floats(allow_nan=True).map(repr),
    st.text(max_size=5),
)


@given(st.sampled_from(NAMES), SPELLINGS)
def test_a_value_passes_here_where_it_passes_at_an_ingest(name, text):
    feature = features.BY_NAME[name]
    text = text.encode("utf-8", "ignore").decode()
    values, valid, problems = parse_column(feature, pa.chunked_array([pa.array([text])]), "upload")
    said = [problem.describe(0) for problem in problems]
    error = refused(lambda: columns({**RECORD, name: text}))
    told = [] if error is None else error.what.split("; ")
    assert [reason for reason in told if "weekday and holiday" not in reason and "counts from" not in reason] == said
    if error is None:
        assert valid.all()
        assert columns({**RECORD, name: text})[name] == values.tolist()
