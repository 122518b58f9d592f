"""Which versions of a model are meant to be served, as TF Serving's ServableVersionPolicy says it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.serving.statuses import invalid


@dataclass(frozen=True)
class ModelConfig:
    """What is configured for one model.

    Attributes:
        policy: which versions are served; `promoted` is resolved into `specific` at every look (see `resolved`).
        latest: how many of the newest, with the policy `latest`.
        specific: which ones, with the policy `specific`.
        labels: versions by label.
    """

    name: str
    base_path: Path
    policy: Literal["promoted", "latest", "all", "specific"] = "latest"
    latest: int = 1
    specific: Sequence[int] = ()
    labels: Mapping[str, int] = field(default_factory=dict)


def resolved(config: ModelConfig) -> ModelConfig:
    """Return what a configuration means now; reads the deployment's state if the policy is `promoted`.

    Nothing serves then but what has a label, and a request that names no version gets the one that is `stable`.
    """
    if config.policy != "promoted":
        return config
    registry = ModelRegistry(config.base_path)
    found = registry.deployment()
    if found is None:
        promoted = registry.serving()
        return replace(config, policy="specific", specific=() if promoted is None else (promoted,))
    return replace(config, policy="specific", specific=tuple(found.labels.values()), labels=dict(found.labels))


def wanted(config: ModelConfig, present: Mapping[int, Path]) -> dict[int, Path]:
    """Return the versions that are meant to be served, of those that are there."""
    numbers = sorted(present)
    if config.policy == "latest":
        numbers = numbers[-config.latest :]
    elif config.policy == "specific":
        numbers = [number for number in numbers if number in set(config.specific)]
    return {number: present[number] for number in numbers}


def absent(config: ModelConfig, present: Mapping[int, Path]) -> str:
    """Say which versions are meant to be served and not there; empty if none is missing."""
    if not present:
        return f"model {config.name} has no version in {config.base_path}"
    missing = sorted(set(config.specific) - present.keys()) if config.policy == "specific" else []
    return f"model {config.name} has no version {', '.join(map(str, missing))}" if missing else ""


def folders(base_path: Path) -> dict[int, Path]:
    """Return a model's version folders by number; a name may have leading zeros, and the first of two names counts."""
    try:
        entries = sorted(base_path.iterdir(), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    numbered = {int(path.name): path for path in entries if re.fullmatch("[0-9]+", path.name) and path.is_dir()}
    return {number: path for number, path in numbered.items() if number < 1 << 63}


def from_proto(proto: Any) -> ModelConfig:
    """Return a `tensorflow.serving.ModelConfig` as ours; which folders it may name, the guard has decided before."""
    if not proto.name:
        raise invalid("Invalid ModelConfig: a model has no name")
    if proto.model_platform not in ("", "tensorflow"):
        raise invalid(f"model {proto.name}: this server has no platform {proto.model_platform}, only tensorflow")
    if not proto.base_path.startswith("/"):
        raise invalid(f"model {proto.name}: the base path must be an absolute local folder")
    policy = proto.model_version_policy
    kind: Any = policy.WhichOneof("policy_choice") or "latest"
    versions = tuple(policy.specific.versions)
    if kind == "specific" and not versions:
        raise invalid(f"model {proto.name}: the specific version policy names no version")
    # Zero stands for the default, which is one.
    count = policy.latest.num_versions or 1
    return ModelConfig(proto.name, Path(proto.base_path), kind, count, versions, dict(proto.version_labels))
