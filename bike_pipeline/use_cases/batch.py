"""Answer whole files: every input by itself on a Beam engine, into one folder that says what is in it."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bike_pipeline.errors import BikePipelineError, ConfigurationError, DataError, ModelError

if TYPE_CHECKING:
    from bike_pipeline.serving.batch.shards import Job
    from bike_pipeline.settings import Settings
    from bike_pipeline.storage.files import Files

# Readers of Parquet pass over what begins so.
MANIFEST, FAILED = "_MANIFEST.json", "_failed"


@dataclass(frozen=True)
class BatchPrediction:
    """What a batch came to, as its manifest has it.

    Attributes:
        inputs: how many files were read.
        rows: rows that were answered.
        rejected: rows that were set aside.
        reasons: how many rows each kind of reason set aside; a row counts once a kind.
    """

    output: str
    version: int
    backend: str
    inputs: int
    rows: int
    rejected: int
    reasons: dict[str, int]

    def require_all(self) -> None:
        """Raise DataError if rows were set aside."""
        if self.rejected:
            raise DataError(
                f"{self.rejected:,} of {self.rows + self.rejected:,} rows were not answered",
                where=f"{self.output}/rejected",
                fix="the column reasons says why; correct them and answer them into another folder",
            )


def predict_batch(
    settings: Settings,
    source: str | Path,
    output: str | Path,
    *,
    version: int | None = None,
    partition: Literal["day", "month"] = "month",
) -> BatchPrediction:
    """Answer every row of files as the embedded server would, on the Beam engine of the settings.

    The source is a CSV or Parquet file, a folder of them, a pattern, or an address of object storage. The output is a
    folder or address that is new, or holds a part of the very same answers: what is done there is not done again. The
    promoted version answers if none is named. Answers are laid out by day or month.

    Raises:
        DataError: an input cannot be read, or has changed since it was answered.
        ConfigurationError: the output holds something else.
        ModelError: there is no such version, or it cannot answer.
    """
    from bike_pipeline.model_registry import ModelRegistry, layout, signing
    from bike_pipeline.serving.batch import inputs, shards
    from bike_pipeline.storage.files import local_path, open_files

    signing.use(settings)
    registry = ModelRegistry(settings.serving_path)
    chosen = registry.serving() if version is None else version
    if chosen is None or chosen not in registry.versions():
        what = "no model is served" if chosen is None else f"version {chosen} is not there"
        raise ModelError(what, where=settings.serving_path, fix="`bike-pipeline models` lists what is pushed")
    model = registry.folder(chosen)
    fingerprint = shards.name_of(f"{layout.fingerprint(model)} {layout.exports_fingerprint(model)}")
    addresses, place = inputs.input_files(str(source)), str(local_path(output) or output).rstrip("/")
    job = shards.Job(place, registry.uri(chosen), chosen, fingerprint, partition, settings)
    files = open_files(place, lock_seconds=0)
    with files.lock():
        _require_same(files, job, addresses)
        files.remove(FAILED)
        _run(job, addresses, files)
        done = [shard for each in addresses if (shard := shards.record_in(files, shards.folder_of(each)))]
        result = BatchPrediction(
            output=place,
            version=chosen,
            backend=", ".join(sorted({shard.backend for shard in done})),
            inputs=len(done),
            rows=sum(shard.rows for shard in done),
            rejected=sum(shard.rejected for shard in done),
            reasons=dict(sum((Counter(shard.reasons) for shard in done), Counter[str]())),
        )
        content = {**asdict(result), "shards": [*map(asdict, done)]}
        files.replace(MANIFEST, json.dumps(content, indent=1).encode())
    return result


def _require_same(files: Files, job: Job, addresses: list[str]) -> None:
    """Refuse an output that holds anything but a part of the same answers; clear what a killed worker left."""
    from bike_pipeline.serving.batch import shards

    fix, expected = "choose another folder, or remove this one", {*map(shards.folder_of, addresses)}
    problem = ""
    if others := sorted({name for name in files.folders() if name[0] not in "._"} - {shards.ANSWERS, shards.REJECTED}):
        problem = f"it holds {others[0]}, which no batch wrote"
    for path in (f"{kind}/{folder}" for kind in (shards.ANSWERS, shards.REJECTED) for folder in files.folders(kind)):
        folder = path.rpartition("/")[2]
        shard = shards.record_in(files, folder)
        if shard is None or folder.startswith("."):
            files.remove(path)
        elif (shard.version, shard.fingerprint, shard.partition) != (job.version, job.fingerprint, job.partition):
            problem = (
                f"it holds answers of version {shard.version} by {shard.partition} (model {shard.fingerprint}), and "
                f"version {job.version} by {job.partition} (model {job.fingerprint}) is asked for"
            )
        elif folder not in expected:
            problem = f"it holds answers to {shard.input}, which is no input of this batch"
    if problem:
        raise ConfigurationError(problem, where=job.output, fix=fix)


def _run(job: Job, addresses: list[str], files: Files) -> None:
    """Answer every input on the engine; raise what one of them failed with."""
    import apache_beam as beam

    from bike_pipeline.runners.beam_runner import beam_pipelines

    with beam_pipelines(job.settings) as make_pipeline, make_pipeline("PredictBatch") as pipeline:
        _ = (
            pipeline
            | "Inputs" >> beam.Create(addresses, reshuffle=False)
            # Without it an engine may hand all files to one worker.
            | "Spread" >> beam.Reshuffle()
            | "Answer" >> beam.Map(_answer, job)
        )
    # This batch's own workers wrote them.
    failed = [pickle.loads(files.read(f"{FAILED}/{name}") or b"") for name in sorted(files.files(FAILED))]  # noqa: S301
    files.remove(FAILED)
    if failed:
        raise failed[0]


def _answer(address: str, job: Job) -> None:
    """Answer one input; since Beam's engines hand on an exception as text at best, it is left in a file."""
    from bike_pipeline.serving.batch import shards

    try:
        shards.answer(address, job)
    except BikePipelineError as error:
        shards.write_file(f"{job.output}/{FAILED}/{shards.folder_of(address)}", pickle.dumps(error))
