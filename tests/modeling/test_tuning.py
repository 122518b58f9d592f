"""What a search tries, on which rows it judges, and what a run takes over of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import rows, tuning
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.tuning import decoded, tuned

SETTINGS = load_settings()
PLAIN = SETTINGS.training.model_dump(mode="json")


def test_each_window_lies_behind_all_rows_that_train_for_it_and_none_is_used_twice() -> None:
    folds = tuning.folds_of(1000, 3, 0.1)
    assert [(fold.end, fold.last) for fold in folds] == [(700, 800), (800, 900), (900, 1000)]


def test_rows_are_in_the_order_of_time_however_the_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"yr": np.array([1, 1, 0, 0]), "mnth": np.array([2, 2, 12, 1]), "hr": np.array([0, 1, 2, 3])}
    monkeypatch.setattr(rows, "read", lambda *_: given)
    tuning.in_order.cache_clear()
    assert tuning.in_order(("x",), "schema")["hr"].tolist() == [3, 2, 0, 1]
    tuning.in_order.cache_clear()


def space() -> Any:
    return tuning.space_of(SETTINGS.tuning, PLAIN)


def test_the_settings_are_tried_first_and_a_seed_gives_the_same_trials() -> None:
    trials = tuning.trials_of(space(), 30, 7)
    assert len(trials) == 30
    assert decoded(trials[0]) == {d.name: PLAIN[d.name] for d in SETTINGS.tuning.space}
    assert len({json.dumps(values, sort_keys=True) for values in trials}) == 30
    assert trials == tuning.trials_of(space(), 30, 7)
    # More trials go on where fewer stopped, so that what was tried counts.
    assert tuning.trials_of(space(), 40, 7)[:30] == trials
    assert trials[1:] != tuning.trials_of(space(), 30, 8)[1:]


def test_every_trial_lies_in_the_space() -> None:
    for values in map(decoded, tuning.trials_of(space(), 60, 3)[1:]):
        for dimension in SETTINGS.tuning.space:
            value = values[dimension.name]
            if dimension.choices:
                assert value in dimension.choices
            else:
                assert dimension.low is not None
                assert dimension.high is not None
                assert dimension.low <= value <= dimension.high
        assert isinstance(values["epochs"], int)
        assert tuned(PLAIN, {"values": values})["epochs"] == values["epochs"]


def test_a_small_space_is_tried_once() -> None:
    small = load_settings(
        assignments=("tuning.space=[{name: epochs, choices: [1, 2]}, {name: hidden_units, choices: [[4], [8]]}]",)
    )
    trials = tuning.trials_of(tuning.space_of(small.tuning, PLAIN), 50, 1)
    # Four sets, and the settings themselves, which lie outside of it.
    assert len(trials) == 5


def test_what_was_found_survives_the_file_that_tfx_hands_on() -> None:
    import keras_tuner

    best = space()
    best.values = tuning.trials_of(best, 3, 1)[2]
    config = json.loads(json.dumps(best.get_config()))
    assert keras_tuner.HyperParameters.from_config(config).values == best.values
    found = tuned(PLAIN, config)
    assert {d.name: found[d.name] for d in SETTINGS.tuning.space} == decoded(best.values)
    assert found["weight_decay"] == PLAIN["weight_decay"]
    assert tuned(PLAIN, None) == PLAIN


def test_hyperparameters_that_the_settings_would_refuse_are_refused() -> None:
    with pytest.raises(ValidationError, match="dropout"):
        tuned(PLAIN, {"values": {"dropout": 1.5}})


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("tuning.space=[{name: casual, low: 0, high: 1}]", "casual cannot be tuned"),
        ("tuning.space=[{name: strategy, choices: [none, mirrored]}]", "strategy cannot be tuned"),
        ("tuning.space=[{name: dropout, low: 0.1, high: 1.5}]", r"tuning\.space: dropout: Input should be less than 1"),
        (
            "tuning.space=[{name: hidden_units, choices: [[0]]}]",
            r"tuning\.space: hidden_units: Input should be greater",
        ),
        ("tuning.space=[{name: epochs, low: 5, high: 2}]", "it takes choices, or a low and a high above that"),
        ("tuning.space=[{name: epochs, low: 1, high: 2, choices: [1]}]", "choices stand alone"),
        ("tuning.space=[{name: dropout, low: 0, high: 0.5, log: true}]", "with log, low must be above 0"),
        ("tuning.space=[]", "tuning.space: Tuple should have at least 1 item"),
        ("tuning.space=[{name: epochs, choices: [1]}, {name: epochs, choices: [2]}]", "stands there twice"),
        ("tuning.validation_share=0.25", "less than half of the rows"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_the_search(assignment: str, message: str) -> None:
    more = ("tuning.origins=3",) if "share" in assignment else ()
    with pytest.raises(ConfigurationError, match=message):
        load_settings(assignments=(assignment, *more))


def test_a_run_searches_or_takes_over_and_not_both() -> None:
    with pytest.raises(ConfigurationError, match="choose one"):
        load_settings(assignments=("tuning.enabled=true", "tuning.import_best=true"))
