"""Files of another form, read by a mapping and held against the contract."""

from __future__ import annotations

import pytest

from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.mapped_rows import read_mapped
from bike_pipeline.settings import load_settings
from tests.data import mapped

TRIPS = "capital-bikeshare-trips"


@pytest.fixture
def read(tmp_path):
    """Read rows, or bytes, by a mapping; return what passes the contract, its reasons and what is told."""

    def by(name, rows, weather=None, encoding="utf-8"):
        (tmp_path / "source.csv").write_bytes(rows if isinstance(rows, bytes) else mapped.text(rows, encoding))
        beside = None
        if weather is not None:
            beside = tmp_path / "weather.csv"
            beside.write_bytes(mapped.text(weather, before=mapped.OPEN_METEO))
        found, _, notes = read_mapped(name, str(tmp_path / "source.csv"), beside and str(beside))
        return check_rows(found), " | ".join(notes)

    return by


@pytest.fixture
def settings(tmp_path):
    return load_settings(None, (f"workspace={tmp_path / 'workspace'}",))


def reasons(checked):
    table = checked.rejected
    return dict(zip(table["line"].to_pylist(), table["reasons"].to_pylist(), strict=True))
