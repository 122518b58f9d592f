"""The names of the pipeline's stages, as ML Metadata, Kubeflow and the settings know them."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage of the pipeline, in the order in which data flows."""

    EXAMPLE_GEN = "CsvExampleGen"
    SCHEMA_GEN = "ImportSchemaGen"
    STATISTICS_GEN = "StatisticsGen"
    EXAMPLE_VALIDATOR = "ExampleValidator"
    DATA_GATE = "DataGate"
    TRANSFORM = "Transform"
    WARM_START_LOOKUP = "WarmStartLookup"
    TRAINER = "Trainer"
    BASELINE_LOOKUP = "BaselineLookup"
    EVALUATOR = "Evaluator"
    EXPORTER = "Exporter"
    PUSHER = "Pusher"
