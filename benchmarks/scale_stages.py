"""One stage of ours, or its peer, in a process of its own: what `scale.py` has started and measures.

`serve` imports everything once and forks a process a measurement, since importing TensorFlow, Beam and TFX costs more
than most stages. Each line of JSON that it reads names a stage, by whom, and a folder; each that it prints holds CPU
and wall seconds of the work, and anonymous memory before it and at its peak.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("ingest", "ExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
WRITTEN = {
    "ingest": ["spans"],
    "ExampleGen": ["examples"],
    "StatisticsGen": ["statistics"],
    "Transform": ["graph"],
    "Trainer": ["model", "run"],
    "Evaluator": ["evaluation", "blessing"],
}
PEER, MEMORY, DIRECT, PARQUET, COLUMNS_ONLY = "peer", "memory", "direct", "parquet", "columns"
SAMPLED_EVERY = 0.02
PRELOADED = (
    "keras",
    "polars",
    "pyarrow.csv",
    "pyarrow.parquet",
    "tensorflow_model_analysis",
    "tfx.dsl.components.base.base_beam_executor",
    "tfx_bsl.coders.example_coder",
    "bike_pipeline.data.ingest",
    "bike_pipeline.components.example_gen",
    "bike_pipeline.components.statistics_gen",
    "bike_pipeline.components.transform",
    "bike_pipeline.components.evaluator",
    "bike_pipeline.modeling.preprocessing",
    "bike_pipeline.modeling.training",
    "benchmarks.scale_peers",
)
Work = Callable[[], Any]


def anonymous(process: int | str = "self") -> float:
    """Return a process's memory that no file backs, MB: pages of libraries come and go with what is called."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024 if "RssAnon:" in status else 0.0


def measured(work: Work) -> dict[str, float]:
    """Return what the work costs; a peak of memory within it is seen from outside, see `in_a_fork`."""
    resident = anonymous()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    work()
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "resident": resident, "peak": max(resident, anonymous())}


def through_graph(patterns: list[str], transform_graph: str) -> None:
    """Put the rows of an Examples artifact through a transform graph, a batch at a time."""
    import tensorflow as tf

    from bike_pipeline import features
    from bike_pipeline.modeling import preprocessing, rows, saved_model

    outputs = (*preprocessing.OUTPUTS, *features.LABELS)
    transform = saved_model.Transform(transform_graph, rows.RAW_NAMES, outputs)
    for pattern in patterns:
        for path in rows.readable_files(str(Path(pattern).parent)):
            for batch in rows.record_batches(path, rows.ROWS_AT_ONCE, rows.RAW_NAMES):
                columns = rows.to_columns([batch], rows.RAW_NAMES)
                transform({name: tf.constant(values) for name, values in columns.items()})


