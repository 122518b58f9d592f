"""Grafana's dashboards: as generated, with queries that Prometheus reads, of metrics that somebody tells."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from bike_pipeline.data.spans import SpanStore
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.monitoring import exposition
from bike_pipeline.monitoring.pipeline_metrics import of_pipeline
from tests.conftest import ROOT
from tests.lineage.world import Runs
from tests.monitoring.reporting import measured, reported
from tests.monitoring_servers import run

sys.path.insert(0, str(ROOT / "tools"))

import dashboards

CONFIGS = ROOT / "configs" / "monitoring"
FILES = sorted((CONFIGS / "grafana" / "dashboards").glob("*.json"))
# What a query has besides metrics.
WORDS = {"by", "on", "and", "or", "unless", "ignoring", "without", "group_left", "group_right", "bool", "offset"}
# Told by Prometheus itself and by node_exporter, as the test of alerting sees.
OTHERS = {"up", "node_textfile_mtime_seconds"}


def panels():
    """Return (dashboard, panel) of every panel."""
    return [(path.stem, panel) for path in FILES for panel in json.loads(path.read_text())["panels"]]


def queries():
    """Return every query as Prometheus is asked it, by dashboard and panel."""
    return {
        (name, panel["title"], number): target["expr"].replace("$__rate_interval", "1m")
        for name, panel in panels()
        for number, target in enumerate(panel["targets"])
    }


def rules():
    """Return every rule."""
    read = [yaml.safe_load(path.read_text()) for path in sorted((CONFIGS / "rules").glob("*.yml"))]
    return [rule for one in read for group in one["groups"] for rule in group["rules"]]


def metrics_in(expression):
    """Return the metrics that an expression names."""
    bare = re.sub(r'"[^"]*"|\'[^\']*\'', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    # Labels that are grouped or joined by, and functions.
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right) *\([^)]*\)", "", bare)
    names = re.findall(r"[a-zA-Z_:][\w:]*(?! *\()\b(?! *\()", bare)
    return {name for name in names if name not in WORDS and not re.fullmatch(r"e\d+", name)}


def told_by(text):
    """Return the names of all samples that a text of metrics has a place for."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_what_is_shipped_is_what_the_generator_writes(tmp_path):
    dashboards.main(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in FILES]
    for path in FILES:
        assert (tmp_path / path.name).read_text() == path.read_text(), "run: python tools/dashboards.py"


def test_prometheus_can_read_every_query(tmp_path):
    found = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(queries().values())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": found}]}))
    assert f"{len(found)} rules found" in run("promtool", "check", "rules", file)
    file.write_text(file.read_text().replace("sum by", "sum bye", 1))
    with pytest.raises(AssertionError, match="unexpected"):
        run("promtool", "check", "rules", file)


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source():
    assert len(panels()) >= 30
    for name, panel in panels():
        assert panel["title"], name
        assert panel["description"], panel["title"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${source}"} for source in sources), panel["title"]


def test_grafana_finds_dashboards_and_the_source_of_their_default():
    provisioning = CONFIGS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    interval = yaml.safe_load((CONFIGS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", interval)
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "bike.yaml").read_text())["providers"]
    assert provider["type"] == "file"


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(a_bucket{x="by"}[5m])) / 1e6', {"a_bucket"}),
        ("a:b:c > 0.1 and on (x) max(up) == 1", {"a:b:c", "up"}),
        (":tf:count unless on (version) (b == 1)", {":tf:count", "b"}),
        ("time() - c * on (version) group_right () d", {"c", "d"}),
    ],
)
def test_the_metrics_of_an_expression_are_found(expression, names):
    assert metrics_in(expression) == names


@pytest.mark.slow
def test_every_query_and_rule_is_of_metrics_that_are_told(watched_server, tmp_path):
    address = f"http://{watched_server.rest}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(address, timeout=60) as response:
        text = response.read().decode()
    found = reported(measured("data drift", "temp"), harm={"rentals_a_day": 1.0})
    text += exposition.write(tmp_path, exposition.MONITOR_FILE, exposition.of_report(found)).read_text()
    world = Runs(tmp_path / "workspace").two()
    newest = SpanStore(world.settings.store_uri).latest()
    metrics = of_pipeline(Lineage(world.recorder.store), world.settings.serving_path, newest)
    text += exposition.write(tmp_path, exposition.PIPELINE_FILE, metrics).read_text()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = told_by(text) | recorded | OTHERS
    asked = {**queries(), **{rule.get("record") or rule["alert"]: rule["expr"] for rule in rules()}}
    strange = {place: names for place, text in asked.items() if (names := metrics_in(text) - known)}
    # Only an update by labels has that.
    assert set().union(*strange.values()) <= {"bike_feedback_last_label_timestamp_seconds"}, strange
    # What is recorded, somebody looks at; what is told, the page on monitoring names.
    assert recorded <= set().union(*(metrics_in(text) for text in asked.values()))
    page = Path(ROOT / "docs" / "monitoring.md").read_text()
    families = {name for name, _ in re.findall(r"^# TYPE (bike_\S+) (\w+)$", text, re.MULTILINE)}
    assert {name for name in families if f"`{name}`" not in page} == set()
