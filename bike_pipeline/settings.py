"""Settings: one frozen, validated tree; unknown keys are errors, and nothing is read from anywhere else.

`configs/base.yaml` holds every value that the product ships with. An overlay file (`--config`) and single values
(`--set training.epochs=20`) are merged over it, in this order. `bike-pipeline config schema` prints the JSON schema.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bike_pipeline import features
from bike_pipeline.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
BASE_FILE = PROJECT_ROOT / "configs" / "base.yaml"

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Severity = Literal["error", "warning", "ignore"]
Metric = Literal["mae", "rmse", "rmsle", "bias", "calibration"]
Slicing = Literal["overall", "hour_band", "workingday", "season", "weathersit"]

# Lower is better for these; bias is best at 0 and calibration at 1, so those two are bounded on both sides.
ERROR_METRICS: tuple[Metric, ...] = ("mae", "rmse", "rmsle")
TWO_SIDED: dict[Metric, float] = {"bias": 0.0, "calibration": 1.0}


class Section(BaseModel):
    """Base of every section: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DataSettings(Section):
    """Where rows come from and how they are cut.

    Attributes:
        store: folder or URL of the span store; empty for `<workspace>/spans`.
        eval_fraction: share of each span's days, counted from its end, that is the eval split (whole days).
        max_rejected_fraction: largest share of rows that may break the contract before the whole ingest is refused.
        history_spans: how many spans before the newest one are trained on as well.
        in_memory_rows: up to so many rows a stage computes in memory; above that it runs on Beam.
    """

    store: str = ""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    max_rejected_fraction: Fraction
    history_spans: Annotated[int, Field(ge=0)]
    in_memory_rows: Count


class GateSettings(Section):
    """What stops a run before training.

    Attributes:
        default_severity: severity of an anomaly that the table does not name.
        severities: severity by TFDV's anomaly type, by feature, or by `feature:TYPE` (the most precise entry wins).
        min_rows: fewest rows by split; a split with fewer is an error.
    """

    default_severity: Severity
    severities: dict[str, Severity]
    min_rows: dict[Literal["train", "eval"], Count]

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        types = set(anomalies_pb2.AnomalyInfo.Type.keys())
        for key in self.severities:
            feature, _, kind = key.rpartition(":")
            known = kind in types and (not feature or feature in features.BY_NAME)
            if not known and key not in features.BY_NAME:
                raise ValueError(f"severities: '{key}' is neither a feature, a TFDV anomaly type nor feature:TYPE")
        if set(self.min_rows) != {"train", "eval"}:
            raise ValueError("min_rows must name the train and the eval split")
        return self


