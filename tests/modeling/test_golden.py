import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.modeling.golden import are_sound, broken_rows, golden_rows, with_broken_rows


def test_golden_rows_hold_every_category_both_ends_of_every_range_and_the_unseen() -> None:
    rows = golden_rows(1000)
    assert tuple(rows) == tuple(f.name for f in features.MODEL_INPUTS)
    for feature in features.MODEL_INPUTS:
        values = rows[feature.name]
        assert len(values) == 1000
        assert values.dtype == (np.int64 if feature.kind == "int" else np.float32)
        assert np.isfinite(values).all()
        assert feature.minimum is not None
        if feature.kind == "int" and feature.maximum is not None:
            assert set(range(int(feature.minimum), int(feature.maximum) + 1)) <= set(values.tolist())
        assert values.min() < feature.minimum
        assert feature.maximum is None or ({feature.minimum, feature.maximum} <= set(values.tolist()))
        assert values.max() > (feature.maximum or 4)


def test_golden_rows_are_the_same_every_time() -> None:
    first, second = golden_rows(300), golden_rows(300)
    assert all((first[name] == second[name]).all() for name in first)


def test_too_few_golden_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="take more"):
        golden_rows(20)


def test_broken_rows_hold_every_kind_of_no_number_in_every_column_that_can() -> None:
    broken = broken_rows()
    for feature in features.MODEL_INPUTS:
        values = broken[feature.name]
        found = sorted(map(str, values[~np.isfinite(values)]))
        assert found == (["-inf", "inf", "nan"] if feature.kind == "float" else [])
    assert not are_sound(broken).any()


def test_broken_rows_stand_among_the_others_and_change_none_of_them() -> None:
    rows = golden_rows(200)
    mixed = with_broken_rows(rows)
    sound = are_sound(mixed)
    assert sound[0]
    assert not sound[-1]
    assert (np.diff(np.flatnonzero(~sound)) > 5).all()
    for name, values in rows.items():
        assert mixed[name].dtype == values.dtype
        assert (mixed[name][sound] == values).all()


def test_an_answer_that_is_no_number_differs_without_limit() -> None:
    reference = np.asarray([10.0, 0.2, 100.0], np.float32)
    found = compare(reference, np.asarray([10.0, np.nan, 101.0], np.float32))
    assert found.max_difference == np.inf
    assert found.worst_row == 1


def test_differences_are_relative_to_at_least_one_rental() -> None:
    found = compare(np.asarray([0.1, 100.0], np.float32), np.asarray([0.3, 101.0], np.float32))
    assert found.max_relative_difference == pytest.approx(0.2, rel=1e-6)
    assert found.worst_row == 0
    assert found.wape == pytest.approx(1.2 / 100.1, rel=1e-6)


def test_a_comparison_of_nothing_does_not_pass() -> None:
    nothing = np.zeros(0, np.float32)
    with pytest.raises(ValueError, match="answers for"):
        compare(nothing, nothing)
