"""From the blessed model to the one that goes to the edge: make, measure, choose, and write down why.

Every method's model is written as a SavedModel, exported to every format and measured on the same rows in one run.
"""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bike_pipeline import features, progress
from bike_pipeline.errors import BikePipelineError, MissingExtraError, first_words
from bike_pipeline.exporting import workers
from bike_pipeline.exporting.acceptance import quality
from bike_pipeline.exporting.acceptance.measurements import medians_by_round, one_core
from bike_pipeline.exporting.acceptance.report import SAVED_MODEL
from bike_pipeline.exporting.compression.rule import Candidate, Choice, decide
from bike_pipeline.exporting.formats import frozen_graph, registry
from bike_pipeline.exporting.formats.base import Columns, Format, Loaded, Source, in_parts
from bike_pipeline.modeling import rows
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.settings.exporting import ExportingSettings, Method
from bike_pipeline.settings.training import TrainingSettings
from bike_pipeline.storage.atomic_files import one_error, sync_path, sync_tree
from bike_pipeline.storage.plain_json import finite

TABLE_FILE = "compression.json"
MODEL_FOLDER = "model"
PLAIN: Method = "plain"
_INCOMING = ".incoming-"


@dataclass(frozen=True)
class Material:
    """What candidates are made of.

    Attributes:
        saved_model: folder of the blessed SavedModel, with the trained Keras model in its `assets.extra`.
        transform_graph: folder of the TransformGraph artifact that it was trained with.
        train: raw rows that it was trained on, with the label; one array of shape (rows,) a column.
        evaluated: raw rows of the eval split, with the label and the columns that slices are taken by.
    """

    saved_model: Path
    transform_graph: Path
    train: rows.Columns
    evaluated: rows.Columns


@dataclass(frozen=True)
class Trying:
    """What candidates are made of, by which methods beside the plain model, and how they are made and measured."""

    material: Material
    methods: Sequence[Method]
    exporting: ExportingSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    seed: int


