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

    Args:
        component: the stage.
        stage: its name.
        modules: further modules that it calls, beside those of its executor and driver and of the functions that it
            names: those of plug-ins.
        parameters: what decides its result and is none of its own parameters.
    """
    component.with_id(stage.value)
    own = component.exec_properties
    classes = (component.executor_spec.executor_class, component.driver_class)
    starts = {kind.__module__ for kind in classes if kind.__module__.startswith(f"{PACKAGE}.")}
    starts |= {own[name] for name in _MODULES if own.get(name)}
    starts |= {own[name].rpartition(".")[0] for name in _FUNCTIONS if own.get(name)}
    own.update(parameters, source_hash=this_source().hash_of(_SEALING, *modules, *starts))
    return component
