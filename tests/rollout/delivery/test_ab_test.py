"""An A/B test with the real gateway and real servers: users stay on their side, and labels decide it, either way."""

from __future__ import annotations

import csv
import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE
from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases import monitoring, rollout
from tests.rollout.delivery.logged import CANDIDATE, STABLE
from tests.rollout.delivery.test_rolled_back import pytestmark  # noqa: F401 (Envoy, and time)
from tests.rollout.gateway.running import promoted, running_gateway
from tests.serving.running import MODEL, push, simple_model, with_export
from tests.serving.server.asking import wait_until

SCALES = {STABLE: 1.0, CANDIDATE: 1.3}
USERS = [f"user-{number}" for number in range(12)]
REQUIRED = ("yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {v: simple_model(folder / str(v), scale, optional=("day",)) for v, scale in SCALES.items()}
    return {version: with_export(model, folder / f"{version}-export") for version, model in made.items()}


def hours():
    """Return 72 hours of June 2012."""
    with EMBEDDED_FILE.open(newline="") as file:
        return [one for one in csv.DictReader(file) if "2012-06-04" <= one["dteday"] <= "2012-06-06"]


def answer(hour, scale):
    return scale * (int(hour["hr"]) + 100 * float(hour["temp"]))


def version_that_answers(url, user, hour):
    """Ask about an hour as a user; return the version whose answer that is."""
    inputs = {name: float(hour[name]) if "." in hour[name] else int(hour[name]) for name in REQUIRED}
    for name in ("temp", "atemp", "hum", "windspeed"):
        inputs[name] = float(hour[name])
    inputs["day"] = int(hour["dteday"][-2:])
    body = json.dumps({"instances": [inputs]}).encode()
    request = urllib.request.Request(f"{url}:predict", body, {"X-User-Id": user})
    with urllib.request.urlopen(request, timeout=60) as response:
        got = json.load(response)["predictions"][0]
    return min(SCALES, key=lambda version: abs(answer(hour, SCALES[version]) - got))


def labels_of(scale, path):
    """Write the hours' labels: what a model of this scale answers, and a few rentals besides."""
    rows = hours()
    for number, row in enumerate(rows):
        row["casual"], row["cnt"] = "0", str(round(answer(row, scale)) + (1, 4, 2)[number % 3])
        row["registered"] = row["cnt"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("better", [CANDIDATE, STABLE])
def test_users_stay_on_their_side_until_labels_decide(models, tmp_path, better):
    base, workspace = tmp_path / "serving", tmp_path / "workspace"
    push(base, models[STABLE], STABLE)
    registry = promoted(base, STABLE)
    push(base, models[CANDIDATE], CANDIDATE)
    registry.set_validated(CANDIDATE, passed=True, reason="a test")
    steps = "[{percent: 50, requests: 100, minutes: 0}]"
    values = {"workspace": workspace, "serving.base_path": base, "rollout.steps": steps, "rollout.slowest": 1}
    # The machine that runs this is busy: two servers of the same speed may differ by more than twice.
    values |= {"rollout.latency_ratio": 50, "rollout.poll_seconds": 0.2}
    settings = load_settings(None, tuple(f"{name}={value}" for name, value in values.items()))
    with running_gateway(base, workspace) as gateway:
        rollout.start(settings, CANDIDATE, "challenger")
        wait_until(lambda: "challenger 50 %" in gateway.errors.read_text())
        asked = [(user, hour) for hour in hours() for user in USERS]
        with ThreadPoolExecutor(4) as pool:
            versions = list(pool.map(lambda one: version_that_answers(gateway.url, *one), asked))
        sides = {user: {v for (name, _), v in zip(asked, versions, strict=True) if name == user} for user in USERS}
        assert all(len(side) == 1 for side in sides.values()), sides
        assert set.union(*sides.values()) == {STABLE, CANDIDATE}
        wait_until(lambda: len(gateway.lines()) >= len(asked))
        told = [line["bike"]["track"] for line in gateway.lines() if line["url"]["path"].endswith(":predict")]
        assert told.count("challenger") == versions.count(CANDIDATE)
        # Without labels there is nothing to decide by: errors and latency have no 48 minutes yet.
        held = rollout.watch(settings, once=True)
        assert (held.verdict, held.change) == ("hold", None)
        assert "A/B test not judged: absolute error: 0 of 48 pairs" in held.reason

        labels = labels_of(SCALES[better], tmp_path / "labels.csv")
        wait_until(lambda: monitoring.ingest(settings, labels) and joined(settings) >= len(asked))
        stop = threading.Event()
        timer = threading.Timer(120, stop.set)
        timer.start()
        if better == CANDIDATE:
            assert rollout.watch(settings, stop=stop).verdict == "promote"
        else:
            with pytest.raises(ServerError, match="was rolled back"):
                rollout.watch(settings, stop=stop)
        timer.cancel()
        wait_until(lambda: {version_that_answers(gateway.url, user, hours()[0]) for user in USERS} == {better})
    last = ModelRegistry(base / MODEL).history()[-1]
    assert (last.action, ModelRegistry(base / MODEL).serving()) == (
        "promote" if better == CANDIDATE else "abort",
        better,
    )
    # The log tells the size of the difference, on how many hours, and how often such a test errs.
    sign = "-" if better == CANDIDATE else "+"
    words = f"A/B test {'passed' if better == CANDIDATE else 'failed'}: absolute error {sign}"
    assert words in last.reason
    assert "on 72 pairs, evidence +" in last.reason
    assert "error rate 5.0%" in last.reason


def joined(settings):
    """Return how many requests have a label by now."""
    import numpy as np

    columns = monitoring.observation_store(settings).columns(names=("hour",))
    return int(np.isfinite(columns["label"]).sum())
