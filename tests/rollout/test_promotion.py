"""What becomes of a version that a run pushed, and the commands of whoever decides otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from bike_pipeline.commands.release import history_command, promote_command, rollback_command
from bike_pipeline.errors import ConfigurationError, ExitCode, ModelError, ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import PUSHED, REFUSED
from bike_pipeline.rollout import promotion, validation
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.settings import load_settings
from tests.rollout.making import push

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def base(tmp_path):
    """A base path in a workspace, whose version 1 serves."""
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).begin()
    push(base, 1)
    ModelRegistry(base).set_validated(1, passed=True, reason="")
    ModelRegistry(base).promote(1)
    return base


@pytest.fixture
def passing(monkeypatch):
    """Every version passes its validation; the versions that were tried."""
    tried = []

    def validate(base_path, version, settings):
        tried.append(version)
        return validation.TrialReport(64, 1.0, 2.0, 300.0, 0.0)

    monkeypatch.setattr(validation, "validate", validate)
    return tried


@pytest.fixture
def failing(monkeypatch):
    """No version passes."""

    def validate(base_path, version, settings):
        raise ServerError("it is too slow")

    monkeypatch.setattr(validation, "validate", validate)


def settings_of(base, *assignments):
    return load_settings(assignments=(f"workspace={base.parents[1]}", *assignments))


def targets_of(base, *assignments):
    return RolloutTargets.of(settings_of(base, *(f"serving.promotion.{text}" for text in assignments)))


def test_a_run_validates_and_promotes_what_it_pushed(base, passing):
    push(base, 2)
    assert promotion.after_push(base, 2, targets_of(base)) == ""
    assert passing == [2]
    assert ModelRegistry(base).serving() == 2
    assert "2.0 ms" in ModelRegistry(base).history()[-2].reason
    # A run that pushes the same once more tries it no more.
    assert promotion.after_push(base, 2, targets_of(base)) == ""
    assert passing == [2]


def test_a_version_that_does_not_pass_leaves_what_serves(base, failing):
    push(base, 2)
    for _ in range(2):
        with pytest.raises(ServerError, match="too slow"):
            promotion.after_push(base, 2, targets_of(base))
    assert ModelRegistry(base).serving() == 1
    assert ModelRegistry(base).deployment().status(2) == REFUSED
    assert "too slow" in ModelRegistry(base).history()[-1].reason


def test_a_first_version_that_does_not_pass_does_not_serve(tmp_path, failing):
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).begin()
    push(base, 1)
    with pytest.raises(ServerError):
        promotion.after_push(base, 1, targets_of(base))
    assert ModelRegistry(base).serving() is None


def test_where_a_person_decides_the_version_waits(base, passing):
    push(base, 2)
    assert "bike-pipeline promote" in promotion.after_push(base, 2, targets_of(base, "automatic=false"))
    assert (passing, ModelRegistry(base).serving()) == ([], 1)
    assert ModelRegistry(base).deployment().status(2) == PUSHED


def test_without_validation_a_version_is_promoted_as_it_is(base, failing):
    push(base, 2)
    assert promotion.after_push(base, 2, targets_of(base, "validation.enabled=false")) == ""
    assert ModelRegistry(base).serving() == 2


def test_no_run_promotes_again_what_somebody_went_back_from(base, passing):
    push(base, 2)
    promotion.after_push(base, 2, targets_of(base))
    ModelRegistry(base).rollback()
    assert "somebody went back" in promotion.after_push(base, 2, targets_of(base))
    assert ModelRegistry(base).serving() == 1
    # Nor the same model under another number.
    source = base.parent / "model-2"
    ModelRegistry(base).add(source, 3, ModelRegistry(base).push_record(2))
    assert "somebody went back" in promotion.after_push(base, 3, targets_of(base))
    # A person may.
    assert promotion.promote(base, 2, targets_of(base)).from_version == 1


def test_no_run_promotes_again_what_somebody_replaced(base, passing):
    push(base, 2)
    promotion.after_push(base, 2, targets_of(base))
    promotion.promote(base, 1, targets_of(base), reason="I know better")
    assert "somebody went back" in promotion.after_push(base, 2, targets_of(base))
    assert ModelRegistry(base).serving() == 1


def test_a_damaged_version_is_not_even_tried(base, passing):
    push(base, 2)
    (base / "2" / "saved_model.pb").write_text("somebody else's", encoding="utf-8")
    with pytest.raises(ModelError, match="not those that were pushed"):
        promotion.after_push(base, 2, targets_of(base))
    assert (passing, ModelRegistry(base).serving()) == ([], 1)


def test_rollout_targets_come_back_from_their_text(base):
    targets = targets_of(base, "servers=[10.0.0.1:8500, tf-serving:8500]", "keep_loaded=3")
    assert RolloutTargets.model_validate_json(targets.to_json()) == targets


def test_a_polled_models_config_says_what_is_promoted(base, passing, tmp_path):
    file = tmp_path / "tf" / "models.config"
    push(base, 2, 3)
    for version in (2, 3):
        promotion.promote(base, version, targets_of(base, f"models_config={file}"))

    def told():
        config = text_format.Parse(file.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
        (model,) = config.model_config_list.config
        return list(model.model_version_policy.specific.versions), dict(model.version_labels), model.base_path

    assert told() == ([2, 3], {"stable": 3}, "/models/bike_demand")
    promotion.rollback(base, targets_of(base, f"models_config={file}"))
    # What was left is let go: a request that names no version gets the newest that is loaded.
    assert told() == ([1, 2], {"stable": 2}, "/models/bike_demand")
    assert [path.name for path in file.parent.iterdir()] == ["models.config"]


def test_an_older_version_that_is_promoted_stands_alone(base, passing):
    push(base, 2)
    promotion.promote(base, 2, targets_of(base))
    promotion.promote(base, 1, targets_of(base))
    assert promotion.served_versions(base, 1).versions == (1,)


@pytest.fixture
def call(base, capfd):
    """Call a command in the workspace of `base`, or of another base path; return what it printed."""

    def called(command, *arguments, other=None):
        options = ["--set", f"workspace={(other or base).parents[1]}"]
        command.main([*options, *arguments], standalone_mode=False)
        return capfd.readouterr().out

    return called


def test_the_commands_promote_go_back_and_tell(base, passing, call):
    push(base, 2)
    assert call(promote_command) == "version 2 is stable now instead of version 1\n"
    assert call(promote_command, "2") == "version 2 is stable already\n"
    assert json.loads(call(promote_command, "1", "--json", "--reason", "better"))["to_version"] == 1
    told = json.loads(call(rollback_command, "--reason", "worse", "--json"))
    assert (told["from_version"], told["to_version"], told["reason"]) == (1, 2, "worse")
    assert call(rollback_command, "--to", "1") == "version 1 is stable again, version 2 is not\n"
    table = call(history_command)
    assert [line.split()[0] for line in table.splitlines()[1:] if line[:1].isdigit()] == [
        str(change.revision) for change in ModelRegistry(base).history()
    ]
    changes = json.loads(call(history_command, "--json"))
    assert [change["action"] for change in changes][-3:] == ["promote", "rollback", "rollback"]


def test_the_commands_refuse_what_cannot_be(base, passing, tmp_path, call):
    with pytest.raises(ModelError, match="version 9 is not there"):
        call(promote_command, "9")
    with pytest.raises(ModelError, match="nothing to go back to"):
        call(rollback_command)
    with pytest.raises(ConfigurationError, match="no label"):
        call(promote_command, "1", "--label", "1st")
    empty = tmp_path / "other" / "serving" / "bike_demand"
    with pytest.raises(ModelError, match="nothing is pushed"):
        call(promote_command, other=empty)
    assert call(history_command, other=empty) == "no promotion is recorded yet\n"
    assert json.loads(call(history_command, "--json", other=empty)) == []


def test_a_rollback_loads_nothing_heavy(base, passing):
    push(base, 2)
    promotion.promote(base, 2, targets_of(base))
    code = (
        "import sys\nfrom bike_pipeline.cli import command\n"
        "command.main(sys.argv[1:], standalone_mode=False)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    arguments = ["rollback", "--set", f"workspace={base.parents[1]}", "--reason", "quickly"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    said, modules = done.stdout.splitlines()
    assert said == "version 1 is stable again, version 2 is not"
    heavy = {"tensorflow", "grpc", "numpy", "pandas", "keras", "ml_metadata", "aiohttp", "fsspec", "rich"}
    assert set(modules.split()) & heavy == set()


def test_a_server_that_is_not_there_is_an_error_and_the_promotion_stands(base, passing):
    push(base, 2)
    targets = targets_of(base, "servers=['127.0.0.1:1']", "server_seconds=1")
    with pytest.raises(ServerError, match="was not told") as error:
        promotion.promote(base, 2, targets)
    assert (error.value.where, error.value.exit_code) == ("127.0.0.1:1", ExitCode.SERVER)
    assert ModelRegistry(base).serving() == 2