class Stages:
    """Our stages on the artifacts in one folder, called as TFX's launcher calls them."""

    def __init__(self, folder: Path, engine: str) -> None:
        """Use the folder; engine is "memory", "parquet" (its spans too), or a Beam pipeline's flags, between spaces."""
        import apache_beam as beam
        from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

        self.folder = folder
        self.in_memory_rows = 2**60 if engine in {MEMORY, PARQUET} else 0
        self.ending = f"-{PARQUET}" if engine == PARQUET else ""
        known = engine in {MEMORY, PARQUET, DIRECT}
        flags = "--runner=FnApiRunner --direct_num_workers=1" if known else engine
        argv = [*flags.split(), "--no_pipeline_type_check"]
        self.context = BaseBeamExecutor.Context(make_beam_pipeline_fn=lambda: beam.Pipeline(argv=argv))

    def artifact(self, kind: str, name: str) -> Any:
        """Return an artifact of one of TFX's standard kinds that stands in the folder."""
        from tfx.types import standard_artifacts

        artifact = getattr(standard_artifacts, kind)()
        artifact.uri = str(self.folder / name)
        return artifact

    def examples(self) -> Any:
        """Return the Examples artifact that `ExampleGen` wrote."""
        artifact = self.artifact("Examples", "examples")
        artifact.split_names = json.dumps(["train", "eval", "history"])
        artifact.set_string_custom_property("rows_by_split", (self.folder / "rows.json").read_text())
        return artifact

    def schema(self) -> Any:
        """Return the curated schema."""
        artifact = self.artifact("Schema", "schema")
        Path(artifact.uri).mkdir(exist_ok=True)
        shutil.copy(ROOT / "configs" / "schema.pbtxt", artifact.uri)
        return artifact

    def ingest(self) -> Work:
        """The row contract, the split and the store, from a Parquet upload."""
        from bike_pipeline.data.ingest import ingest
        from bike_pipeline.settings import load_settings

        stored_as = self.ending.removeprefix("-") or "csv"
        store = self.folder / f"spans{self.ending}"
        settings = load_settings(assignments=(f"data.store={store}", f"data.format={stored_as}"))
        return lambda: ingest(settings, str(self.folder / "upload.parquet"))

    def ExampleGen(self) -> Work:  # noqa: N802 (the stage's name)
        """From the store to gzipped tf.Examples."""
        from bike_pipeline.components.example_gen import SpanDriver, SpanExampleGenExecutor

        artifact = self.artifact("Examples", f"examples{self.ending}")
        properties = {
            "input_base": str(self.folder / f"spans{self.ending}"),
            "window_spans": 2,
            "window_days": 0,
            "in_memory_rows": self.in_memory_rows,
        }
        information = SimpleNamespace(exec_properties=properties, output_dict={"examples": [artifact]})
        driven = SpanDriver(None).run(information).exec_properties  # type: ignore[arg-type]
        properties.update({key: getattr(value, value.WhichOneof("value")) for key, value in driven.items()})

        def work() -> None:
            SpanExampleGenExecutor(self.context).Do({}, {"examples": [artifact]}, properties)
            (self.folder / "rows.json").write_text(artifact.get_string_custom_property("rows_by_split"))

        return work

    def StatisticsGen(self) -> Work:  # noqa: N802
        """TFDV's statistics of every split."""
        from bike_pipeline.components.statistics_gen import StatisticsGenExecutor

        inputs = {"examples": [self.examples()], "schema": [self.schema()]}
        output = {"statistics": [self.artifact("ExampleStatistics", "statistics")]}
        properties = {"in_memory_rows": self.in_memory_rows}
        return lambda: StatisticsGenExecutor(self.context).Do(inputs, output, properties)

    def Transform(self) -> Work:  # noqa: N802
        """TFT's analysis and graph, and the training rows through the graph; nobody keeps them, unlike the Trainer."""
        from tfx.proto import transform_pb2
        from tfx.utils import proto_utils

        from bike_pipeline.components.transform import TransformExecutor

        inputs = {"examples": [self.examples()], "schema": [self.schema()]}
        output = {"transform_graph": [self.artifact("TransformGraph", "graph")]}
        splits = transform_pb2.SplitsConfig(analyze=["history", "train"], transform=["eval"])
        properties = {
            "preprocessing_fn": "bike_pipeline.modeling.preprocessing.preprocessing_fn",
            "splits_config": proto_utils.proto_to_json(splits),
            "in_memory_rows": self.in_memory_rows,
        }

        def work() -> None:
            TransformExecutor(self.context).Do(inputs, output, properties)
            through_graph(self.train_files(), str(self.folder / "graph"))

        return work

    def train_files(self) -> list[str]:
        """Return the patterns of the splits that are trained on."""
        return [str(self.folder / "examples" / f"Split-{split}" / "*") for split in ("history", "train")]

    def Trainer(self) -> Work:  # noqa: N802
        """One epoch of training and the served model."""
        from bike_pipeline.modeling import training
        from bike_pipeline.settings import load_settings

        settings = load_settings(assignments=("training.epochs=1",))
        arguments = SimpleNamespace(
            custom_config={"training": settings.training.model_dump(mode="json"), "seed": settings.seed},
            train_files=self.train_files(),
            eval_files=[str(self.folder / "examples" / "Split-eval" / "*")],
            transform_graph_path=str(self.folder / "graph"),
            model_run_dir=str(self.folder / "run"),
            serving_model_dir=str(self.folder / "model" / "Format-Serving"),
            base_model=None,
            hyperparameters=None,
            schema_path=str(ROOT / "configs" / "schema.pbtxt"),
        )
        return lambda: training.run_fn(arguments)

    def Evaluator(self) -> Work:  # noqa: N802
        """Candidate and baseline (the same model) overall and on every slice, TFMA's validation, the blessing."""
        from tfx.utils import proto_utils

        from bike_pipeline.components.evaluator import EvaluatorExecutor
        from bike_pipeline.modeling import evaluation
        from bike_pipeline.settings import load_settings

        settings = load_settings().evaluation
        baseline = self.artifact("Model", "model")
        for name, value in {"state": "found", "reason": "measured"}.items():
            baseline.set_string_custom_property(name, value)
        baseline.set_int_custom_property("serving_version", 1)
        inputs = {
            "examples": [self.examples()],
            "schema": [self.schema()],
            "model": [self.artifact("Model", "model")],
            "baseline_model": [baseline],
        }
        outputs = {
            "evaluation": [self.artifact("ModelEvaluation", "evaluation")],
            "blessing": [self.artifact("ModelBlessing", "blessing")],
        }
        properties = {
            "eval_config": proto_utils.proto_to_json(evaluation.eval_config(settings)),
            "evaluation": settings.model_dump_json(),
            "metric_set": "measured",
            "in_memory_rows": self.in_memory_rows,
        }
        return lambda: EvaluatorExecutor(self.context).Do(inputs, outputs, properties)


