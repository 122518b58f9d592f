"""Metrics and verdict are those of stock TFX."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bike_pipeline.settings.evaluation import EvaluationSettings
from tests.components.conftest import on_beam
from tests.components.evaluating import WIDE, World, lookup


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> World:
    """The model beside nothing else."""
    return World(tmp_path, exported.path, examples, schema)


def by_stock_tfx(world: World, baseline: Any, settings: EvaluationSettings) -> Any:
    """Run TFX's own Evaluator on the same artifacts with the same configuration; return both of its artifacts."""
    from tfx.components.evaluator import executor as stock
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    from bike_pipeline.modeling import evaluation

    output, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    output.uri, blessing.uri = (str(world.folder / "stock" / kind) for kind in ("evaluation", "blessing"))
    inputs = world.inputs if baseline is None else {**world.inputs, "baseline_model": [baseline]}
    stock.Executor(on_beam()).Do(
        inputs,
        {"evaluation": [output], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(evaluation.eval_config(settings)),
            "example_splits": json.dumps(["eval"]),
            "module_path": "benchmarks.plain_tfx.module",
            "fairness_indicator_thresholds": "null",
        },
    )
    return SimpleNamespace(evaluation=output, blessing=blessing)


def by_slice_and_key(folder: str) -> dict[str, dict[str, Any]]:
    """Return what TFMA reads from an evaluation: values by slice and by the whole metric key."""
    import tensorflow_model_analysis as tfma

    return {
        str(record.slice_key): {
            str(entry.key): pytest.approx(entry.value.double_value.value, rel=1e-6, abs=1e-9, nan_ok=True)
            for entry in record.metric_keys_and_values
        }
        for record in tfma.load_metrics(folder)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compared", "changes"),
    [
        (True, {}),
        (True, {"change_thresholds": [{"metric": m, "max_increase": -0.1} for m in ("mae", "rmse")]}),
        (False, {}),
        (
            False,
            {
                "value_thresholds": [{**v, "upper": 1e-9} for v in WIDE["value_thresholds"][:3]]
                + WIDE["value_thresholds"][3:]
            },
        ),
    ],
)
def test_metrics_and_verdict_are_those_of_stock_tfx(world: World, compared: bool, changes: dict[str, Any]) -> None:
    import tensorflow_model_analysis as tfma

    baseline = lookup("found", Path(world.model.uri)) if compared else None
    settings = EvaluationSettings.model_validate({**WIDE, **changes})
    stock = by_stock_tfx(world, baseline, settings)
    ours = world.evaluate("ours", baseline or lookup("none"), **changes)
    expected, found = (by_slice_and_key(e.evaluation.uri) for e in (stock, ours))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].keys() == values.keys()
        for name, value in values.items():
            assert found[key][name].expected == value
    verdicts = [tfma.load_validation_result(e.evaluation.uri) for e in (stock, ours)]
    assert verdicts[0].validation_ok == verdicts[1].validation_ok
    failures = [
        {str(f.metric_key) + str(f.metric_threshold) for s in v.metric_validations_per_slice for f in s.failures}
        for v in verdicts
    ]
    assert failures[0] == failures[1]
    assert str(verdicts[0].validation_details) == str(verdicts[1].validation_details)
    configs = [tfma.load_eval_result(e.evaluation.uri).config for e in (stock, ours)]
    assert configs[0] == configs[1]
    for name in ("blessed", "current_model_id", "baseline_model_id"):
        assert stock.blessing.get_int_custom_property(name) == ours.blessing.get_int_custom_property(name)
    for name in ("current_model_uri", "baseline_model_uri"):
        assert stock.blessing.get_string_custom_property(name) == ours.blessing.get_string_custom_property(name)
