"""What makes a stage the same one as in an earlier run, beside its inputs: its name, its code, its parameters."""

from __future__ import annotations

from typing import Any, TypeVar

from tfx.dsl.components.base.base_component import BaseComponent

from bike_pipeline.source_hash import PACKAGE, this_source
from bike_pipeline.stages import Stage

Component = TypeVar("Component", bound=BaseComponent)
# What an older release wrote without a seal never answers: its files could not be checked.
_SEALING = f"{PACKAGE}.lineage.records.sealing"
# Parameters of TFX's components that name code.
_MODULES, _FUNCTIONS = ("module_path",), ("preprocessing_fn", "run_fn")


def identified(component: Component, stage: Stage, *modules: str, **parameters: Any) -> Component:
    """Name a stage, and make its code and further parameters part of its cache key and of its record.

    Its code is that of its executor, its driver, the functions that its parameters name, and `modules`: plug-ins.
    """
    component.with_id(stage.value)
    own = component.exec_properties
    classes = (component.executor_spec.executor_class, component.driver_class)
    starts = {kind.__module__ for kind in classes if kind.__module__.startswith(f"{PACKAGE}.")}
    starts |= {own[name] for name in _MODULES if own.get(name)}
    starts |= {own[name].rpartition(".")[0] for name in _FUNCTIONS if own.get(name)}
    own.update(parameters, source_hash=this_source().hash_of(_SEALING, *modules, *starts))
    return component
