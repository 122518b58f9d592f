"""`bike-pipeline rollout …`, on versions without a model, and logs that are made."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from click.testing import CliRunner

from bike_pipeline import cli
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.model_registry import ModelRegistry
from tests.rollout.delivery.logged import CANDIDATE, STABLE, Logs, base_path


@pytest.fixture
def place(tmp_path, capfd):
    return Place(tmp_path, capfd)


class Place:
    """A workspace with a stable and a validated version."""

    def __init__(self, folder, screen):
        self._screen = screen
        self.folder, self.base, self.logs = folder, base_path(folder), Logs(folder)

    @property
    def registry(self):
        return ModelRegistry(self.base)

    def call(self, *words, **values):
        """Return what a command prints, as a document where it is one; its error is raised."""
        steps = "[{percent: 1, requests: 20, minutes: 0}, {percent: 50, requests: 20, minutes: 0}]"
        chosen = {"workspace": self.folder, "rollout.steps": steps, "rollout.slowest": 1, "rollout.poll_seconds": 0.05}
        options = [f"--set={key}={value}" for key, value in (chosen | values).items()]
        done = CliRunner().invoke(cli.command, ["rollout", *words, *options], standalone_mode=False)
        if done.exception:
            raise done.exception
        # What validates a version has its libraries' words kept apart.
        return done.output + self._screen.readouterr().out

    def ask(self, **how):
        at = dt.datetime.fromisoformat(self.registry.history()[-1].at) + dt.timedelta(microseconds=10)
        label = next(iter(self.registry.deployment().shares))
        self.logs.ask(40, at, track="stable")
        self.logs.ask(40, at, track=label, **how)


def test_a_rollout_from_its_start_to_its_promotion(place):
    assert "shift: version 2 canary at 1 %" in place.call("start", "2", "--reason", "newer rows")
    assert "newer rows; safety 0.00" in place.registry.history()[-1].reason
    assert "no traffic" in place.call("status")
    place.ask()
    told = place.call("status")
    assert "version 2 is canary at 1 %" in told
    assert "continue: " in told
    assert "shadow agreement" in told
    assert "missing" in told
    assert "shift: version 2 canary at 50 %" in place.call("watch", "--once")
    place.ask()
    assert "promote: version 2 stable" in place.call("watch")
    assert place.registry.serving() == CANDIDATE
    assert "no version is being rolled out" in place.call("status")


def test_watch_ends_with_an_error_where_a_version_is_rolled_back(place):
    place.call("start", "2")
    place.ask(failed=20)
    with pytest.raises(BikePipelineError, match="version 2 was rolled back: error share failed: 20 of 40") as failed:
        place.call("watch")
    assert failed.value.exit_code == 20
    assert place.registry.deployment().labels == {"stable": STABLE}


def test_an_approval_is_shown_and_given(place):
    asked = {"rollout.approval": "[50]"}
    place.call("start", "2")
    place.ask()
    assert "waits for approval: 50 % needs an approval" in place.call("watch", "--once", **asked)
    assert "canary at 50 %: canary at 1 % is sound: approved (fine)" in place.call(
        "approve", "--reason", "fine", **asked
    )
    with pytest.raises(BikePipelineError, match="nothing waits for an approval: no traffic"):
        place.call("approve", "--reason", "fine", **asked)


def test_a_person_ends_a_rollout(place):
    place.call("start", "2", "--kind", "challenger")
    assert json.loads(place.call("status", "--json"))["look"]["position"]["share"] == 50.0
    assert "abort: version 2 challenger" in place.call("abort", "--reason", "not needed")
    with pytest.raises(BikePipelineError, match="no version is being rolled out"):
        place.call("abort", "--reason", "again")


def test_every_change_of_the_verdict_is_a_line_of_json(place):
    place.call("start", "2", "--kind", "shadow")
    (line,) = place.call("watch", "--once", "--json").splitlines()
    assert json.loads(line)["verdict"] == "no traffic"


def test_the_history_shows_the_shares(place):
    place.call("start", "2", "--reason", "newer rows")
    done = CliRunner().invoke(cli.command, ["history", f"--set=workspace={place.folder}"], standalone_mode=False)
    assert re.search(r"shift +canary +- +2 +1 % +newer rows", done.output), done.output
