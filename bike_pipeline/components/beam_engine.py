"""Where a Beam-powered stage computes: in its own process, or in a Beam pipeline on the engine that the settings name.

One rule for all of them. On an engine of other machines (Flink, Spark, Dataflow) a stage always runs on Beam, however
few its rows: the machine that starts a stage may be smaller than its data, and may not be able to reach it. On this
machine a stage computes in its own process up to `data.in_memory_rows`, since a Beam pipeline costs seconds to build,
and on Beam's direct runner, with as many workers as the settings give it, above.

The engine is read off the pipeline that the runner's factory makes and not off a parameter of the stage: it is no part
of the cache key, so that a result computed on one engine answers for every other. That is sound because `for_each` does
the same work on the same files either way, and its caller puts the results together in the files' order: the numbers do
not depend on the engine, not even in their last digit.
"""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from bike_pipeline import progress
from bike_pipeline.errors import BikePipelineError

# What is unfinished stands in this folder of the artifact, where no reader of it looks.
ASIDE = ".writing"


def is_remote(pipeline: Any) -> bool:
    """Return whether a Beam pipeline would run on other machines than this one."""
    from apache_beam.options.pipeline_options import StandardOptions

    return type(pipeline.runner).__name__ not in StandardOptions.LOCAL_RUNNERS


def computes_in_process(pipeline: Any, rows: int, in_memory_rows: int) -> bool:
    """Return whether a stage computes in its own process."""
    return rows <= in_memory_rows and not is_remote(pipeline)


def for_each(
    pipeline: Any,
    items: Sequence[Any],
    work: Callable[[Any], Any],
    output: str,
    *,
    rows: int,
    in_memory_rows: int,
    doing: str,
) -> list[Any]:
    """Call `work` on every item, here or on Beam's workers, and return the results in the order of the items.

    Memory is bounded by what `work` needs for one item, and the results.

    Args:
        pipeline: the Beam pipeline to run; left alone where the work is done in this process.
        items: what to work on, a stored file each; they are pickled.
        work: a function of a module, so that workers can import it; its results are pickled.
        output: folder of an artifact that workers can write to; what is put there is removed at the end.
        rows: how many rows the items have.
        in_memory_rows: up to so many are worked on here, if the engine is this machine.
        doing: what is done, for progress.

    Raises:
        BikePipelineError: as `work` raised it. Beam's engines hand on an exception of a worker as text at best, so it
            travels as a result.
    """
    from tfx.dsl.io import fileio

    results = []
    folder = os.path.join(output, ASIDE)
    if computes_in_process(pipeline, rows, in_memory_rows):
        for index, item in enumerate(items):
            progress.report(index / len(items), doing)
            results.append(work(item))
    else:
        progress.report(0.0, f"{doing} on Beam")
        fileio.makedirs(folder)
        _run(pipeline, items, work, folder)
        for index in range(len(items)):
            with fileio.open(os.path.join(folder, str(index)), "rb") as file:
                # The workers of this very run wrote it into the stage's own output.
                result = pickle.loads(file.read())  # noqa: S301
            if isinstance(result, BikePipelineError):
                raise result
            results.append(result)
    if fileio.exists(folder):
        fileio.rmtree(folder)
    return results


def _run(pipeline: Any, items: Sequence[Any], work: Callable[[Any], Any], folder: str) -> None:
    import apache_beam as beam

    with pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(list(enumerate(items)), reshuffle=False)
            # Without it an engine may hand all files to one worker.
            | "Spread" >> beam.Reshuffle()
            | "Work" >> beam.Map(_work, work, folder)
        )


def _work(numbered: tuple[int, Any], work: Callable[[Any], Any], folder: str) -> None:
    """Keep the result of one item under its number; any number of workers may try the same one."""
    from tfx.dsl.io import fileio

    index, item = numbered
    result: Any
    try:
        result = work(item)
    except BikePipelineError as error:
        result = error
    aside = os.path.join(folder, uuid.uuid4().hex)
    with fileio.open(aside, "wb") as file:
        file.write(pickle.dumps(result))
    fileio.rename(aside, os.path.join(folder, str(index)), overwrite=True)
