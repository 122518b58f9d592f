"""Tuner: hyperparameters by validation inside the training rows, in processes side by side, resumed after a kill.

It writes what TFX's own Tuner writes, which runs one trial at a time and begins anew after a kill.
"""

from __future__ import annotations

import ctypes
import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfx.dsl.components.base import base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts

from bike_pipeline import progress
from bike_pipeline.components import base
from bike_pipeline.components.base import Artifacts
from bike_pipeline.errors import StageError
from bike_pipeline.modeling import tuning as search
from bike_pipeline.modeling.tuning import Job, Values
from bike_pipeline.settings.tuning import TuningSettings, decoded, tuned
from bike_pipeline.stages import HISTORY, HYPERPARAMETERS_PROPERTY, TRAIN, Stage
from bike_pipeline.storage.atomic_files import replace_file

SUMMARY_PROPERTY = "summary"
# As TFX's own Tuner calls them.
BEST_FILE, RESULTS_FILE = "best_hyperparameters.txt", "tuner_results.json"
# Beside the outputs; what a search has come to so far, by its identity.
SEARCHES_FOLDER = "searches"
# From linux/prctl.h: the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


class TunerExecutor(base_executor.BaseExecutor):
    """Tries every set of hyperparameters that has no result yet, and writes the best."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Write the best hyperparameters (Keras Tuner's config) and all results, the best first.

        Raises:
            DataError: there are no rows to learn from.
            StageError: the process of a trial was killed, or no trial came to a number.
        """
        tuning = TuningSettings.model_validate_json(exec_properties["tuning"])
        training, seed = json.loads(exec_properties["training"]), exec_properties["seed"]
        best = artifact_utils.get_single_instance(output_dict["best_hyperparameters"])
        results = artifact_utils.get_single_uri(output_dict["tuner_results"])
        examples = artifact_utils.get_single_uri(input_dict["examples"])
        patterns = tuple(f"{examples}/Split-{split}/*" for split in (HISTORY, TRAIN))
        job = Job(patterns, base.schema_file(input_dict), (), training, seed, tuning.objective)
        identity = search.identity_of(job, tuning, exec_properties.get("source_hash", ""))
        folder = Path(best.uri).parents[1] / SEARCHES_FOLDER / identity
        folder.mkdir(parents=True, exist_ok=True)

        space = search.space_of(tuning, training)
        trials = search.trials_of(space, tuning.trials, seed)
        done = {place: found for place, values in enumerate(trials) if (found := _kept(folder, values)) is not None}
        if len(done) < len(trials):
            progress.report(0.0, f"{len(done)} of {len(trials)} trials are done")
            job = replace(job, folds=_folds(job, tuning, folder, base.schema_of(input_dict)))
            _run(job, trials, done, tuning.parallel_trials, folder)
        # The earlier trial wins a tie: the settings themselves, if nothing is better.
        ranked = sorted(done, key=lambda place: (done[place], place))
        if not ranked or math.isinf(done[ranked[0]]):
            raise StageError("no trial came to a number", where=Stage.TUNER, fix="narrow tuning.space")

        space.values = trials[ranked[0]]
        for uri, name, content in (
            (best.uri, BEST_FILE, space.get_config()),
            (results, RESULTS_FILE, _records(ranked, trials, done)),
        ):
            Path(uri).mkdir(parents=True, exist_ok=True)
            (Path(uri) / name).write_text(json.dumps(content), encoding="utf-8")
        best.set_string_custom_property(HYPERPARAMETERS_PROPERTY, json.dumps(decoded(space.values)))
        best.set_string_custom_property(SUMMARY_PROPERTY, _so_far(trials, done, tuning.objective))
        shutil.rmtree(folder)


def _kept(folder: Path, values: Values) -> float | None:
    """Return the score that a trial came to before; None if it has none yet."""
    path = folder / f"{search.name_of(values)}.json"
    return float(json.loads(path.read_bytes())["score"]) if path.is_file() else None


def _records(ranked: list[int], trials: list[Values], done: dict[int, float]) -> list[dict[str, Any]]:
    return [{"trial_id": str(i), "score": done[i] if math.isfinite(done[i]) else None, **trials[i]} for i in ranked]


def _so_far(trials: list[Values], done: dict[int, float], objective: str) -> str:
    place = min(done, key=lambda place: (done[place], place))
    first = f", with the settings {done[0]:.2f}" if 0 in done else ""
    return f"best {objective} of {len(done)} trials {done[place]:.2f}{first}: {search.described(trials[place])}"


def _folds(job: Job, tuning: TuningSettings, folder: Path, schema: Any) -> tuple[search.Fold, ...]:
    """Return the folds, each with the transform graph of its own training rows: nothing is learnt of its window."""
    from bike_pipeline.components.transform import write_graph_of

    columns = search.in_order(job.examples, job.schema_file)
    folds = []
    for place, fold in enumerate(search.folds_of(len(columns["yr"]), tuning.origins, tuning.validation_share)):
        graph = folder / f"transform-graph-{place}"
        shutil.rmtree(graph, ignore_errors=True)
        write_graph_of({name: values[: fold.end] for name, values in columns.items()}, schema, str(graph))
        folds.append(replace(fold, transform_graph=str(graph)))
    return tuple(folds)


def _run(job: Job, trials: list[Values], done: dict[int, float], parallel: int, folder: Path) -> None:
    """Run the trials that are not `done`, and add their scores; each is kept as soon as it is known."""
    with _processes(parallel) as pool:
        running: dict[Future[list[float]], int] = {}
        for place, values in enumerate(trials):
            if place not in done:
                training = tuned(job.training, {"values": values})
                running[pool.submit(search.score, replace(job, training=training))] = place
        for ended in as_completed(running):
            place = running[ended]
            scores = ended.result()
            mean = sum(scores) / len(scores)
            # What is no number never wins.
            done[place] = mean if math.isfinite(mean) else math.inf
            content = json.dumps({"score": done[place], "scores": scores, "values": trials[place]})
            replace_file(folder / f"{search.name_of(trials[place])}.json", content.encode())
            progress.report(len(done) / len(trials), _so_far(trials, done, job.objective))


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    threads = max(1, (os.cpu_count() or 1) // count)
    # TensorFlow, which this process has loaded, does not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(threads, os.getpid()))
    try:
        yield pool
    except BrokenProcessPool:
        raise StageError(
            "the process of a trial was killed",
            where=Stage.TUNER,
            fix="with fewer tuning.parallel_trials each has more memory; run again: finished trials are not repeated",
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(threads: int, parent: int) -> None:
    """Prepare a process for trials: it ends with its parent, and takes its share of the processor."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}


class Tuner(base.Component):
    """Searches hyperparameters.

    Inputs: examples, schema. Outputs: the best hyperparameters, the results of all trials. Parameters: the sections
    `tuning` and `training` of the settings, each as JSON, and the seed.
    """

    PARAMETERS = {**base.parameters(str, "tuning", "training"), **base.parameters(int, "seed")}
    INPUTS = base.channels(examples=standard_artifacts.Examples, schema=standard_artifacts.Schema)
    OUTPUTS = base.channels(
        best_hyperparameters=standard_artifacts.HyperParameters, tuner_results=standard_artifacts.TunerResults
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(TunerExecutor)
