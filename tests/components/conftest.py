"""Two small spans and what the first stages make of them, without a pipeline around."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def month_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes the embedded rows of one month, edited or not, as an upload file."""
    from bike_pipeline.data.embedded_dataset import embedded_bytes

    rows = list(csv.DictReader(embedded_bytes().decode().splitlines()))

    def write(month: str, edit: Callable[[dict[str, str]], dict[str, str]] = lambda row: row) -> Path:
        path = tmp_path_factory.mktemp("upload") / f"{month}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(edit(dict(row)) for row in rows if row["dteday"].startswith(month))
        return path

    return write


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory, month_file: Callable[..., Path]) -> str:
    """A store with March 2011 as span 1 and March 2012 as span 2. Tests that change it copy it first."""
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings

    uri = str(tmp_path_factory.mktemp("store") / "spans")
    for month in ("2011-03", "2012-03"):
        ingest(load_settings(assignments=(f"data.store={uri}",)), str(month_file(month)))
    return uri


def drive(uri: str, spans: int, days: int = 0) -> Any:
    """Let the ExampleGen driver resolve; return its exec properties (plain) and its output artifact."""
    from tfx.types import standard_artifacts

    from bike_pipeline.components.example_gen import SpanDriver

    artifact = standard_artifacts.Examples()
    properties = {"input_base": uri, "window_spans": spans, "window_days": days, "in_memory_rows": 10**6}
    information = SimpleNamespace(exec_properties=properties, output_dict={"examples": [artifact]})
    output = SpanDriver(None).run(information)  # type: ignore[arg-type]
    resolved = {k: getattr(v, v.WhichOneof("value")) for k, v in output.exec_properties.items()}
    return SimpleNamespace(properties={**properties, **resolved}, artifact=artifact)


def on_beam() -> Any:
    """What a runner hands to executors: here Beam's direct runner with one worker."""
    import apache_beam as beam
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

    flags = ["--runner=FnApiRunner", "--direct_num_workers=1", "--no_pipeline_type_check"]
    return BaseBeamExecutor.Context(make_beam_pipeline_fn=lambda: beam.Pipeline(argv=flags))


def generate(uri: str, folder: Path, spans: int = 2, days: int = 0, **properties: Any) -> Any:
    """Run ExampleGen's driver and executor, with changed properties or not; return the Examples artifact."""
    from bike_pipeline.components.example_gen import SpanExampleGenExecutor

    driven = drive(uri, spans, days)
    driven.artifact.uri = str(folder)
    executor = SpanExampleGenExecutor(on_beam())
    executor.Do({}, {"examples": [driven.artifact]}, {**driven.properties, **properties})
    return driven.artifact


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The curated schema as an artifact."""
    from tfx.types import standard_artifacts

    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path_factory.mktemp("schema"))
    (Path(artifact.uri) / "schema.pbtxt").write_text((ROOT / "configs" / "schema.pbtxt").read_text())
    return artifact


def statistics_of(examples: Any, schema: Any, folder: Path, in_memory_rows: int = 10**6) -> Any:
    """Run StatisticsGen; return the statistics artifact."""
    from tfx.types import standard_artifacts

    from bike_pipeline.components.statistics_gen import StatisticsGenExecutor

    output = standard_artifacts.ExampleStatistics()
    output.uri = str(folder)
    StatisticsGenExecutor(on_beam()).Do(
        {"examples": [examples], "schema": [schema]},
        {"statistics": [output]},
        {"in_memory_rows": in_memory_rows, "exclude_splits": json.dumps([])},
    )
    return output


@pytest.fixture(scope="session")
def examples(store_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Span 2's examples with span 1 as history."""
    return generate(store_uri, tmp_path_factory.mktemp("examples") / "1")


@pytest.fixture(scope="session")
def statistics(examples: Any, schema: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Their statistics."""
    return statistics_of(examples, schema, tmp_path_factory.mktemp("statistics") / "1")


@pytest.fixture(scope="session")
def measured(exported: Any, examples: Any, schema: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real evaluation of the model against itself."""
    from tests.components.evaluating import World, lookup

    world = World(tmp_path_factory.mktemp("evaluation"), exported.path, examples, schema)
    return world.evaluate("real", lookup("found", Path(world.model.uri)))