def prepared(stage: str, who: str, folder: Path) -> Work:
    """Return the work of a stage on a folder: `who` is "peer", "columns", "memory", "parquet", "direct" or flags."""
    if who in {PEER, COLUMNS_ONLY}:
        from benchmarks import scale_peers

        peer: Callable[[Path], Work] = getattr(scale_peers, stage if who == PEER else "columns_only")
        return peer(folder)
    stages = Stages(folder, who)
    for name in WRITTEN[stage]:
        shutil.rmtree(folder / f"{name}{stages.ending}", ignore_errors=True)
    made: Callable[[], Work] = getattr(stages, stage)
    return made()


def in_a_fork(stage: str, who: str, folder: Path) -> dict[str, Any]:
    """Do the work in a process of its own; return its costs, or under "error" what went wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = measured(prepared(stage, who, folder))
        except BaseException:  # noqa: BLE001 (whatever it is, the child must not go on as the server)
            result = {"error": traceback.format_exc()}  # type: ignore[dict-item]
        os.write(writer, json.dumps(result).encode())
        # Loaded graphs can crash the interpreter's teardown; what was to be told is told.
        os._exit(0)
    os.close(writer)
    highest = 0.0
    while not os.waitpid(child, os.WNOHANG)[0]:
        highest = max(highest, anonymous(child))
        time.sleep(SAMPLED_EVERY)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    if not content:
        return {"error": "the process ended without a word"}
    result = json.loads(content)
    # Work shorter than the sampling is seen by the process itself alone.
    return result if "error" in result else {**result, "peak": max(highest, result["peak"])}


def serve() -> None:
    """Import once; then answer each request on standard input with a line on standard output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.path.insert(0, str(ROOT))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is no answer.
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        print(
            json.dumps(in_a_fork(request["stage"], request["who"], Path(request["folder"]))), file=answers, flush=True
        )


if __name__ == "__main__":
    serve()
