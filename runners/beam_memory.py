"""Lets Beam remember what it finds out about its own classes over and over while it builds and runs a pipeline.

Beam inspects the signatures of every DoFn's methods some dozen times each, and builds an argument parser over all its
options for each look at one group of them: together about a fifth of what Transform and Evaluator cost on few rows.
Signatures of methods do not change while a process runs, and views of the same options share their values, so the first
answer stands for all that follow. Nothing is changed outside of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any


@contextmanager
def remembered() -> Iterator[None]:
    """Remember signatures of methods and views of options while the block runs."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms import core

    inspect, view_as = core.get_function_args_defaults, PipelineOptions.view_as
    core.get_function_args_defaults = _remembering_signatures(inspect)
    PipelineOptions.view_as = _remembering_views(view_as)
    try:
        yield
    finally:
        core.get_function_args_defaults = inspect
        PipelineOptions.view_as = view_as


def _remembering_signatures(inspect: Callable[[Any], tuple[list[str], list[Any]]]) -> Callable[[Any], Any]:
    known: dict[Any, tuple[list[str], list[Any]]] = {}

    def arguments_and_defaults(function: Any) -> tuple[list[str], list[Any]]:
        # Functions and lambdas may carry attributes that say otherwise; a method's signature is that of its class.
        if not isinstance(function, MethodType):
            return inspect(function)
        found = known.get(function.__func__)
        if found is None:
            found = known[function.__func__] = inspect(function)
        return list(found[0]), list(found[1])

    return arguments_and_defaults


def _remembering_views(view_as: Callable[[Any, type], Any]) -> Callable[[Any, type], Any]:
    # The options are held with their views, so that their id is not given to others.
    known: dict[tuple[int, type], tuple[Any, Any]] = {}

    def view(options: Any, kind: type) -> Any:
        _, found = known.get((id(options), kind), (None, None))
        # A view shares the dictionary of values; where the options have got another one, it is a view of the past.
        if found is None or found._all_options is not options._all_options:  # noqa: SLF001 - what Beam shares
            found = view_as(options, kind)
            known[id(options), kind] = options, found
        return found

    return view
