"""What Beam remembers is what it would have found out again."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import core

from bike_pipeline.runners.beam_memory import remembered


class Adding(beam.DoFn):
    def process(self, element: int, amount: int = 2, window: Any = beam.DoFn.WindowParam) -> Any:
        yield element + amount


class Other(beam.DoFn):
    def process(self, element: int) -> Any:
        yield element


def signatures() -> list[Any]:
    return [core.get_function_arguments(dofn, "process") for dofn in (Adding(), Other(), Adding())]


def test_signatures_are_the_same() -> None:
    plain = signatures()
    with remembered():
        first = signatures()
        first[0][0].append("spoilt by whoever asked")
        assert signatures() == plain
    assert plain[0] == (["element", "amount", "window"], [2, beam.DoFn.WindowParam])


def test_functions_are_asked_every_time() -> None:
    def changing(a: int, b: int = 1) -> None: ...

    with remembered():
        assert core.get_function_args_defaults(changing) == (["a", "b"], [1])
        changing.__defaults__ = (5,)
        assert core.get_function_args_defaults(changing) == (["a", "b"], [5])


def test_views_share_their_options_values_and_no_others() -> None:
    with remembered():
        options, others = PipelineOptions(["--streaming"]), PipelineOptions([])
        view = options.view_as(StandardOptions)
        assert view is options.view_as(StandardOptions)
        assert view.streaming
        assert not others.view_as(StandardOptions).streaming
        options.view_as(StandardOptions).runner = "FnApiRunner"
        assert view.runner == "FnApiRunner"
        assert options.get_all_options()["runner"] == "FnApiRunner"
        assert others.view_as(StandardOptions).runner is None
        assert isinstance(options.view_as(WorkerOptions), WorkerOptions)


def test_options_with_other_values_are_looked_at_again() -> None:
    with remembered():
        options = PipelineOptions([])
        assert not options.view_as(StandardOptions).streaming
        options._all_options = PipelineOptions(["--streaming"]).get_all_options()
        assert options.view_as(StandardOptions).streaming


def test_a_pipeline_comes_to_its_result() -> None:
    with remembered():
        pipeline = beam.Pipeline(argv=["--runner=FnApiRunner"])
        outcome = pipeline | beam.Create([1, 2, 3]) | beam.ParDo(Adding(), 10) | beam.CombineGlobally(sum)
        assert_that(outcome, equal_to([36]))
        pipeline.run().wait_until_finish()


def test_nothing_stays_changed() -> None:
    before = (core.get_function_args_defaults, PipelineOptions.view_as)
    with pytest.raises(RuntimeError, match="stage"), remembered():
        raise RuntimeError("a stage failed")
    assert (core.get_function_args_defaults, PipelineOptions.view_as) == before
