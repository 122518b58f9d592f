"""The way in for programs: a workspace whose methods are the use cases.

from bike_pipeline import Workspace
Workspace("workspace").promote()
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.settings import Settings, load_settings
from bike_pipeline.use_cases import cluster, data, doctor, promotion

if TYPE_CHECKING:
    from bike_pipeline.data.ingest import IngestResult
    from bike_pipeline.data.span_version import SpanVersion
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.runners.kubeflow.cluster_records import Schedule
    from bike_pipeline.runners.kubeflow.definition import Target
    from bike_pipeline.use_cases.cluster import ScheduledVersion, Submission


class Workspace:
    """A folder with everything that the product writes, and the settings that it is worked with.

    Attributes:
        settings: the settings; every use case takes them.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        config: Path | str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the settings.

        Args:
            folder: the workspace; None is what the settings say.
            config: settings laid over configs/base.yaml, as `--config` does.
            values: single settings by their path, such as {"training.epochs": 20}, as `--set` does.

        Raises:
            ConfigurationError: a setting is unknown or wrong, or the file is missing.
        """
        chosen = dict(values or {}) | ({} if folder is None else {"workspace": str(folder)})
        # JSON is YAML, so a value stays what it is.
        assignments = tuple(f"{path}={json.dumps(value)}" for path, value in chosen.items())
        self.settings: Settings = load_settings(config, assignments)

    def promote(self, version: int | None = None, label: str = "stable", reason: str = "") -> Change | None:
        """See `use_cases.promotion.promote`."""
        return promotion.promote(self.settings, version, label, reason)

    def rollback(self, to: int | None = None, label: str = "stable", reason: str = "") -> Change:
        """See `use_cases.promotion.rollback`."""
        return promotion.rollback(self.settings, to, label, reason)

    def history(self) -> list[Change]:
        """See `use_cases.promotion.history`."""
        return promotion.history(self.settings)

    def ingest(self, source: Path | str, query: str | None = None, span: int | None = None) -> IngestResult:
        """See `use_cases.data.ingest`."""
        return data.ingest(self.settings, str(source), query, span)

    def spans(self) -> list[SpanVersion]:
        """Return every version of every span, rising."""
        return data.versions(self.settings)

    def verify_data(self, span: int | None = None, version: int | None = None) -> list[SpanVersion]:
        """See `use_cases.data.verify`."""
        return data.verify(self.settings, span, version)

    def doctor(self, required: Collection[str] = ()) -> list[doctor.Check]:
        """See `use_cases.doctor.examine`."""
        return doctor.examine(self.settings, required=required)

    def compile(self, target: Target = "kubeflow", output: Path | None = None) -> Path:
        """See `use_cases.cluster.compile_pipeline`."""
        return cluster.compile_pipeline(self.settings, target, output)

    def submit(
        self,
        spec: Path | None = None,
        *,
        name: str = "",
        parameters: Mapping[str, Any] | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Submission:
        """See `use_cases.cluster.submit`; without a spec the pipeline is compiled."""
        spec = spec or self.compile()
        return cluster.submit(self.settings, spec, name=name, parameters=parameters, wait=wait, timeout=timeout)

    def schedule(
        self, spec: Path | None = None, *, cron: str = "", every: str = "", name: str = "", replace: bool = False
    ) -> ScheduledVersion:
        """See `use_cases.cluster.schedule`; without a spec the pipeline is compiled."""
        spec = spec or self.compile()
        return cluster.schedule(self.settings, spec, cron=cron, every=every, name=name, replace=replace)

    def schedules(self) -> list[Schedule]:
        """Return the recurring runs of the pipeline's experiment on Kubeflow Pipelines."""
        return cluster.schedules(self.settings)
