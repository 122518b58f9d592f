"""How a version takes over step by step: the steps, what each must hold, and where its evidence lies."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, Positive, Section

Percent = Annotated[float, Field(gt=0.0, le=100.0)]
Alpha = Annotated[float, Field(gt=0.0, lt=0.5)]


class RolloutStepSettings(Section):
    """A share of the requests, in percent, and the least requests and minutes that it is judged on."""

    percent: Annotated[float, Field(gt=0.0, lt=100.0)]
    requests: Count
    minutes: Annotated[float, Field(ge=0.0)]


class RolloutEvidenceSettings(Section):
    """Where a rollout's evidence is read.

    Attributes:
        request_logs: folders with the request logs of the tracks' servers; empty for those that the gateway starts.
        prometheus: address of Prometheus' HTTP API, which is asked in place of logs; empty for the gateway's access log
            and the request logs.
        track_label: the label of Prometheus' targets that names the track.
        timeout_seconds: how long Prometheus may take for a query.
    """

    request_logs: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    prometheus: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    track_label: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "track"
    timeout_seconds: Positive = 5.0


class RolloutSettings(Section):
    """How `bike-pipeline rollout` goes on, and when it goes back. See docs/rollout.md.

    Attributes:
        automatic: what a run's push starts in place of promoting at once; "" promotes at once.
        steps: of a canary, before the last, which is 100 percent.
        after_shadow: what a shadow that passed becomes: a canary that goes on with the steps, or stable at once.
        challenger_percent: what a challenger answers in an A/B test.
        approval: percents that are reached only when a person approves.
        error_share: share of requests answered with a server's error that is allowed.
        latency_ratio: how many times the stable version's 99th percentile the candidate's may be.
        prediction_tolerance: relative difference from the stable version's answer that counts as the same.
        prediction_share: share of answers that may differ by more.
        miss_share: share of labels that may lie outside of their interval.
        alpha: probability that a candidate exactly at a limit is rolled back, in a step or in a window.
        test_alpha: the same that an A/B test without a difference finds one.
        test_pairs: fewest pairs before an A/B test decides.
        window_seconds: the newest requests are also judged alone, in windows of this length.
        poll_seconds: pause between two looks.
        require_answers: whether a version goes on only where its answers were compared; false: on errors and latency
            alone where no server logs what it answers, such as TF Serving.
        slowest: how many times longer a candidate of safety 0 takes for a step.
    """

    automatic: Literal["", "canary", "shadow", "challenger"] = ""
    steps: tuple[RolloutStepSettings, ...] = (
        RolloutStepSettings(percent=1, requests=200, minutes=10),
        RolloutStepSettings(percent=10, requests=1000, minutes=10),
        RolloutStepSettings(percent=50, requests=2000, minutes=30),
    )
    after_shadow: Literal["canary", "stable"] = "canary"
    challenger_percent: Annotated[float, Field(gt=0.0, lt=100.0)] = 50.0
    approval: tuple[Percent, ...] = ()
    error_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    latency_ratio: Annotated[float, Field(ge=1.0)] = 2.0
    prediction_tolerance: Positive = 0.5
    prediction_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    miss_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    alpha: Alpha = 0.001
    test_alpha: Alpha = 0.05
    test_pairs: Annotated[int, Field(ge=10)] = 48
    window_seconds: Positive = 60.0
    poll_seconds: Annotated[float, Field(ge=0.05, le=60.0)] = 5.0
    require_answers: bool = True
    slowest: Annotated[float, Field(ge=1.0)] = 4.0
    evidence: RolloutEvidenceSettings = RolloutEvidenceSettings()

    def first_percent(self, kind: str) -> float:
        """Return what a rollout of a kind begins with: a shadow may see everything at once, a test keeps its share."""
        return {"shadow": 100.0, "challenger": self.challenger_percent}.get(kind, self.steps[0].percent)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        percents = [step.percent for step in self.steps]
        if not percents or any(second <= first for first, second in pairwise(percents)):
            raise ValueError("steps: name at least one, each with a larger percent than the one before")
        reached = {*percents, self.challenger_percent, 100.0}
        if missing := sorted(set(self.approval) - reached):
            raise ValueError(f"approval: no step reaches {missing[0]:g} percent")
        return self
