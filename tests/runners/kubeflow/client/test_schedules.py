"""Recurring runs are made, listed, switched, replaced and deleted."""

from __future__ import annotations

import json

import pytest

from bike_pipeline.commands.cluster import schedule_command
from bike_pipeline.errors import ClusterError, ConfigurationError


def test_schedules_are_made_listed_switched_replaced_and_deleted(call, server, spec):
    assert "no schedules" in call(schedule_command, "list")
    assert "every 21600 s" in call(schedule_command, "create", "--spec", spec, "--every", "6h")
    with pytest.raises(ConfigurationError, match="already"):
        call(schedule_command, "create", "--spec", spec, "--cron", "0 0 3 * * *")
    call(schedule_command, "create", "--spec", spec, "--cron", "0 0 3 * * *", "--replace")
    (made,) = server.recurring.values()
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["no_catchup"], str(made["max_concurrency"]), made["mode"]) == (True, "1", "ENABLE")
    for number in range(4):
        call(schedule_command, "create", "--spec", spec, "--every", "1d", "--name", f"more-{number}")
    listed = json.loads(call(schedule_command, "list", "--json"))
    assert len(listed) == 5
    assert listed[0] | {"schedule_id": "", "version_id": ""} == {
        "schedule_id": "",
        "name": "bike-demand",
        "trigger": "cron 0 0 3 * * *",
        "enabled": True,
        "version_id": "",
    }
    call(schedule_command, "disable", "bike-demand")
    assert "disabled" in call(schedule_command, "list")
    call(schedule_command, "enable", "bike-demand")
    assert "disabled" not in call(schedule_command, "list")
    call(schedule_command, "delete", "bike-demand")
    assert len(json.loads(call(schedule_command, "list", "--json"))) == 4
    with pytest.raises(ConfigurationError, match="no schedule 'bike-demand'"):
        call(schedule_command, "delete", "bike-demand")


def test_a_replaced_schedule_stays_where_the_new_one_is_refused(call, server, spec):
    call(schedule_command, "create", "--spec", spec, "--every", "6h")
    server.fail = {"POST /recurringruns": (500, "no")}
    with pytest.raises(ClusterError):
        call(schedule_command, "create", "--spec", spec, "--every", "2h", "--replace")
    ((_, kept),) = server.recurring.items()
    assert str(kept["trigger"]["periodic_schedule"]["interval_second"]) == "21600"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cron", "0 3 * * *"), "six, seconds first.*Write '0 0 3"),
        (("--every", "10s"), "a minute or more"),
        (("--every", "often"), "not an interval"),
    ],
)
def test_times_that_the_controller_would_misread_are_refused_before_anything_is_sent(call, server, arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        call(schedule_command, "create", *arguments)
    assert server.calls == []
