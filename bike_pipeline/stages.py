"""The names by which the pipeline, its records and their readers know stages, splits, and what stages write down.

ML Metadata, Kubeflow and the settings hold them: a name that has been released stays.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """A stage of the pipeline, in the order in which data flows."""

    EXAMPLE_GEN = "CsvExampleGen"
    SCHEMA_GEN = "ImportSchemaGen"
    STATISTICS_GEN = "StatisticsGen"
    EXAMPLE_VALIDATOR = "ExampleValidator"
    DATA_GATE = "DataGate"
    TRANSFORM = "Transform"
    WARM_START_LOOKUP = "WarmStartLookup"
    TUNER = "Tuner"
    HYPERPARAMETERS_LOOKUP = "HyperParametersLookup"
    TRAINER = "Trainer"
    BASELINE_LOOKUP = "BaselineLookup"
    EVALUATOR = "Evaluator"
    EXPORTER = "Exporter"
    MODEL_CARD = "ModelCard"
    PUSHER = "Pusher"


# What makes a version of a pushed model by later labels, and the property of that version that tells of them.
FEEDBACK_UPDATE: Final = "FeedbackUpdate"
FEEDBACK_PROPERTY: Final = "feedback"
# What looked at a pushed model while it served.
MONITOR: Final = "Monitor"
# What a trigger asked for, beside the run of the pipeline that it came to.
RETRAINING_RUN: Final = "RetrainingRun"

# Splits of the examples: the newest span's two, and all spans before it.
TRAIN: Final = "train"
EVAL: Final = "eval"
HISTORY: Final = "history"
SPLITS: Final = (TRAIN, EVAL, HISTORY)

# Custom properties of Examples, each JSON: rows by split; spans with versions and hashes; SHA-256 by SPAN/VERSION.
ROWS_PROPERTY: Final = "rows_by_split"
WINDOW_PROPERTY: Final = "window"
MANIFESTS_PROPERTY: Final = "manifests"
# Of the baseline: whether there is one (FOUND, NONE, RESET), why, and its version.
STATE_PROPERTY: Final = "state"
REASON_PROPERTY: Final = "reason"
VERSION_PROPERTY: Final = "serving_version"
FOUND: Final = "found"
NONE: Final = "none"
RESET: Final = "reset"
# Of hyperparameters: their values by setting, JSON.
HYPERPARAMETERS_PROPERTY: Final = "values"
# Of an evaluation: what was decided and why, as JSON; the file holds the same.
DECISIONS_PROPERTY: Final = "decisions"
DECISIONS_FILE: Final = "decisions.json"
# Of the exports: the content of `parity.json`.
PARITY_PROPERTY: Final = "parity"
