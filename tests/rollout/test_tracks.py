"""Which versions answer at the same time, and for how many of the requests."""

from __future__ import annotations

import pytest

from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import Deployment
from bike_pipeline.rollout.tracks import tracks
from bike_pipeline.settings import load_settings
from tests.rollout.making import push


@pytest.fixture
def settings(tmp_path):
    return load_settings(None, (f"workspace={tmp_path}",))


def test_where_nothing_was_promoted_the_newest_version_answers_everything(settings, tmp_path):
    assert tracks(None, settings) == {}
    push(tmp_path / "serving" / "bike_demand", 1, 2)
    assert tracks(None, settings) == {"stable": (2, 100.0)}


def test_the_stable_version_has_what_the_others_leave_and_a_shadow_takes_nothing(settings, tmp_path):
    base = tmp_path / "serving" / "bike_demand"
    push(base, 1, 2, 3, 4)
    registry = ModelRegistry(base)
    for version in (1, 2, 3, 4):
        registry.set_validated(version, passed=True, reason="")
    registry.promote(1)
    for version, label, share in ((2, "canary", 5), (3, "challenger", 20), (4, "shadow", 100)):
        registry.shift(version, label, share, "")
    expected = {"stable": (1, 75.0), "canary": (2, 5.0), "challenger": (3, 20.0), "shadow": (4, 100.0)}
    assert tracks(registry.deployment(), settings) == expected
    registry.shift(2, "canary", 0, "")
    assert tracks(registry.deployment(), settings)["canary"] == (2, 0.0)
    registry.abort("canary", "")
    assert [*tracks(registry.deployment(), settings)] == ["stable", "challenger", "shadow"]


def test_a_label_without_a_share_is_only_a_name(settings):
    assert tracks(Deployment({"stable": 1, "canary": 2}), settings) == {"stable": (1, 100.0)}


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (
            Deployment({"stable": 1, "canary": 2, "challenger": 3}, shares={"canary": 60, "challenger": 50}),
            "110 percent",
        ),
        (Deployment({"stable": 1, "best": 2}, shares={"best": 5}), "the label best"),
        (Deployment({"canary": 2}, shares={"canary": 5}), "nothing is stable"),
    ],
)
def test_shares_that_no_gateway_could_route_by_are_refused(settings, deployment, words):
    with pytest.raises(ServerError, match=words):
        tracks(deployment, settings)
