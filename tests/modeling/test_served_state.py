from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.modeling import feedback, saved_model, served_state
from bike_pipeline.modeling.feedback import FeedbackState, Labels
from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
from bike_pipeline.modeling.loaded_model import LoadedModel

NAMES = [feature.name for feature in features.MODEL_INPUTS]


def kept(folder: Path) -> Feedback:
    return Feedback.from_json((folder / saved_model.EXTRA_FOLDER / FEEDBACK_FILE).read_text())


@pytest.fixture
def copy(exported: Any, tmp_path: Path) -> Path:
    shutil.copytree(exported.path, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def rows(exported: Any) -> dict[str, Any]:
    return {name: exported.rows[name] for name in NAMES}


def base_of(copy: Path, rows: dict[str, Any]) -> Any:
    served_state.replace(str(copy), FeedbackState.neutral(kept(copy).settings))
    return LoadedModel(copy).predict(rows)


def test_the_graph_holds_the_state_of_its_labels(exported: Any) -> None:
    state = kept(exported.path).state
    as_of, table = served_state.read(str(exported.path))
    assert as_of == state.as_of > 0
    np.testing.assert_array_equal(table, state.table())


def test_the_graph_applies_it_as_the_same_function_of_plain_numbers(exported: Any, copy: Path, rows: Any) -> None:
    state, hours = kept(exported.path).state, feedback.hours_of(rows)
    groups = feedback.groups_of(rows["hr"], rows["workingday"], rows["weathersit"])
    served, base = LoadedModel(exported.path).predict(rows), base_of(copy, rows)
    factor = np.exp(state.levels[groups] * feedback.weight_of(hours, state.as_of))
    np.testing.assert_allclose(served, base * factor, rtol=1e-5)
    moved = served != base
    assert moved[(hours > state.as_of) & (hours < state.as_of + 50 * 24)].any()
    assert not moved[hours <= state.as_of].any()
    assert not moved[hours > state.as_of + 56 * 24].any()


def test_a_client_without_a_day_gets_feedback_from_the_month_of_the_last_label_on(exported: Any, rows: Any) -> None:
    as_of = kept(exported.path).state.as_of
    last = np.datetime64("2011-01-01T00") + as_of
    month = np.datetime64(last, "M").astype(int) % 12 + 1
    assert np.datetime64(last, "Y") == np.datetime64("2011")
    served = LoadedModel(exported.path)
    one = {name: values[:1].copy() for name, values in rows.items()} | {"day": np.array([0]), "yr": np.array([0])}

    def factor(mnth: int, yr: int) -> float:
        asked = one | {"mnth": np.array([mnth]), "yr": np.array([yr])}
        return served.predict(asked)[0] / served.predict(asked | {"day": np.array([1])})[0]

    assert factor(month, 0) != pytest.approx(1.0, abs=1e-4)
    assert factor(month - 1, 0) == pytest.approx(1.0, rel=0.1)


def test_a_replaced_state_is_all_that_changes(exported: Any, copy: Path, rows: Any) -> None:
    labels = Labels.of(exported.rows, feedback.hours_of(exported.rows), exported.rows["cnt"] / 2.0)
    state = Feedback(kept(copy).settings).updated(labels).state
    served_state.replace(str(copy), state)
    as_of, table = served_state.read(str(copy))
    assert as_of == state.as_of
    np.testing.assert_array_equal(table, state.table())
    changed = {
        str(path.relative_to(copy))
        for path in copy.rglob("*")
        if path.is_file() and path.read_bytes() != (exported.path / path.relative_to(copy)).read_bytes()
    }
    assert changed <= {"variables/variables.index", "variables/variables.data-00000-of-00001"}
    assert {str(p.relative_to(copy)) for p in copy.rglob("*")} == {
        str(p.relative_to(exported.path)) for p in exported.path.rglob("*")
    }
    before = {**rows, "yr": np.zeros_like(rows["yr"])}
    np.testing.assert_array_equal(LoadedModel(copy).predict(before), base_of(copy, before))


def test_intervals_stand_around_the_answer_of_the_other_signatures(exported: Any, rows: Any) -> None:
    state = kept(exported.path).state
    model = tf.saved_model.load(str(exported.path))
    specs = saved_model.input_signature()
    found = model.signatures[features.SERVING_INTERVALS](
        **{name: tf.constant(rows[name], spec.dtype) for name, spec in specs.items()}
    )
    answer = found[features.LABEL].numpy()
    np.testing.assert_array_equal(answer, LoadedModel(exported.path).predict(rows))
    groups = feedback.groups_of(rows["hr"], rows["workingday"], rows["weathersit"])
    expected = np.maximum(answer[:, None] + state.quantiles[groups] * feedback.unit_of(answer)[:, None], 0.0)
    names = list(kept(exported.path).settings.quantiles)
    answered = np.stack([found[name].numpy() for name in names], axis=1)
    np.testing.assert_allclose(answered, expected, rtol=1e-4, atol=1e-3)
    assert (found[names[0]].numpy() < found[names[-1]].numpy()).all()


def test_a_broken_row_has_no_interval(exported: Any, rows: Any) -> None:
    model = tf.saved_model.load(str(exported.path))
    broken = {name: values[:3].copy() for name, values in rows.items()} | {"temp": np.array([np.nan, 0.5, np.inf])}
    found = model.signatures[features.SERVING_INTERVALS](
        **{name: tf.constant(broken[name], spec.dtype) for name, spec in saved_model.input_signature().items()}
    )
    for values in found.values():
        np.testing.assert_array_equal(np.isnan(values.numpy()), [True, False, True])


def test_a_state_of_other_quantiles_is_refused(copy: Path) -> None:
    settings = kept(copy).settings.model_copy(update={"quantiles": {"p25": 0.25, "p75": 0.75}})
    with pytest.raises(ValueError, match="shape"):
        served_state.replace(str(copy), FeedbackState.neutral(settings))


def test_a_model_without_a_state_says_so(tmp_path: Path) -> None:
    module = tf.Module()
    module.weights = tf.Variable([1.0])
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(ValueError, match="no state"):
        served_state.read(str(tmp_path))
