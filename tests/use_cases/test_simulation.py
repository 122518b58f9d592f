"""The embedded years week by week; training alone is stood in for, by models whose errors are known."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bike_pipeline.commands.retrain import simulate_command
from bike_pipeline.retraining.simulation.scores import Scores
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases import simulation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return load_settings(None, (f"workspace={tmp_path_factory.mktemp('workspace')}",))


@pytest.fixture(scope="module")
def asked():
    return []


@pytest.fixture(scope="module")
def screen():
    return []


@pytest.fixture(scope="module")
def found(settings, asked, screen):
    real = simulation.simulate

    def scores(_, world, weeks):
        asked.append((world, weeks))
        every = np.arange(world.weeks[-1] + 1)
        hours = np.bincount(world.weeks)
        ages = {week: np.where(every >= week, every - week, 0) for week in weeks}
        return {week: Scores(hours * age, hours * age**2.0, age > 20, 1.0) for week, age in ages.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_scores", scores)
        made = []
        patch.setattr(simulation, "simulate", lambda *a, **more: made.append(real(*a, **more)) or made[0])
        called = CliRunner().invoke(simulate_command, ["--weekly", "--set", f"workspace={settings.workspace}"])
    if called.exception:
        raise called.exception
    screen.append(called.output)
    return made[0]


def test_every_poisoned_upload_is_refused_and_no_sound_one(found):
    assert len(found.poisoned) == 17
    assert all(reason for _, reason in found.poisoned)
    assert found.refused == {}


def test_nothing_is_known_before_it_has_arrived(found, asked):
    ((world, weeks),) = asked
    assert (world.arrived > world.weeks).all()
    # A week whose first upload was poisoned is known later.
    late = world.arrived - world.weeks > 1
    assert {9, 10, 19} <= set(world.weeks[late].tolist())
    assert set(weeks) == {max(week, 8) for week in world.arrived.tolist() if week < len(np.bincount(world.weeks))}


def test_the_policies_are_on_record_with_what_happened(found):
    document = json.loads(found.figures.read_text())
    names = [one["policy"] for one in document["outcomes"]]
    assert names == ["never", "always", "every 14 days", "every 28 days", "drift", "this policy", "oracle"]
    assert document["plan"]["drifts"].keys() == {"fewer commuters", "humidity sensor off", "level up"}
    assert found.picture.read_bytes()[:4] == b"\x89PNG"
    this, oracle = document["outcomes"][-2:]
    assert oracle["mae"] <= this["mae"]
    assert len(oracle["trained"]) <= len(this["trained"])


def test_the_table_names_each_policy_and_what_was_refused(found, screen):
    (output,) = screen
    assert all(one.policy in output for one in found.outcomes)
    assert "poisoned uploads refused: 17 of 17" in output
