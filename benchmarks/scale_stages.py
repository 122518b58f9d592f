"""One stage of ours, or its peer, in a process of its own: what `scale.py` starts and measures.

Each prints one line of JSON: CPU and wall seconds after the imports, and resident memory before and at its peak. A
peer is what somebody would write who needs this one step and no pipeline around it, and it does comparable work: what
ours writes compressed, it writes compressed (Parquet with gzip, where ours writes gzipped TFRecords).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("ingest", "ExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
Work = Callable[[], Any]


def peak() -> float:
    """Return the largest resident memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(work: Work) -> dict[str, float]:
    """Return what the work costs."""
    # What was touched once by imports must not hide what the work needs.
    Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    began = time.monotonic()
    work()
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()
    highest = int(status.split("VmHWM:")[1].split()[0]) / 1024
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "resident": resident, "peak": highest}


class Stages:
    """Our stages on the artifacts in one folder, called as TFX's launcher calls them."""

    def __init__(self, folder: Path, engine: str) -> None:
        """Use the folder; engine is "memory" or the flags of a Beam pipeline, separated by spaces."""
        import apache_beam as beam
        from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

        self.folder = folder
        self.in_memory_rows = 2**60 if engine == "memory" else 0
        flags = "--runner=FnApiRunner --direct_num_workers=1" if engine in {"memory", "direct"} else engine
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

        settings = load_settings(assignments=(f"data.store={self.folder / 'spans'}",))
        return lambda: ingest(settings, str(self.folder / "upload.parquet"))

    def ExampleGen(self) -> Work:  # noqa: N802 (the stage's name)
        """From the store to gzipped tf.Examples."""
        import tensorflow  # noqa: F401 (its import is not what is measured)
        from tfx_bsl.coders import example_coder  # noqa: F401

        from bike_pipeline.components.example_gen import SpanDriver, SpanExampleGenExecutor

        artifact = self.artifact("Examples", "examples")
        properties = {
            "input_base": str(self.folder / "spans"),
            "history_spans": 1,
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
        """TFT's analysis and graph."""
        from tfx.proto import transform_pb2
        from tfx.utils import proto_utils

        from bike_pipeline.components.transform import TransformExecutor

        inputs = {"examples": [self.examples()], "schema": [self.schema()]}
        output = {"transform_graph": [self.artifact("TransformGraph", "graph")]}
        splits = transform_pb2.SplitsConfig(analyze=["history", "train"], transform=["eval"])
        properties = {
            "preprocessing_fn": "bike_pipeline.modeling.preprocessing.preprocessing_fn",
            "splits_config": proto_utils.proto_to_json(splits),
        }
        return lambda: TransformExecutor(self.context).Do(inputs, output, properties)

    def Trainer(self) -> Work:  # noqa: N802
        """One epoch of training and the served model."""
        from bike_pipeline.modeling import training
        from bike_pipeline.settings import load_settings

        settings = load_settings(assignments=("training.epochs=1",))
        arguments = SimpleNamespace(
            custom_config={"training": settings.training.model_dump(mode="json"), "seed": settings.seed},
            train_files=[str(self.folder / "examples" / f"Split-{split}" / "*") for split in ("history", "train")],
            transform_graph_path=str(self.folder / "graph"),
            model_run_dir=str(self.folder / "run"),
            serving_model_dir=str(self.folder / "model" / "Format-Serving"),
            base_model=None,
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


def main(stage: str, who: str, folder: str) -> int:
    """Run a stage: `who` is "memory", Beam's flags, or "peer"."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(ROOT))
    place = Path(folder)
    if who == "peer":
        from benchmarks import scale_peers

        work = getattr(scale_peers, stage)(place)
    else:
        for name in {
            "ingest": ["spans"],
            "ExampleGen": ["examples"],
            "StatisticsGen": ["statistics"],
            "Transform": ["graph"],
            "Trainer": ["model", "run"],
            "Evaluator": ["evaluation", "blessing"],
        }[stage]:
            shutil.rmtree(place / name, ignore_errors=True)
        work = getattr(Stages(place, who), stage)()
    result = measured(work)
    print(json.dumps(result), flush=True)
    # Loaded graphs can crash the interpreter's teardown; what was to be told is told.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:4])
