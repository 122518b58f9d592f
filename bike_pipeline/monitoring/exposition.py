"""What the monitor and the pipeline found, as files that Prometheus' node_exporter reads (its textfile collector).

A moment is told as seconds since the epoch, so that Prometheus itself knows how old what it tells of has become.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bike_pipeline.monitoring.verdicts import STATUSES, Kind
from bike_pipeline.storage.atomic_files import replace_file

if TYPE_CHECKING:
    from prometheus_client import Metric

    from bike_pipeline.monitoring.report import MonitorReport

FOLDER = "metrics"
MONITOR_FILE, PIPELINE_FILE = "bike_monitor.prom", "bike_pipeline.prom"
_SUBJECT = ("detector", "kind", "subject")


class _Fixed:
    """A collector of prometheus_client with metrics that are known already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics


def write(folder: Path, name: str, metrics: Iterable[Metric]) -> Path:
    """Replace a file of metrics as a whole, so that no scrape reads half of it; return its path.

    Args:
        folder: what the monitor keeps.
        name: `MONITOR_FILE` or `PIPELINE_FILE`.
        metrics: what it tells.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(metrics))
    target = folder / FOLDER / name
    # node_exporter runs as a user of its own.
    replace_file(target, generate_latest(registry), mode=0o644)
    return target


def gauge(
    name: str, text: str, labels: tuple[str, ...] = (), samples: Iterable[tuple[tuple[Any, ...], float]] = ()
) -> Metric:
    """Return a gauge with a sample for each tuple of label values, of the same one the last."""
    from prometheus_client.core import GaugeMetricFamily

    metric = GaugeMetricFamily(name, text, labels=labels)
    for values, value in dict(samples).items():
        metric.add_metric([str(each) for each in values], float(value))
    return metric


def of_report(report: MonitorReport) -> Iterator[Metric]:
    """Yield what a run of the monitor found."""
    told = report.verdicts
    yield gauge("bike_monitor_run_timestamp_seconds", "When the monitor looked.", (), [((), report.at.timestamp())])
    yield gauge("bike_monitor_rows", "Answers in the newest window.", (), [((), report.rows)])
    yield gauge(
        "bike_monitor_labels",
        "Hours of the window by what is known of their label.",
        ("state",),
        _by_name(report.hours),
    )
    yield gauge("bike_monitor_log_lines", "Lines of the request log read.", ("outcome",), _by_name(report.log))
    known = [day for day in report.days if day["mae"] is not None]
    yield gauge(
        "bike_monitor_error_rentals", "Mean absolute error of the newest day with labels.", ("version",),
        [((known[-1]["version"],), known[-1]["mae"])] if known else [],
    )  # fmt: skip
    yield gauge(
        "bike_monitor_status", "What all verdicts come to.", ("status",),
        [((status,), status == report.status) for status in STATUSES],
    )  # fmt: skip
    counts = {(kind, status): 0 for kind in get_args(Kind) for status in STATUSES}
    for verdict in told:
        counts[verdict["meta"]["kind"], verdict["data"]["status"]] += 1
    # With those that there are none of, so that a rule finds a zero and not nothing.
    yield gauge("bike_monitor_verdicts", "Verdicts by kind and status.", ("kind", "status"), counts.items())
    yield gauge(
        "bike_monitor_verdict", "1 for the status of each subject.", (*_SUBJECT, "status"),
        [((*_names(verdict), verdict["data"]["status"]), 1.0) for verdict in told],
    )  # fmt: skip
    for key, text in (("effect", "How large the change is."), ("minimum", "The smallest change that matters.")):
        yield gauge(
            f"bike_monitor_{key}", text, (*_SUBJECT, "unit"),
            [
                ((*_names(verdict), verdict["data"]["unit"]), verdict["data"][key])
                for verdict in told
                if verdict["data"][key] is not None and math.isfinite(verdict["data"][key])
            ],
        )  # fmt: skip
    yield gauge(
        "bike_monitor_harm_rentals_per_day", "What a change costs.", _SUBJECT,
        [
            (_names(verdict), harm["rentals_a_day"])
            for verdict in told
            if (harm := verdict["data"].get("harm")) and harm.get("rentals_a_day") is not None
        ],
    )  # fmt: skip


def _by_name(counts: Mapping[str, int]) -> list[tuple[tuple[str], float]]:
    return [((name,), count) for name, count in counts.items()]


def _names(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(verdict["meta"][name]) for name in _SUBJECT)
