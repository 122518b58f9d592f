"""The feature contract: every column of the data, what it means, and what may never reach a model.

Pure Python, imported by every other room: row checks at ingest, the curated schema, the transforms, the serving
signature and the tests all read the one table below.

Source of meanings and ranges: the data set's own Readme (Fanaee-T 2013, UCI Machine Learning Repository,
doi 10.24432/C5W894).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["int", "float", "date"]
Role = Literal["input", "label", "leak", "key"]


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: column name in every source, in tf.Examples and in the serving signature.
        kind: "int", "float" or "date" (ISO 8601, YYYY-MM-DD).
        role: "input" reaches the model; "label" is predicted; "leak" is only known after the hour and never an input;
            "key" places a row in time or numbers it and is not an input either.
        minimum: smallest valid value, inclusive; None for dates.
        maximum: largest valid value, inclusive; None where there is no bound.
        unit: unit of the stored value.
        meaning: what the value says.
        default: what stands for a value that a client does not send; None where it must send one.
    """

    name: str
    kind: Kind
    role: Role
    minimum: float | None
    maximum: float | None
    unit: str
    meaning: str
    default: float | None = None


FEATURES: tuple[Feature, ...] = (
    Feature("instant", "int", "key", 1, None, "row", "running number of the row in its source"),
    Feature("dteday", "date", "key", None, None, "day", "date of the hour"),
    Feature("season", "int", "input", 1, 4, "code", "1 winter, 2 spring, 3 summer, 4 autumn"),
    Feature("yr", "int", "input", 0, None, "years since 2011", "year"),
    Feature("mnth", "int", "input", 1, 12, "month", "month of the year"),
    Feature("hr", "int", "input", 0, 23, "hour", "hour of the day, local time, at its beginning"),
    Feature("holiday", "int", "input", 0, 1, "flag", "1 on a public holiday"),
    Feature("weekday", "int", "input", 0, 6, "day", "day of the week, Sunday = 0"),
    Feature("workingday", "int", "input", 0, 1, "flag", "1 on Monday to Friday outside holidays"),
    Feature("weathersit", "int", "input", 1, 4, "code", "1 clear, 2 mist, 3 light rain or snow, 4 heavy rain or snow"),
    Feature("temp", "float", "input", 0, 1, "(t °C + 8) / 47", "temperature"),
    Feature("atemp", "float", "input", 0, 1, "(t °C + 16) / 66", "temperature as it feels"),
    Feature("hum", "float", "input", 0, 1, "percent / 100", "relative humidity"),
    Feature("windspeed", "float", "input", 0, 1, "km/h / 67", "wind speed"),
    Feature("casual", "int", "leak", 0, None, "rentals", "rentals in the hour by riders without a membership"),
    Feature("registered", "int", "leak", 0, None, "rentals", "rentals in the hour by members"),
    Feature("cnt", "int", "label", 0, None, "rentals", "rentals in the hour: casual + registered"),
)

BY_NAME: dict[str, Feature] = {feature.name: feature for feature in FEATURES}
COLUMNS: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
INPUTS: tuple[Feature, ...] = tuple(feature for feature in FEATURES if feature.role == "input")
INPUT_NAMES: tuple[str, ...] = tuple(feature.name for feature in INPUTS)
LEAKS: tuple[str, ...] = tuple(feature.name for feature in FEATURES if feature.role == "leak")
LABEL = "cnt"


@dataclass(frozen=True)
class Answer:
    """What a model answers.

    Attributes:
        output: name of the served output.
        unit: its unit, and that of its MAE.
        metrics: by their names in evaluations; the first is the one that models and slices are compared by.
        measured_in: what the numbers of an evaluation are, in a sentence.
    """

    output: str
    unit: str
    metrics: tuple[str, ...]
    measured_in: str


