"""One process of a multi-worker training: `python -m bike_pipeline.modeling.train_worker --job JSON`.

It finds its peers in TF_CONFIG, or in what a TrainJob's pods know of themselves (see `cluster.from_train_job`), reads
all rows, trains its part of each step, and ends. The first worker is the chief and alone writes the model: into a
folder beside its place, and by one rename at the end. Standard output carries one JSON object a line: progress, or
the error that a run ends with; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

from pydantic import Field, ValidationError

from bike_pipeline import progress
from bike_pipeline.errors import BikePipelineError, ConfigurationError, ExitCode, StageError
from bike_pipeline.modeling import cluster as clusters
from bike_pipeline.modeling.cluster import Cluster, PeerLostError
from bike_pipeline.settings.section import Section
from bike_pipeline.settings.training import TrainingSettings
from bike_pipeline.stages import Stage

# Workers listen here in a cluster; TensorFlow's own examples use the same.
PORT = 2222
# A peer on a healthy network answers at once.
ANSWER_SECONDS = 2.0
# TensorFlow Serving and TFX look for a model in the final folder only.
PARTIAL = ".partial"
Place = Annotated[str, Field(min_length=1)]


class TrainingJob(Section):
    """One training: rows in, model out. Every place is a path or URI that each worker reaches under the same name.

    Attributes:
        examples: file patterns of the tf.Examples to train on (gzipped TFRecords).
        evaluated: file patterns of the tf.Examples that the model is evaluated on; empty for none.
        schema_file: the schema, as text proto.
        base_model: folder of the SavedModel to start from; empty for none.
        run_dir: folder for the losses; the chief's.
        model_dir: folder for the SavedModel; the chief's; must not exist.
    """

    examples: Annotated[tuple[Place, ...], Field(min_length=1)]
    evaluated: tuple[Place, ...] = ()
    schema_file: Place
    transform_graph: Place
    base_model: str = ""
    run_dir: Place
    model_dir: Place
    training: TrainingSettings
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    @classmethod
    def from_json(cls, text: str) -> TrainingJob:
        """Return the job that the JSON describes; a ConfigurationError names the part that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(
                f"{where}: {first['msg']}" if where else first["msg"],
                where="--job",
                fix="take the job as the Trainer stage or the TrainJob's manifest has it",
            ) from None


def _print_event(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _end(error: BikePipelineError | None = None) -> NoReturn:
    # Threads of TensorFlow may wait for peers that are gone. Nothing is lost: what a worker writes is closed by now.
    if error is not None:
        parts = {"what": error.what, "where": error.where, "fix": error.fix, "exit_code": int(error.exit_code)}
        _print_event(error=parts, peer_lost=isinstance(error, PeerLostError))
        sys.stderr.write(f"error: {error}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code if error is not None else ExitCode.OK)


def _peer_lost(cluster: Cluster) -> PeerLostError:
    silent = cluster.silent(ANSWER_SECONDS)
    reason = f"no answer from {', '.join(silent)}" if silent else "a worker ended or hangs"
    return PeerLostError(
        f"the training was cut off: {reason}",
        where=cluster.name,
        fix="see that worker's log, then start all workers again; no model was written",
    )


def _end_with_the_parent() -> None:
    """End this process when the one that started it is gone, and with it its end of our standard input."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def _work(job: TrainingJob, cluster: Cluster) -> None:
    seconds = job.training.worker_timeout
    clusters.meet(cluster, job.model_dump_json(), seconds)
    import tensorflow as tf

    os.environ[clusters.TF_CONFIG] = cluster.tf_config()
    # A worker that ends between the meeting and TensorFlow's own is waited for without end and with the interpreter
    # locked; this ends the process from outside the interpreter.
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        # First of all: TensorFlow takes collective operations only before anything else has run. Missed heartbeats end
        # them; a timeout for them would start a thread for each, thousands a minute, and the process would die of it.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        faulthandler.cancel_dump_traceback_later()
        _train(job, cluster, strategy)
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    ) as error:
        sys.stderr.write(f"{error}\n")
        raise _peer_lost(cluster) from None


def _train(job: TrainingJob, cluster: Cluster, strategy: Any) -> None:
    import tensorflow as tf

    from bike_pipeline.modeling import rows, training

    if tf.io.gfile.exists(job.model_dir):
        raise ConfigurationError(
            "there is a model already", where=job.model_dir, fix="name a folder that does not exist"
        )
    columns, newest = rows.read_to_train(job.examples, job.schema_file)
    with contextlib.ExitStack() as stack:
        if cluster.is_chief:
            stack.enter_context(progress.listening(lambda share, text: _print_event(progress=share, text=text)))
        section = job.training.model_dump(mode="json")
        trained = training.train(columns, job.transform_graph, section, job.seed, job.base_model or None, strategy)
        if cluster.is_chief:
            partial = job.model_dir.rstrip("/") + PARTIAL
            if tf.io.gfile.exists(partial):
                tf.io.gfile.rmtree(partial)
            evaluated = rows.read(job.evaluated, job.schema_file) if job.evaluated else None
            training.write(trained, columns, job.transform_graph, section, job.run_dir, partial, newest, evaluated)
            tf.io.gfile.rename(partial, job.model_dir)
    try:
        # All wait for all: a worker that ends earlier takes the chief's view of the cluster with it.
        strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(1.0)), axis=None)
    except tf.errors.OpError as error:
        if not cluster.is_chief:
            raise
        sys.stderr.write(f"A worker was lost after the model was written: {error}\n")


def _cluster(nodes: int | None, port: int) -> Cluster:
    if text := os.environ.get(clusters.TF_CONFIG, "").strip():
        return clusters.from_tf_config(text)
    if nodes is not None:
        return clusters.from_train_job(os.environ, nodes, port)
    raise ConfigurationError(
        "neither TF_CONFIG nor --nodes says whom this worker trains with",
        where=clusters.TF_CONFIG,
        fix="set TF_CONFIG, or give --nodes in the pods of a TrainJob",
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Train as one of several workers; end the process with 0 or the error's exit code (see `ExitCode`)."""
    parser = argparse.ArgumentParser(prog="python -m bike_pipeline.modeling.train_worker", description=__doc__)
    parser.add_argument("--job", required=True, help="the training as JSON, see TrainingJob")
    parser.add_argument(
        "--nodes", type=int, help="number of workers, if no TF_CONFIG names them: the pods of a TrainJob"
    )
    parser.add_argument("--port", type=int, default=PORT, help="where each of them listens (default: %(default)s)")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input is closed")
    options = parser.parse_args(arguments)
    if options.with_parent:
        _end_with_the_parent()
    try:
        job = TrainingJob.from_json(options.job)
        _work(job, _cluster(options.nodes, options.port))
    except BikePipelineError as error:
        _end(error)
    except Exception as error:  # noqa: BLE001 (the last resort: whoever waits for this worker gets one line)
        import traceback

        traceback.print_exc()
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        _end(StageError(f"{type(error).__name__}: {first[:300]}", where=Stage.TRAINER, fix="see this worker's log"))
    _end()


if __name__ == "__main__":
    main()
