"""The shipped configuration, as Prometheus' own tools read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from bike_pipeline.monitoring.verdicts import Kind
from tests.monitoring_servers import run

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "monitoring"
RULES = sorted((CONFIGS / "rules").glob("*.yml"))
RULE_TESTS = sorted((Path(__file__).parent / "rules").glob("*.yml"))


def alerts():
    """Return every alert of every rule file, by name."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_prometheus_takes_its_configuration():
    assert "SUCCESS" in run("promtool", "check", "config", CONFIGS / "prometheus.yml")


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules_fire_when_they_should_and_not_before(path):
    run("promtool", "test", "rules", path)


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert "for" in rule, name


def test_every_alert_has_a_test_in_which_it_fires():
    fired = set()
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            fired |= {one["alertname"] for one in test.get("alert_rule_test", []) if one["exp_alerts"]}
    assert fired == set(alerts())


def test_the_runbook_has_one_section_for_each_alert():
    told = re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(alerts())


def test_a_change_of_any_kind_that_any_detector_finds_has_an_alert():
    expressions = " ".join(rule["expr"] for rule in alerts().values())
    assert set(re.findall(r'kind="([^"]+)"', expressions)) == set(get_args(Kind))
    detectors = " ".join(path.read_text() for path in (ROOT / "bike_pipeline/monitoring/detectors").glob("*.py"))
    for name in re.findall(r'detector!?="([^"]+)"', expressions):
        assert f'"{name}", "' in detectors, name


def test_alertmanager_takes_its_configuration():
    assert "SUCCESS" in run("amtool", "check-config", CONFIGS / "alertmanager.yml")


@pytest.mark.parametrize(
    ("name", "receivers"),
    [
        ("ServerDown", "on-call"),
        ("DataFault", "on-call"),
        ("DataDrift", "tickets"),
        ("ConceptDrift", "retraining,tickets"),
    ],
)
def test_an_alert_reaches_whom_it_should(name, receivers):
    labels = [f"{key}={value}" for key, value in {"alertname": name, **alerts()[name]["labels"]}.items()]
    config = f"--config.file={CONFIGS / 'alertmanager.yml'}"
    run("amtool", "config", "routes", "test", config, f"--verify.receivers={receivers}", *labels)


def test_alerts_hold_back_only_alerts_that_there_are():
    shipped = yaml.safe_load((CONFIGS / "alertmanager.yml").read_text())
    matchers = [m for rule in shipped["inhibit_rules"] for m in rule["source_matchers"] + rule["target_matchers"]]
    named = {name for matcher in matchers for name in re.search(r'"(.+)"', matcher)[1].split("|")}
    assert named <= set(alerts())


def test_only_what_is_to_be_mended_now_wakes_somebody():
    assert {name for name, rule in alerts().items() if rule["labels"]["severity"] == "page"} == {
        "ServerDown", "NoVersionServed", "RequestsSlow", "RequestsFail", "DataFault", "PromotedVersionNotServed"
    }  # fmt: skip