# By what a model was trained for (`training.target`).
ANSWERS: dict[str, Answer] = {
    "rentals": Answer(
        LABEL,
        "rentals an hour",
        ("mae", "rmse", "rmsle", "bias", "calibration"),
        "In rentals an hour, on the eval split; bias and calibration as shares.",
    ),
    "busy": Answer(
        "busy_probability",
        "probability",
        ("log_loss", "brier", "auc", "precision", "recall", "f1", "calibration", "mae", "rmse"),
        "Of a probability, on the eval split; precision, recall and F1 at the model's own threshold.",
    ),
}
# What a model is compared with in training: the label, then those that only help to learn it.
LABELS: tuple[str, ...] = (LABEL, *LEAKS)
DATE = "dteday"
HOUR = "hr"
FIRST_YEAR = 2011
# A larger `yr` is a year of the calendar by mistake; where there is a date, the date decides.
MOST_YEARS = 99
# First hour of each band of the day: night, morning rush, day, evening rush, late evening.
HOUR_BANDS = (0, 6, 10, 16, 20)
SEASONS: dict[int, str] = {1: "winter", 2: "spring", 3: "summer", 4: "autumn"}
WEATHER: dict[int, str] = {1: "clear", 2: "mist", 3: "light rain or snow", 4: "heavy rain or snow"}
# What the model reads and every client sends. The season is only for slices: month and temperature say more.
REQUIRED_INPUTS: tuple[Feature, ...] = tuple(feature for feature in INPUTS if feature.name != "season")
# What a client may send besides. ExampleGen makes them of the date and of earlier rows (data/past_weather.py). A value
# that is not above 0, as the default, stands for none: then the hour's own weather counts, and no day of the month. It
# is 0 since that is what stands in a field that nobody sets, in C and elsewhere; three calm hours lose nothing by it.
OPTIONAL_INPUTS: tuple[Feature, ...] = (
    Feature("day", "int", "input", 1, 31, "day", "day of the month", 0),
    Feature("weathersit_mean_1h", "float", "input", 1, 4, "code", "weather of the hour before", 0.0),
    Feature("weathersit_mean_3h", "float", "input", 1, 4, "code", "mean of weathersit over the 3 hours before", 0.0),
    Feature("temp_mean_3h", "float", "input", 0, 1, "(t °C + 8) / 47", "mean of temp over the 3 hours before", 0.0),
    Feature("temp_mean_24h", "float", "input", 0, 1, "(t °C + 8) / 47", "mean of temp over the 24 hours before", 0.0),
    Feature("hum_mean_3h", "float", "input", 0, 1, "percent / 100", "mean of hum over the 3 hours before", 0.0),
    Feature("windspeed_mean_3h", "float", "input", 0, 1, "km/h / 67", "mean of windspeed over the 3 hours before", 0.0),
)
OPTIONAL_NAMES: tuple[str, ...] = tuple(feature.name for feature in OPTIONAL_INPUTS)
# The signatures that a served model has; modules that ask for them do without TensorFlow.
SERVING_DEFAULT, SERVING_ALL_INPUTS, SERVING_EXAMPLES = "serving_default", "serving_all_inputs", "serving_examples"
SERVING_INTERVALS = "serving_intervals"
# Of a model that answers a class, for Classify requests.
SERVING_CLASSIFY = "serving_classify"
BY_NAME |= {feature.name: feature for feature in OPTIONAL_INPUTS}
MODEL_INPUTS: tuple[Feature, ...] = (*REQUIRED_INPUTS, *OPTIONAL_INPUTS)
# Scale, offset and unit of stored weather: value * scale + offset is what a person reads.
PHYSICAL: dict[str, tuple[float, float, str]] = {
    "temp": (47.0, -8.0, "°C"),
    "atemp": (66.0, -16.0, "°C"),
    "hum": (100.0, 0.0, "%"),
    "windspeed": (67.0, 0.0, "km/h"),
}


def slice_name(slicing: str, value: str | int | None) -> str:
    """Return the one name that a slice has in tables, gates, pages and pictures.

    Args:
        slicing: "overall", "hour_band", "workingday", "season" or "weathersit".
        value: the slice as it is recorded, a whole number or its text; "" or None for the slicing as a whole.
    """
    if slicing == "overall" or value in {"", None}:
        return slicing.replace("_", " ")
    number = int(float(value or 0))
    if slicing == "hour_band":
        later = [start for start in HOUR_BANDS if start > number]
        return f"hours {number}-{(later[0] if later else 24) - 1}"
    names: dict[str, dict[int, str]] = {
        "workingday": {0: "no working day", 1: "working day"},
        "weathersit": {code: f"weather {word}" for code, word in WEATHER.items()},
        "season": SEASONS,
    }
    return names.get(slicing, {}).get(number, f"{slicing} {value}")


def answer_among(names: Iterable[str]) -> str:
    """Return which of the outputs of a signature, or of the entries of golden rows, is the answer; else a KeyError."""
    known = {answer.output for answer in ANSWERS.values()}
    found = [name for name in names if name in known]
    if len(found) != 1:
        raise KeyError(LABEL)
    return found[0]


def answer_measured(names: Iterable[str]) -> Answer:
    """Return what was measured, of the names in a row of an evaluation's metrics."""
    there = set(names)
    whole = [answer for answer in ANSWERS.values() if there >= {*answer.metrics}]
    # Earlier releases measured less of rentals.
    return whole[0] if whole else ANSWERS["rentals"]


def as_record(feature: Feature) -> dict[str, Any]:
    """Return a feature as plain values, as records of runs and hashes of the contract have it."""
    # Without what most do not have: the hashes that are on record were taken before there were defaults.
    return {key: value for key, value in asdict(feature).items() if key != "default" or value is not None}


def with_defaults(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of equal length, by name, with the default in every row of the optional inputs that are absent."""
    rows = len(next(iter(columns.values()))) if columns else 0
    return {f.name: [f.default] * rows for f in OPTIONAL_INPUTS} | dict(columns)


def described(feature: Feature) -> str:
    """Return what a value must be, in words: kind, range, unit and meaning."""
    if feature.kind == "date":
        return f"a date, YYYY-MM-DD: {feature.meaning}"
    kind = "a whole number" if feature.kind == "int" else "a number"
    span = f" from {feature.minimum:g}" if feature.minimum is not None else ""
    span += f" to {feature.maximum:g}" if feature.maximum is not None else ""
    # The words for units that are no units only sort the columns.
    unit = "" if feature.unit in ("row", "day", "month", "hour", "flag", "code") else f", {feature.unit}"
    return f"{kind}{span}{unit}: {feature.meaning}"