def choose(trying: Trying, calibration: Columns, folder: Path) -> Choice:
    """Make every candidate in `folder`, measure all of them on the eval split, and apply the rule.

    `folder` then holds `<method>/model` (a SavedModel), `<method>/<format>` and `compression.json`, where a number that
    is not finite is null.
    """
    settings, material = trying.exporting.compression, trying.material
    choice = decide(measure(write_models(trying, folder), calibration, trying, folder), settings)
    table = [{**asdict(c), "reason": choice.reasons.get(c.name, "")} for c in choice.candidates]
    content = {
        "winner": None if choice.winner is None else {"method": choice.winner.method, "format": choice.winner.format},
        "rule": settings.model_dump(mode="json"),
        "rows": {"train": rows.count(material.train), "eval": rows.count(material.evaluated)},
        "seed": trying.seed,
        "candidates": finite(table),
    }
    (folder / TABLE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return choice


@contextmanager
def new_result(base: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a folder to write in, and the numbered one in `base` that it becomes, alone, where nothing fails.

    What a killed process left aside is removed. A full disk is told as a StorageError.
    """
    with one_error("write", base):
        base.mkdir(parents=True, exist_ok=True)
        for left in base.glob(f"{_INCOMING}*"):
            shutil.rmtree(left)
        before = [int(path.name) for path in base.iterdir() if path.name.isdigit()]
        target = base / str(max(before, default=0) + 1)
        aside = base / f"{_INCOMING}{target.name}"
        aside.mkdir()
        try:
            yield aside, target
            sync_tree(aside)
            aside.rename(target)
            sync_path(base)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    for number in before:
        shutil.rmtree(base / str(number), ignore_errors=True)


def write_models(trying: Trying, folder: Path) -> dict[Method, tuple[int, float]]:
    """Write every method's model as a SavedModel, `<method>/model`; return its parameters and its sparsity."""
    from bike_pipeline.exporting.compression.methods import Teacher, compressed, sparsity_of
    from bike_pipeline.modeling import saved_model
    from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
    from bike_pipeline.modeling.training import first_feedback

    material, settings = trying.material, trying.exporting.compression
    teacher = Teacher.of(material)
    reference = material.saved_model / saved_model.EXTRA_FOLDER / saved_model.NAIVE_BASELINE_FILE
    kept, section = reference.with_name(FEEDBACK_FILE), trying.training.model_dump(mode="json")
    if kept.is_file():
        # It answers the quantiles of the model that it was made of, whatever the settings are by now.
        section["feedback"] = Feedback.from_json(kept.read_text(encoding="utf-8")).settings.model_dump(mode="json")
    extra = {saved_model.NAIVE_BASELINE_FILE: reference.read_text(encoding="utf-8")} if reference.is_file() else {}
    methods = tuple(dict.fromkeys((PLAIN, *trying.methods)))
    further = {name: section[name] for name in ("batch_size", "weight_decay", "holiday_priors")}
    found = {}
    for number, method in enumerate(methods):
        progress.report(number / (2 * len(methods)), method)
        model = compressed(method, teacher, settings, further, trying.seed)
        target = folder / method / MODEL_FOLDER
        if method == PLAIN:
            registry.format_of(SAVED_MODEL).export(Source(material.saved_model, {}), _made(target))
        else:
            # A smaller model errs in its own way, so the state of the model that it was made of is not its own.
            graph = str(material.transform_graph)
            start = first_feedback(model, graph, section, dict(material.evaluated))
            saved_model.write(model, graph, str(target), extra, start)
        found[method] = model.count_params(), sparsity_of(model)
    return found


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def measure(
    models: dict[Method, tuple[int, float]], calibration: Columns, trying: Trying, folder: Path
) -> list[Candidate]:
    """Export every model to every format, in `<method>/<format>`, and measure all of them.

    A candidate that cannot be exported or loaded is told with its error and costs no other.
    """
    candidates: dict[str, Candidate] = {}
    loaded = {}
    formats, seconds = registry.formats_of(trying.exporting.compression.formats), trying.exporting.timeout
    with (
        tempfile.TemporaryDirectory(prefix="bike-compress-") as temporary,
        workers.Workers(Path(temporary), seconds) as process,
    ):
        for number, (method, (parameters, sparsity)) in enumerate(models.items()):
            progress.report(0.5 + number / (2 * len(models)), f"exporting and measuring {method}")
            source = Source(folder / method / MODEL_FOLDER, calibration, shared=_made(Path(temporary) / method))
            workers.write_columns(Path(temporary) / method, workers.CALIBRATION, calibration)
            for format_ in formats:
                target = _made(folder / method / format_.name)
                file = f"{method}/{format_.name}/{format_.file}"
                found = Candidate(method, format_.name, file, parameters=parameters, sparsity=sparsity)
                try:
                    _export(format_, source, target, process)
                    content = (target / format_.file).read_bytes()
                    loaded[found.name] = format_.load(target)
                    # Without a time of day in its header: the same file has the same size.
                    size = len(gzip.compress(content, mtime=0))
                    found = replace(found, size_bytes=len(content), compressed_bytes=size)
                except Exception as error:  # noqa: BLE001 (whatever a library raises costs its own candidate only)
                    shutil.rmtree(target)
                    found = replace(found, error=_reason(error))
                candidates[found.name] = found
    return _measured(candidates, loaded, trying)


def _export(format_: Format, source: Source, target: Path, process: workers.Workers) -> None:
    if format_.in_process:
        format_.export(source, target)
        return
    frozen_graph.share(source)
    name = f"{target.parent.name}-{format_.name}"
    process.submit(name, "export", format_, target, source)
    process.result(name)


def _reason(error: Exception) -> str:
    if isinstance(error, MissingExtraError):
        return str(error).rstrip(".")
    if isinstance(error, BikePipelineError):
        # Where it was is a folder that is renamed when all is done.
        return error.what
    return f"it cannot be exported ({type(error).__name__}: {first_words(error)})"


def _measured(candidates: dict[str, Candidate], loaded: dict[str, Loaded], trying: Trying) -> list[Candidate]:
    material = trying.material
    inputs = {f.name: material.evaluated[f.name] for f in features.MODEL_INPUTS}
    first = {name: values[:1] for name, values in inputs.items()}
    blessed = registry.format_of(SAVED_MODEL).load(material.saved_model)
    answers = {SAVED_MODEL: in_parts(blessed.predict, inputs)}
    for name, model in loaded.items():
        try:
            answers[name] = in_parts(model.predict, inputs)
        except Exception as error:  # noqa: BLE001 (as above)
            reason = f"it does not answer ({type(error).__name__}: {first_words(error)})"
            candidates[name] = replace(candidates[name], error=reason)
    sums = quality.sums_by_format(material.saved_model, material.evaluated, answers)
    with one_core():
        calls = {n: (lambda model=model: model.predict(first)) for n, model in loaded.items() if n in answers}
        latencies = medians_by_round(calls, trying.exporting.compression.rounds)
    for name, seconds in latencies.items():
        errors = quality.quality_of(sums, name, trying.evaluation.min_rows)
        candidates[name] = replace(
            candidates[name],
            latency_us=statistics.median(seconds) * 1e6,
            mae=errors.mae,
            mae_increase=errors.mae_increase,
            worst_slice=errors.worst_slice,
            worst_slice_mae_increase=errors.worst_slice_mae_increase,
        )
    return list(candidates.values())
