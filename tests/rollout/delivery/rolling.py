"""A rollout over made logs, whose clock a test sets."""

from __future__ import annotations

import datetime as dt

import pytest

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.rollout import promotion
from bike_pipeline.rollout.delivery.controller import Delivery
from bike_pipeline.rollout.delivery.log_evidence import LogEvidence
from bike_pipeline.rollout.delivery.position import position_of
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.settings import load_settings
from tests.rollout.delivery.logged import CANDIDATE, MODEL, QUICK, Logs, base_path


@pytest.fixture
def rolling(tmp_path):
    return Rolling(tmp_path)


class Rolling:
    """A rollout whose clock stands 30 seconds behind its last shift."""

    def __init__(self, folder):
        self.base, self.logs = base_path(folder), Logs(folder)
        self.targets = RolloutTargets.of(load_settings())
        self.later = dt.timedelta(seconds=30)

    @property
    def registry(self):
        return ModelRegistry(self.base)

    def now(self):
        return position_of(self.registry).since + self.later

    def start(self, label="canary", percent=1):
        return promotion.start(self.base, CANDIDATE, label, percent, self.targets, "tried")

    def delivery(self, settings=QUICK, now=None):
        reader = LogEvidence(self.logs.gateway, [self.logs.requests], MODEL, settings.prediction_tolerance)
        return Delivery(self.base, self.targets, settings, reader, lambda _: 0.0, now or self.now)

    def ask(self, count=60, **how):
        """Ask both tracks since the last shift."""
        since = position_of(self.registry).since + dt.timedelta(milliseconds=1)
        self.logs.ask(count, since, track="stable")
        self.logs.ask(count, since, track=position_of(self.registry).label, **how)
