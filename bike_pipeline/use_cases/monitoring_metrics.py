"""What the monitor and the pipeline found, written for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@dataclass(frozen=True)
class Exposed:
    """The files that were written.

    Attributes:
        pipeline: runs, gates, spans and versions.
        monitor: what the monitor found when it looked last; None if it never did.
    """

    pipeline: Path
    monitor: Path | None


def write_metrics(settings: Settings, *, cluster: bool = False) -> Exposed:
    """Write what is on record of the pipeline, and what the monitor found last, as files that node_exporter reads.

    Args:
        settings: the settings.
        cluster: whether the records are those of `kubeflow.metadata`.

    Raises:
        MetadataError: the metadata store is gone or cannot be read.
        DataError: the span store is damaged.
        MonitoringError: the monitor's report was changed since it was written.
        StorageError: a file cannot be written.
    """
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.model_registry import signing
    from bike_pipeline.monitoring import exposition, report
    from bike_pipeline.monitoring.pipeline_metrics import of_pipeline
    from bike_pipeline.use_cases.lineage import lineage_of

    signing.use(settings)
    spans = SpanStore(settings.store_uri)
    newest = spans.latest() if spans.spans() else None
    serving_path = "" if cluster else settings.serving_path
    metrics = list(of_pipeline(lineage_of(settings, cluster), serving_path, newest))
    kept = settings.monitoring_path
    found = report.newest(kept)
    monitor = exposition.write(kept, exposition.MONITOR_FILE, exposition.of_report(found)) if found else None
    return Exposed(exposition.write(kept, exposition.PIPELINE_FILE, metrics), monitor)
