"""Generate Grafana's dashboards: `python tools/dashboards.py` writes configs/monitoring/grafana/dashboards/*.json.

A test runs it again and compares, has Prometheus' own tool parse every query, and asks of every metric whether somebody
tells it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "monitoring" / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
Query = tuple[str, str]
Panel = timeseries.Panel | stat.Panel | heatmap.Panel | bargauge.Panel | table.Panel
_WIDTH, _HEIGHT = 8, 8


def _query(expression: str, legend: str, *, newest: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().datasource(SOURCE).expr(expression).legend_format(legend)
    return query.instant() if newest else query.range()


def _finished(panel: Panel, title: str, description: str, queries: Sequence[prometheus.Dataquery]) -> Panel:
    panel = panel.title(title).description(description).datasource(SOURCE).span(_WIDTH).height(_HEIGHT)
    for query in queries:
        panel = panel.with_target(query)
    return panel


def lines(title: str, unit: str, description: str, *queries: Query) -> Panel:
    """Return a panel of lines over time; a query is its expression and its legend."""
    return _finished(timeseries.Panel().unit(unit), title, description, [_query(*query) for query in queries])


def number(title: str, unit: str, description: str, *queries: Query) -> Panel:
    """Return a panel with the newest numbers."""
    asked = [_query(*query, newest=True) for query in queries]
    return _finished(stat.Panel().unit(unit), title, description, asked)


def bars(title: str, unit: str, description: str, *queries: Query) -> Panel:
    """Return a panel with a bar for each of the newest numbers."""
    asked = [_query(*query, newest=True) for query in queries]
    return _finished(bargauge.Panel().unit(unit), title, description, asked)


def rows(title: str, description: str, expression: str) -> Panel:
    """Return a table of an expression's labels and values."""
    query = _query(expression, "", newest=True).format(PromQueryFormat.TABLE)
    return _finished(table.Panel(), title, description, [query])


def distribution(title: str, unit: str, description: str, histogram: str) -> Panel:
    """Return a heat map of a histogram."""
    expression = f"sum by (le) (increase({histogram}_bucket[$__rate_interval]))"
    query = _query(expression, "{{le}}").format(PromQueryFormat.HEATMAP)
    axis = heatmap.YAxisConfig().unit(unit)
    return _finished(heatmap.Panel().y_axis(axis).calculate(False), title, description, [query])


def _dashboard(uid: str, title: str, description: str, since: str, panels: Sequence[Panel]) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["bike_pipeline"])
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for panel in panels:
        made = made.with_panel(panel)
    return made


def serving() -> dashboard.Dashboard:
    """Return the dashboard of the model server."""
    runtime = ":tensorflow:serving:runtime_latency_bucket[$__rate_interval]"
    queuing = ":tensorflow:serving:batching_session:queuing_latency_bucket[$__rate_interval]"
    batch = ":tensorflow:serving:batching_session:processed_batch_size"
    loads = "increase(:tensorflow:serving:load_attempt_count[$__rate_interval])"
    return _dashboard(
        "bike-serving", "Bike demand: model server", "Requests, their latency and their errors.", "now-6h",
        [
            lines("Requests", "reqps", "Answered or refused, by model.", ("bike:requests:rate5m", "{{model_name}}")),
            lines("Requests by status", "reqps", "As canonical codes; those of clients are no errors of the server.",
                  ("sum by (status) (rate(:tensorflow:serving:request_count[$__rate_interval]))", "{{status}}")),
            lines("Errors", "percentunit", "Share of requests that fail by the server's own fault; a page above 1 %.",
                  ("bike:request_errors:ratio5m", "{{model_name}}")),
            lines("Latency", "s", "Of a request as a whole; a page above 0.1 s at the 99th percentile.",
                  ("bike:request_latency_seconds:p50_5m", "median"), ("bike:request_latency_seconds:p99_5m", "99 %")),
            lines("Waiting and answering", "µs", "99th percentile: where a request's time goes.",
                  (f"histogram_quantile(0.99, sum by (le) (rate({queuing})))", "waits for a batch"),
                  (f"histogram_quantile(0.99, sum by (le, runtime) (rate({runtime})))", "{{runtime}} answers")),
            lines("Rows in a call of the model", "short", "Mean: more under load.",
                  (f"sum(rate({batch}_sum[$__rate_interval])) / sum(rate({batch}_count[$__rate_interval]))", "rows")),
            rows("Versions", "1 for those that answer.", "bike_version_available"),
            lines("Answers by version", "reqps", "During a promotion two versions answer.",
                  ("bike:answers:rate5m", "version {{version}}")),
            lines("Request log", "short", "Rows a second by what became of them; dropped ones raise a ticket.",
                  ("sum by (outcome) (rate(bike_request_log_rows_total[$__rate_interval]))", "{{outcome}}")),
            lines("Memory", "bytes", "Of the server's process.", ("process_resident_memory_bytes", "{{instance}}")),
            lines("Processor", "short", "Processors in use.",
                  ("rate(process_cpu_seconds_total[$__rate_interval])", "{{instance}}")),
            lines("Loads of versions", "short", "By their outcome.", (f"sum by (status) ({loads})", "{{status}}")),
        ],
    )  # fmt: skip


