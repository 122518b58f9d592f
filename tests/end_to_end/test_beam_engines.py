"""The Beam-powered stages on other engines than the direct runner: the same artifacts, row for row.

Flink and Spark need Java and a job server (`make flink`, `make spark`), Prism a program (`make prism`), workers as
processes another one (`make boot`); without them the test is skipped and says so. A job server in Python comes with
Beam: it takes the same requests, so the way to an engine of other processes is tested on every machine.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline.errors import MissingExtraError
from bike_pipeline.lineage.store.connection import open_at
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.runners.beam import job_server_programs
from bike_pipeline.settings import PROJECT_ROOT, load_settings
from tests.end_to_end.conftest import Product

pytestmark = pytest.mark.slow

BEAM_STAGES = ("CsvExampleGen", "StatisticsGen", "Transform", "Evaluator")
FEW_EPOCHS = ("--set", "training.epochs=2")
# What the job servers say of a job: Flink's and Spark's, Beam's own in Python, Prism.
_JOB = re.compile(r"Invoking job|Completed job|pipeline done!")
_PROGRAM = """#!{python}
import os, sys
if "-version" in sys.argv:
    sys.stderr.write('openjdk version "17.0.9"\\n')
    sys.exit(0)
port = sys.argv[sys.argv.index("--job-port") + 1]
command = {command!r}
os.execv(command[0], [part.replace("PORT", port) for part in command])
"""
PYTHON = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--port", "PORT"]


# As docs/runners.md has it; Prism puts the values of arguments into quotes, which Flink does not.
_WORKER = """#!/bin/bash
export PATH={bin}:$PATH RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
cd "$(mktemp -d -p {folder})"
exec {boot} "${{@//\\'/}}"
"""


def go_program(name: str) -> str:
    """Return the path of a program that a target of this name builds; skip where it is not there."""
    found = sorted((PROJECT_ROOT / ".job-servers").glob(f"{name}-*")) or [shutil.which(name)]
    if found[-1] is None:
        pytest.skip(f"Beam's {name} is not there: run `make {name}`")
    return str(found[-1])


def settings_of(engine: str, folder: Path) -> list[str]:
    """Return what is set for an engine; skip where it is not to be had on this machine."""
    if engine in ("flink", "spark"):
        try:
            job_server_programs.require(load_settings().beam, engine)
        except MissingExtraError as error:
            pytest.skip(str(error))
        return [f"beam.engine={engine}"]
    command = PYTHON
    workers = []
    if engine != "python":
        command = [go_program("prism"), "-job_port", "PORT", "-serve_http=false"]
    if engine == "processes":
        started = folder / "worker"
        started.write_text(
            _WORKER.format(bin=Path(sys.executable).parent, boot=go_program("boot"), folder=folder), encoding="utf-8"
        )
        started.chmod(0o755)
        workers = ["beam.workers.environment=PROCESS", f"beam.workers.command={started}"]
    program = folder / "java"
    program.write_text(_PROGRAM.format(python=sys.executable, command=command), encoding="utf-8")
    program.chmod(0o755)
    (folder / "server.jar").touch()
    server = [f"beam.job_server.java={program}", f"beam.flink.job_server_jar={folder}/server.jar"]
    return ["beam.engine=flink", *server, *workers]


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """Both halves through the local runner, every Beam-powered stage on Beam's direct runner."""
    product = Product(tmp_path_factory.mktemp("direct") / "workspace")
    called = product.call("run", "--json", "--demo", "second", *FEW_EPOCHS, "--set", "data.in_memory_rows=1")
    assert called.code in (0, 6), called.err
    return product


