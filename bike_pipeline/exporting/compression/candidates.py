"""Every method's model, written as a SavedModel, exported to every format and measured on the same rows in one run."""

from __future__ import annotations

import gzip
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from bike_pipeline import features, progress
from bike_pipeline.errors import BikePipelineError, MissingExtraError
from bike_pipeline.exporting import workers
from bike_pipeline.exporting.acceptance import quality
from bike_pipeline.exporting.acceptance.measurements import predict_all
from bike_pipeline.exporting.acceptance.report import SAVED_MODEL
from bike_pipeline.exporting.compression.material import Material, Teacher
from bike_pipeline.exporting.compression.methods import PLAIN, compressed
from bike_pipeline.exporting.compression.rule import Candidate
from bike_pipeline.exporting.formats import frozen_graph, registry
from bike_pipeline.exporting.formats.base import Columns, Format, Loaded, Source
from bike_pipeline.exporting.timing import medians_by_round, one_core
from bike_pipeline.settings.exporting import CompressionSettings, ExportingSettings, Method
from bike_pipeline.settings.training import TrainingSettings

MODEL_FOLDER = "model"


@dataclass(frozen=True)
class Trying:
    """How candidates are made and measured."""

    compression: CompressionSettings
    # `batch_size` and `weight_decay` of the settings' section `training`.
    further: dict[str, Any]
    seed: int
    # For each slicing, the rows from which on a slice decides.
    min_rows: dict[str, int]
    # Seconds that an export in a process of its own may take.
    timeout: float

    @classmethod
    def of(
        cls, exporting: ExportingSettings, training: TrainingSettings, min_rows: Mapping[Any, int], seed: int
    ) -> Self:
        """Take what is needed from the settings; `min_rows` is that of the section `evaluation`."""
        further = {"batch_size": training.batch_size, "weight_decay": training.weight_decay}
        return cls(exporting.compression, further, seed, dict(min_rows), exporting.timeout)


def write_models(
    methods: Sequence[Method], material: Material, trying: Trying, folder: Path
) -> dict[Method, tuple[int, float]]:
    """Write every method's model as a SavedModel, `<method>/model`; return its parameters and its sparsity."""
    from bike_pipeline.exporting.compression.pruning import sparsity_of
    from bike_pipeline.modeling import saved_model

    teacher = Teacher.of(material)
    reference = material.saved_model / saved_model.EXTRA_FOLDER / saved_model.NAIVE_BASELINE_FILE
    extra = {saved_model.NAIVE_BASELINE_FILE: reference.read_text(encoding="utf-8")} if reference.is_file() else {}
    found = {}
    for number, method in enumerate(methods):
        progress.report(number / (2 * len(methods)), method)
        model = compressed(method, teacher, trying.compression, trying.further, trying.seed)
        target = folder / method / MODEL_FOLDER
        if method == PLAIN:
            registry.format_of(SAVED_MODEL).export(Source(material.saved_model, {}), _made(target))
        else:
            saved_model.write(model, str(material.transform_graph), str(target), extra)
        found[method] = model.count_params(), sparsity_of(model)
    return found


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def measure(
    models: dict[Method, tuple[int, float]], calibration: Columns, material: Material, trying: Trying, folder: Path
) -> list[Candidate]:
    """Export every model to every format, in `<method>/<format>`, and measure all of them.

    A candidate that cannot be exported or loaded is told with its error and costs no other.
    """
    candidates, loaded = [], {}
    formats = registry.formats_of(trying.compression.formats)
    with tempfile.TemporaryDirectory(prefix="bike-compress-") as temporary, workers.Workers(Path(temporary)) as process:
        for number, (method, (parameters, sparsity)) in enumerate(models.items()):
            progress.report(0.5 + number / (2 * len(models)), f"exporting and measuring {method}")
            source = Source(folder / method / MODEL_FOLDER, calibration, shared=_made(Path(temporary) / method))
            workers.write_columns(Path(temporary) / method, workers.CALIBRATION, calibration)
            for format_ in formats:
                target = _made(folder / method / format_.name)
                found = Candidate(
                    method,
                    format_.name,
                    f"{method}/{format_.name}/{format_.file}",
                    parameters=parameters,
                    sparsity=sparsity,
                )
                try:
                    _export(format_, source, target, process, trying.timeout)
                    content = (target / format_.file).read_bytes()
                    loaded[found.name] = format_.load(target)
                    # Without a time of day in its header: the same file has the same size.
                    size = len(gzip.compress(content, mtime=0))
                    found = replace(found, size_bytes=len(content), compressed_bytes=size)
                except Exception as error:  # noqa: BLE001 (whatever a library raises costs its own candidate only)
                    shutil.rmtree(target)
                    found = replace(found, error=_reason(error))
                candidates.append(found)
    return _measured(candidates, loaded, material, trying)


def _export(format_: Format, source: Source, target: Path, process: workers.Workers, seconds: float) -> None:
    if format_.in_process:
        format_.export(source, target)
        return
    frozen_graph.share(source)
    name = f"{target.parent.name}-{format_.name}"
    job = {"verb": "export", "format": format_.name, "folder": str(target), "seconds": seconds}
    process.submit(name, {**job, "rows": str(source.shared), "source": str(source.saved_model)})
    process.result(name)


def _reason(error: Exception) -> str:
    if isinstance(error, MissingExtraError):
        return str(error).rstrip(".")
    if isinstance(error, BikePipelineError):
        # Where it was is a folder that is renamed when all is done.
        return error.what
    first = next(iter(str(error).strip().splitlines()), "")[:300]
    return f"it cannot be exported ({type(error).__name__}: {first})"


def _measured(
    candidates: list[Candidate], loaded: dict[str, Loaded], material: Material, trying: Trying
) -> list[Candidate]:
    inputs = {f.name: material.evaluated[f.name] for f in features.MODEL_INPUTS}
    first = {name: values[:1] for name, values in inputs.items()}
    blessed = registry.format_of(SAVED_MODEL).load(material.saved_model)
    answers = {SAVED_MODEL: predict_all(blessed, inputs)}
    failed = {}
    for name, model in loaded.items():
        try:
            answers[name] = predict_all(model, inputs)
        except Exception as error:  # noqa: BLE001 (as above)
            failed[name] = f"it does not answer ({type(error).__name__}: {str(error)[:300]})"
    sums = quality.sums_by_format(material.saved_model, material.evaluated, answers)
    answering = {name: model for name, model in loaded.items() if name in answers}
    with one_core():
        calls = {name: (lambda model=model: model.predict(first)) for name, model in answering.items()}
        latencies = medians_by_round(calls, trying.compression.rounds)
    done = []
    for found in candidates:
        if found.name in failed:
            done.append(replace(found, error=failed[found.name]))
        elif found.name not in answers:
            done.append(found)
        else:
            errors = quality.quality_of(sums, found.name, trying.min_rows)
            done.append(
                replace(
                    found,
                    latency_us=statistics.median(latencies[found.name]) * 1e6,
                    mae=errors.mae,
                    mae_increase=errors.mae_increase,
                    worst_slice=errors.worst_slice,
                    worst_slice_mae_increase=errors.worst_slice_mae_increase,
                )
            )
    return done