class TrainingSettings(Section):
    """The model and how it is trained.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows a step.
        learning_rate: peak of the schedule (warm-up, then cosine).
        weight_decay: AdamW's decay.
        hidden_units: width of each dense layer of the trunk.
        embedding_dimensions: largest width of a categorical embedding.
        dropout: share of hidden units dropped in training.
        warm_start: begin from the weights of the serving model where its architecture is the same.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0.0)]
    hidden_units: tuple[Count, ...]
    embedding_dimensions: Count
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    warm_start: bool


class ValueThreshold(Section):
    """An absolute limit on one metric.

    Attributes:
        metric: the metric, on raw counts.
        slicing: "overall" or the name of a slicing, whose every slice with enough rows must pass.
        upper: largest passing value.
        lower: smallest passing value; only for bias and calibration.
    """

    metric: Metric
    slicing: Slicing = "overall"
    upper: float
    lower: float | None = None

    @model_validator(mode="after")
    def _right_way_round(self) -> Self:
        if self.metric in ERROR_METRICS:
            if self.lower is not None:
                raise ValueError(f"{self.metric} is an error: smaller is better, so it takes `upper`, never `lower`")
            if self.upper <= 0:
                raise ValueError(f"{self.metric}: upper must be above 0")
            return self
        best = TWO_SIDED[self.metric]
        if self.lower is None or not self.lower < best < self.upper:
            raise ValueError(f"{self.metric} is best at {best:g}: it takes a `lower` below and an `upper` above that")
        return self


class ChangeThreshold(Section):
    """A limit on how much worse than the baseline an error metric may be, on the same rows.

    Attributes:
        metric: an error metric.
        slicing: "overall" or the name of a slicing.
        max_increase: largest passing (candidate - baseline) / baseline.
    """

    metric: Literal["mae", "rmse", "rmsle"]
    slicing: Slicing = "overall"
    max_increase: Annotated[float, Field(gt=-1.0, lt=1.0)]


class EvaluationSettings(Section):
    """The gate in front of serving.

    Attributes:
        value_thresholds: absolute limits.
        change_thresholds: limits against the baseline; they bind as soon as there is a baseline.
        max_mae_to_mean: largest passing MAE as a share of that of the training rows' mean by hour and working day.
        min_rows: for each slicing, the rows from which on a slice decides; smaller ones are reported only.
    """

    value_thresholds: tuple[ValueThreshold, ...]
    change_thresholds: tuple[ChangeThreshold, ...]
    max_mae_to_mean: Annotated[float, Field(gt=0.0, lt=1.0)]
    min_rows: dict[Slicing, Count]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        bounded = {t.metric for t in self.value_thresholds if t.slicing == "overall"}
        missing = [m for m in (*ERROR_METRICS, *TWO_SIDED) if m not in bounded]
        if missing:
            raise ValueError(
                f"value_thresholds: no overall limit for {', '.join(missing)}; a metric without a limit gates nothing"
            )
        if not {"mae", "rmse"} <= {t.metric for t in self.change_thresholds if t.slicing == "overall"}:
            raise ValueError(
                "change_thresholds: mae and rmse need overall limits, else a worse model replaces a better one"
            )
        if wrong := sorted((set(get_args(Slicing)) - {"overall"}) ^ set(self.min_rows)):
            raise ValueError(f"min_rows: it holds one number for each slicing (see to {', '.join(wrong)})")
        for name, thresholds in (("value", self.value_thresholds), ("change", self.change_thresholds)):
            keys = [(t.metric, t.slicing) for t in thresholds]
            if len(set(keys)) != len(keys):
                raise ValueError(f"{name}_thresholds: the same metric and slicing stand there twice")
        return self


class ServingSettings(Section):
    """Where a pushed model goes.

    Attributes:
        model_name: the name that TF Serving serves the model under.
        base_path: local or mounted folder that holds one folder a model name; empty for `<workspace>/serving`.
    """

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    base_path: str = ""

    @model_validator(mode="after")
    def _local(self) -> Self:
        if "://" in self.base_path:
            raise ValueError("base_path must be a local or mounted folder; addresses are not served from yet")
        return self


class BeamSettings(Section):
    """How Beam-powered stages run where they run on Beam.

    Attributes:
        pipeline_args: Beam's own flags. They are not part of any cache key, since they do not change results.
    """

    pipeline_args: tuple[str, ...]


class Settings(Section):
    """All settings.

    Attributes:
        pipeline_name: name of the pipeline in ML Metadata and on every runner.
        workspace: folder for everything the product writes; relative to the folder it is called in.
        schema_file: the curated schema; relative to the project.
        seed: seeds every random number generator of a run.
    """

    pipeline_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    workspace: Path
    schema_file: Path
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: DataSettings
    gate: GateSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    serving: ServingSettings
    beam: BeamSettings

    @property
    def workspace_path(self) -> Path:
        """The workspace as an absolute path."""
        return self.workspace.expanduser().absolute()

    @property
    def store_uri(self) -> str:
        """Folder or URL of the span store."""
        return self.data.store or str(self.workspace_path / "spans")

    @property
    def pipeline_root(self) -> str:
        """Folder of the pipeline's artifacts."""
        return str(self.workspace_path / "artifacts")

    @property
    def metadata_file(self) -> Path:
        """SQLite file of ML Metadata."""
        return self.workspace_path / "metadata.sqlite"

    @property
    def logs_path(self) -> Path:
        """Folder of the runs' log files."""
        return self.workspace_path / "logs"

    @property
    def serving_path(self) -> str:
        """Base path of the served model: one numeric folder a version, as TF Serving expects."""
        base = self.serving.base_path or str(self.workspace_path / "serving")
        return f"{base.rstrip('/')}/{self.serving.model_name}"

    @property
    def schema_path(self) -> Path:
        """The curated schema as an absolute path."""
        return self.schema_file if self.schema_file.is_absolute() else PROJECT_ROOT / self.schema_file


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError("no such configuration file", where=str(path), fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read it ({error})", where=str(path), fix="check that it is a readable text file"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigurationError(f"not valid YAML ({problem})", where=where, fix="correct that line") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            "a configuration file holds a mapping of settings", where=str(path), fix="see configs/base.yaml"
        )
    return content


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"'{text}' is not key=value", where="--set", fix="write --set training.epochs=10")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigurationError(f"the value of {key} is not valid YAML", where="--set", fix="quote it") from None
    return functools.reduce(lambda inner, part: {part: inner}, reversed(key.strip().split(".")), parsed)


def _explain(error: ValidationError, where: str) -> ConfigurationError:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"unknown setting '{path}'"
    elif first["type"] == "missing":
        what = f"the setting '{path}' is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        got = first.get("input")
        shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
        what = f"{path}: {message}{shown}" if path else message
    more = len(error.errors()) - 1
    if more:
        what += f" (and {more} more)"
    return ConfigurationError(
        what, where=where, fix="`bike-pipeline config schema` lists every setting, its type and its range"
    )


def load_settings(config: Path | str | None = None, assignments: tuple[str, ...] = ()) -> Settings:
    """Return the settings of `configs/base.yaml` with an overlay file and single assignments merged over them.

    Args:
        config: an overlay file, or None.
        assignments: `key.path=value` texts; values are YAML.

    Raises:
        ConfigurationError: a file is missing or not YAML, or a setting is unknown, missing or wrong.
    """
    values = _read_yaml(BASE_FILE)
    where = str(BASE_FILE)
    if config is not None:
        values = _merge(values, _read_yaml(Path(config)))
        where = os.fspath(config)
    for text in assignments:
        values = _merge(values, _assignment(text))
        where = f"{where} with --set" if "--set" not in where else where
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None
