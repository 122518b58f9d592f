"""A production machine-learning system for hourly bike-sharing demand, built on TFX.

`Workspace` is the way in for programs; it is imported when it is asked for, so that `import bike_pipeline` stays fast.
"""

from typing import TYPE_CHECKING, Any

from bike_pipeline.version import __version__

if TYPE_CHECKING:
    from bike_pipeline.workspace import Workspace

__all__ = ["Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Workspace":
        from bike_pipeline.workspace import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
