"""Where a Beam-powered stage computes: in its own process, or in a Beam pipeline on the engine that the settings name.

One rule for all of them. On an engine of other machines (Flink, Spark, Dataflow) a stage always runs on Beam, however
few its rows: the machine that starts a stage may be smaller than its data, and may not be able to reach it. On this
machine a stage computes in its own process up to `data.in_memory_rows`, since a Beam pipeline costs seconds to build,
and on Beam's direct runner, with as many workers as the settings give it, above. Both ways give the same results.

The engine is read off the pipeline that the runner's factory makes and not off a parameter of the stage: it is no part
of the cache key, so that a result computed on one engine answers for every other.
"""

from __future__ import annotations

from typing import Any


def is_remote(pipeline: Any) -> bool:
    """Return whether a Beam pipeline would run on other machines than this one."""
    from apache_beam.options.pipeline_options import StandardOptions

    return type(pipeline.runner).__name__ not in StandardOptions.LOCAL_RUNNERS


def computes_in_process(pipeline: Any, rows: int, in_memory_rows: int) -> bool:
    """Return whether a stage computes in its own process.

    Args:
        pipeline: a Beam pipeline from the stage's factory; it is looked at and never run.
        rows: how many rows the stage reads.
        in_memory_rows: the setting `data.in_memory_rows`.
    """
    return rows <= in_memory_rows and not is_remote(pipeline)
