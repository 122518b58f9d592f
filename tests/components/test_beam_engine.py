"""Where a stage computes: few rows in its own process, but never on an engine of other machines."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("flags", "rows", "in_process"),
    [
        (["--runner=FnApiRunner"], 10, True),
        (["--runner=DirectRunner", "--direct_num_workers=2"], 10, True),
        (["--runner=FnApiRunner"], 11, False),
        (["--runner=FlinkRunner"], 1, False),
        (["--runner=SparkRunner"], 1, False),
        (["--runner=PortableRunner", "--job_endpoint=localhost:1"], 1, False),
    ],
)
def test_where_a_stage_computes(flags: list[str], rows: int, in_process: bool) -> None:
    import apache_beam as beam

    from bike_pipeline.components.beam_engine import computes_in_process

    assert computes_in_process(beam.Pipeline(argv=flags), rows, 10) == in_process


@pytest.mark.slow
def test_a_remote_engine_is_asked_although_the_rows_are_few(store_uri: str, tmp_path: object) -> None:
    import apache_beam as beam
    from apache_beam.runners import runner
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

    from bike_pipeline.components.example_gen import SpanExampleGenExecutor
    from tests.components.conftest import drive

    class ElsewhereRunner(runner.PipelineRunner):
        def run_pipeline(self, pipeline: object, options: object) -> None:
            raise ConnectionError("asked")

    driven = drive(store_uri, 1)
    driven.artifact.uri = str(tmp_path)
    context = BaseBeamExecutor.Context(make_beam_pipeline_fn=lambda: beam.Pipeline(runner=ElsewhereRunner()))
    with pytest.raises(ConnectionError, match="asked"):
        SpanExampleGenExecutor(context).Do({}, {"examples": [driven.artifact]}, driven.properties)
