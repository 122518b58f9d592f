"""The plain way: the same pipeline as a user writes it by TFX's own guide, with stock components and default options.

Run as a program of its own; nothing imports it. The reference that `benchmarks/end_to_end.py` measures against.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import tensorflow_model_analysis as tfma
from tfx import v1 as tfx

MODULE_FILE = str(Path(__file__).with_name("module.py"))
SLICINGS = ("hour_band", "workingday", "season", "weathersit")


def _bounds(metric: str, limit: dict[str, Any]) -> tuple[float | None, float]:
    """Return the limits of TFMA's stock metric for those of ours: squares for the roots, a share of 1 for the bias."""
    if metric in {"rmse", "rmsle"}:
        return None, limit["upper"] ** 2
    if metric == "bias":
        return 1.0 + limit["lower"], 1.0 + limit["upper"]
    return limit.get("lower"), limit["upper"]


def eval_config(evaluation: dict[str, Any]) -> tfma.EvalConfig:
    """Return the metrics, slices and thresholds of the product's settings, in TFMA's own terms.

    Args:
        evaluation: the `evaluation` section of the settings. Its limits on slices are left out: TFMA cannot exempt
            slices with few rows; the slices are measured all the same.
    """
    names = {
        "mae": "MeanAbsoluteError",
        "rmse": "MeanSquaredError",
        "rmsle": "MeanSquaredLogarithmicError",
        "bias": "Calibration",
        "calibration": "Calibration",
    }
    metrics: dict[str, tfma.MetricConfig] = {}
    for limit in evaluation["value_thresholds"]:
        if limit.get("slicing", "overall") != "overall":
            continue
        name = names[limit["metric"]]
        metric = metrics.setdefault(name, tfma.MetricConfig(class_name=name))
        lower, upper = _bounds(limit["metric"], limit)
        bound = metric.threshold.value_threshold
        if lower is not None:
            before = bound.lower_bound.value if bound.HasField("lower_bound") else lower
            bound.lower_bound.value = max(before, lower)
        before = bound.upper_bound.value if bound.HasField("upper_bound") else upper
        bound.upper_bound.value = min(before, upper)
    for change in evaluation["change_thresholds"]:
        if change.get("slicing", "overall") != "overall":
            continue
        grows = 1.0 + change["max_increase"]
        threshold = metrics[names[change["metric"]]].threshold.change_threshold
        threshold.relative.value = (grows if change["metric"] == "mae" else grows**2) - 1.0
        threshold.direction = tfma.MetricDirection.LOWER_IS_BETTER
    for metric in metrics.values():
        # A threshold of its own would bind on every slice.
        metric.per_slice_thresholds.add(slicing_specs=[tfma.SlicingSpec()], threshold=metric.threshold)
        metric.ClearField("threshold")
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="serving_examples", label_key="cnt")],
        slicing_specs=[tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=[name]) for name in SLICINGS)],
        metrics_specs=[
            tfma.MetricsSpec(metrics=[tfma.MetricConfig(class_name="ExampleCount"), *metrics.values()]),
        ],
    )


def create_pipeline(workspace: Path, spans: str, schema: str, settings: dict[str, Any]) -> tfx.dsl.Pipeline:
    """Return the pipeline.

    Args:
        workspace: folder for artifacts, metadata and the served model.
        spans: the span store's folder.
        schema: the curated schema's file.
        settings: the product's settings as plain values.
    """
    splits = [
        tfx.proto.Input.Split(name=name, pattern=f"span-{{SPAN:4}}/version-{{VERSION:4}}/{name}/*")
        for name in ("train", "eval")
    ]
    example_gen = tfx.components.CsvExampleGen(input_base=spans, input_config=tfx.proto.Input(splits=splits))
    examples = example_gen.outputs["examples"]
    schema_gen = tfx.components.ImportSchemaGen(schema_file=schema)
    statistics_gen = tfx.components.StatisticsGen(examples=examples, schema=schema_gen.outputs["schema"])
    example_validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=examples, schema=schema_gen.outputs["schema"], module_file=MODULE_FILE
    )
    trainer = tfx.components.Trainer(
        module_file=MODULE_FILE,
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema_gen.outputs["schema"],
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
        custom_config={"training": settings["training"], "seed": settings["seed"]},
    )
    resolver = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("latest_blessed_model_resolver")
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        baseline_model=resolver.outputs["model"],
        schema=schema_gen.outputs["schema"],
        eval_config=eval_config(settings["evaluation"]),
        module_file=MODULE_FILE,
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(workspace / "serving"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="plain",
        pipeline_root=str(workspace / "artifacts"),
        components=[
            example_gen,
            schema_gen,
            statistics_gen,
            example_validator,
            transform,
            trainer,
            resolver,
            evaluator,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(workspace / "metadata.sqlite")
        ),
    )


def main() -> None:
    """Run the pipeline once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--spans", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--settings", type=Path, required=True, help="the product's settings as JSON")
    arguments = parser.parse_args()
    settings = json.loads(arguments.settings.read_text(encoding="utf-8"))
    tfx.orchestration.LocalDagRunner().run(
        create_pipeline(arguments.workspace, arguments.spans, arguments.schema, settings)
    )


if __name__ == "__main__":
    main()