def model() -> dashboard.Dashboard:
    """Return the dashboard of the model: what it answers, is asked, and what the monitor says of it."""
    return _dashboard(
        "bike-model", "Bike demand: model", "Answers, inputs and the monitor's verdicts.", "now-7d",
        [
            distribution("Answers", "short", "Rentals an hour, how often.", "bike_answered_rentals"),
            lines("Mean answer", "short", "Rentals an hour, by version.",
                  ("bike:answered_rentals:mean1h", "version {{version}}")),
            lines("Width of intervals", "short", "Mean, in rentals.",
                  ("bike:interval_width_rentals:mean1h", "version {{version}}")),
            lines("Rows out of range", "percentunit", "A ticket above 5 %.",
                  ("bike:rows_out_of_range:ratio1h", "{{model_name}}")),
            lines("Values out of range", "short", "By feature, in an hour.",
                  ("sum by (feature) (increase(bike_values_out_of_range_total[1h])) > 0", "{{feature}}")),
            lines("Answers that are no number", "short", "In an hour.",
                  ("sum by (version) (increase(bike_answers_without_number_total[1h]))", "version {{version}}")),
            number("The monitor says", "short", "What all verdicts come to.",
                   ("bike_monitor_status == 1", "{{status}}")),
            rows("What has changed", "And what of it is harmless.", 'bike_monitor_verdict{status=~"changed|harmless"}'),
            bars("Effects", "short", "As multiples of the smallest that matters.",
                 ("topk(12, abs(bike_monitor_effect) / (bike_monitor_minimum > 0))", "{{detector}}: {{subject}}")),
            bars("Harm", "short", "Rentals a day.", ("topk(12, bike_monitor_harm_rentals_per_day)", "{{subject}}")),
            bars("Error by slice", "short", "Against the version's backtest, in rentals an hour; a ticket above 20.",
                 ('bike_monitor_effect{detector="error_by_slice"}', "{{subject}}")),
            lines("Coverage", "percentunit", "By how much the share of labels inside their interval is off.",
                  ('bike_monitor_effect{detector="coverage"}', "{{subject}}")),
            lines("Error", "short", "Mean absolute error of the newest day with labels, in rentals an hour.",
                  ("bike_monitor_error_rentals", "version {{version}}")),
            lines("Labels", "short", "Hours of the window by what is known of them.",
                  ("bike_monitor_labels", "{{state}}")),
            lines("Verdicts", "short", "By kind, those that have changed.",
                  ('bike_monitor_verdicts{status="changed"}', "{{kind}}")),
            number("The monitor looked", "s", "So long ago.", ("time() - bike_monitor_run_timestamp_seconds", "ago")),
            number("Newest label of feedback", "s", "So long ago.",
                   ("time() - bike_feedback_last_label_timestamp_seconds", "ago")),
        ],
    )  # fmt: skip


def pipeline() -> dashboard.Dashboard:
    """Return the dashboard of the pipeline: runs, gates, freshness."""
    return _dashboard(
        "bike-pipeline", "Bike demand: pipeline", "Runs, gates, and how fresh data and model are.", "now-30d",
        [
            number("Newest run", "short", "How it ended.", ("bike_pipeline_run_state == 1", "{{state}}")),
            lines("Runs on record", "short", "By their state.", ("bike_pipeline_runs", "{{state}}")),
            bars("Stages", "s", "When each last worked.", ("bike_pipeline_stage_seconds", "{{stage}}")),
            number("Newest model", "short", "1 if it is blessed.", ("bike_model_blessed", "blessed")),
            rows("Gates that refused", "Of the newest evaluated model.", 'bike_gate_passed{binding="true"} == 0'),
            bars("Error at the gates", "short", "Mean absolute error by slice, in rentals.",
                 ('bike_gate_value{kind="value", metric="mae"}', "{{slicing}} {{slice}}")),
            number("Promoted version", "s", "Pushed so long ago; a ticket after 35 days.",
                   ("time() - bike_promoted_version_pushed_timestamp_seconds", "ago"),
                   ("time() - bike_model_trained_timestamp_seconds", "newest model trained")),
            number("Newest span", "s", "Ingested so long ago; a ticket after 35 days.",
                   ("time() - bike_span_created_timestamp_seconds", "ingested"),
                   ("time() - bike_span_last_hour_timestamp_seconds", "its last hour")),
            rows("Promoted, and served where", "A promoted version that nobody serves is a page.",
                 "bike_promoted_version_info * on (version) group_right () bike_version_available"),
        ],
    )  # fmt: skip


def main(folder: Path = FOLDER) -> None:
    """Write every dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for made in (serving(), model(), pipeline()):
        content = made.build()
        text = json.dumps(content, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        (folder / f"{content.uid}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
