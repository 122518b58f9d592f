"""What the feature contract says of slices: one name each, wherever a person reads it."""

from __future__ import annotations

import pytest

from bike_pipeline import features


@pytest.mark.parametrize(
    ("slicing", "value", "name"),
    [
        ("overall", "", "overall"),
        ("hour_band", "0", "hours 0-5"),
        ("hour_band", "20", "hours 20-23"),
        ("hour_band", "", "hour band"),
        ("workingday", "0", "no working day"),
        ("weathersit", "3", "weather light rain or snow"),
        ("weathersit", "9", "weathersit 9"),
        ("season", "1", "winter"),
    ],
)
def test_slices_have_names_for_people(slicing, value, name):
    assert features.slice_name(slicing, value) == name