@pytest.fixture(scope="module", params=["python", "prism", "processes", "flink", "spark"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Product:
    """The same through the Beam runner on an engine; the rows are few, and yet nothing may stay in this process."""
    folder = tmp_path_factory.mktemp(request.param)
    chosen = [part for text in settings_of(request.param, folder) for part in ("--set", text)]
    product = Product(folder / "workspace")
    run = ("run", "--runner", "beam", "--json", "--demo", "second", *FEW_EPOCHS, *chosen)
    called = product.call(*run)
    again = 0
    # Prism gives a worker one minute to start, in which Python does not always come up on a busy machine.
    while request.param == "processes" and "didn't get control connection" in called.err and again < 3:
        called = product.call(*run)
        again += 1
    assert called.code in (0, 6), called.err
    assert set(called.states.values()) <= ({"done", "cached"} if again else {"done"})
    return product


def output(product: Product, kind: str) -> Path:
    """Return the folder of the only artifact of a type."""
    (artifact,) = Lineage(open_at(f"sqlite://{product.workspace}/metadata.sqlite")).artifacts(kind)
    return Path(artifact.uri)


def records(product: Product, split: str) -> list[bytes]:
    """Return the examples of a split in the order of their files, each serialized with its features in order."""
    import tensorflow as tf

    files = sorted(str(path) for path in (output(product, "Examples") / f"Split-{split}").glob("data_tfrecord-*"))
    read = (tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files, "GZIP"))
    return [example.SerializeToString(deterministic=True) for example in read]


def source_rows(product: Product) -> dict[str, int]:
    """Return the rows of each split as the stored files hold them, read without the product."""
    rows = {}
    for span, splits in ((1, ("train", "eval")), (2, ("train", "eval"))):
        for split in splits:
            files = list((product.workspace / "spans").glob(f"span-*{span}/version-*/{split}/*.csv"))
            assert files
            lines = sum(len(file.read_text(encoding="utf-8").splitlines()) - 1 for file in files)
            name = split if span == 2 else "history"
            rows[name] = rows.get(name, 0) + lines
    return rows


def statistics(product: Product, split: str) -> Any:
    import tensorflow_data_validation as tfdv

    path = output(product, "ExampleStatistics") / f"Split-{split}" / "FeatureStats.pb"
    return tfdv.load_stats_binary(str(path))


def numbers(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a proto with its path."""
    for field, value in message.ListFields():
        for index, entry in enumerate(value if field.is_repeated else [value]):
            place = f"{path}.{field.name}[{index}]"
            if field.message_type:
                yield from numbers(entry, place)
            else:
                yield place, entry


def test_every_split_holds_the_rows_of_its_source(direct: Product, engine: Product) -> None:
    expected = source_rows(engine)
    assert set(expected) == {"train", "eval", "history"}
    assert sum(expected.values()) == 17_379
    for split, rows in expected.items():
        found = records(engine, split)
        assert len(found) == rows, split
        assert found == records(direct, split), split


def test_statistics_are_the_same(direct: Product, engine: Product) -> None:
    for split, rows in source_rows(engine).items():
        ours, theirs = statistics(engine, split), statistics(direct, split)
        assert ours.datasets[0].num_examples == rows
        by_name = [{f.path.step[0]: f for f in found.datasets[0].features} for found in (ours, theirs)]
        assert set(by_name[0]) == set(by_name[1])
        for name, feature in by_name[0].items():
            got, wanted = dict(numbers(feature)), dict(numbers(by_name[1][name]))
            assert set(got) == set(wanted), name
            for place, value in wanted.items():
                # Sums of floats depend on the order in which bundles come.
                same = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
                assert got[place] == same, (split, name, place)


def test_the_transform_graph_is_the_same(direct: Product, engine: Product) -> None:
    import tensorflow as tf
    import tensorflow_transform as tft

    outputs = []
    for product in (direct, engine):
        graph = tft.TFTransformOutput(str(output(product, "TransformGraph")))
        raw = tf.io.parse_example(records(direct, "eval"), graph.raw_feature_spec())
        outputs.append(graph.transform_raw_features(raw))
    assert set(outputs[0]) == set(outputs[1])
    for name, values in outputs[0].items():
        # TFT sums in float32, in the order in which bundles come.
        np.testing.assert_allclose(outputs[1][name].numpy(), values.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_metrics_are_the_same(direct: Product, engine: Product) -> None:
    reports = [
        json.loads((output(product, "ModelEvaluation") / "decisions.json").read_text(encoding="utf-8"))
        for product in (direct, engine)
    ]
    tables = [{(row["slicing"], row["slice"]): row for row in report["candidate_metrics"]} for report in reports]
    assert set(tables[0]) == set(tables[1])
    assert tables[1]["overall", ""]["rows"] == source_rows(engine)["eval"]
    for key, row in tables[0].items():
        for name in set(row) - {"slicing", "slice"}:
            assert tables[1][key][name] == pytest.approx(row[name], rel=1e-3, abs=1e-5), (key, name)
    assert reports[0]["blessed"] == reports[1]["blessed"]


def test_the_stages_really_ran_there_and_the_server_is_gone(engine: Product) -> None:
    logs = list((engine.workspace / "logs").glob("job-server-*.log"))
    told = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
    assert len(_JOB.findall(told)) >= len(BEAM_STAGES)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(engine.workspace.parent) not in process.read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_what_ran_on_an_engine_answers_for_every_other(engine: Product) -> None:
    again = engine.call("run", "--json", *FEW_EPOCHS)
    assert set(again.states.values()) == {"cached"}
