"""What is promoted: one truth, changed whole or not at all, with a history that says who, when and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bike_pipeline.errors import BusyError, ModelError, StorageError
from bike_pipeline.model_registry import ModelRegistry, deployment
from bike_pipeline.model_registry.deployment import PROMOTED, PUSHED, REFUSED, REPLACED, ROLLED_BACK, VALIDATED
from bike_pipeline.storage.files import open_files
from tests.privileges import modes_count
from tests.rollout.making import push

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def base(tmp_path):
    """A base path with the versions 1 and 2, whose state was never recorded."""
    base = tmp_path / "serving" / "bike_demand"
    push(base, 1, 2)
    return base


def promoted(base, *versions):
    """Validate and promote versions, one after the other."""
    for version in versions:
        ModelRegistry(base).set_validated(version, passed=True, reason="")
        ModelRegistry(base).promote(version, reason=f"because of {version}")


def statuses(base):
    return dict(ModelRegistry(base).deployment().statuses)


def labels(base):
    deployment = ModelRegistry(base).deployment()
    return dict(deployment.labels) if deployment else {}


def test_without_a_record_the_newest_version_serves(base, tmp_path):
    assert ModelRegistry(base).serving() == 2
    assert labels(base) == {}
    assert ModelRegistry(base).history() == []
    assert ModelRegistry(tmp_path / "nothing").serving() is None


def test_a_pushed_version_does_not_serve_before_it_is_promoted(base):
    ModelRegistry(base).begin()
    push(base, 3)
    assert ModelRegistry(base).serving() == 2
    assert ModelRegistry(base).deployment().status(3) == PUSHED
    promoted(base, 3)
    assert ModelRegistry(base).serving() == 3
    assert statuses(base) == {2: REPLACED, 3: PROMOTED}


def test_where_nothing_was_pushed_before_nothing_serves_before_the_first_promotion(tmp_path):
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).begin()
    push(base, 7)
    assert ModelRegistry(base).serving() is None
    promoted(base, 7)
    assert ModelRegistry(base).serving() == 7


def test_rollback_goes_back_step_by_step(base):
    push(base, 3)
    promoted(base, 1, 2, 3)
    assert ModelRegistry(base).rollback(reason="too many rentals").to_version == 2
    assert statuses(base) == {1: REPLACED, 2: PROMOTED, 3: ROLLED_BACK}
    assert ModelRegistry(base).rollback().to_version == 1
    assert ModelRegistry(base).serving() == 1


def test_rollback_to_a_named_version_forgets_what_came_after_it(base):
    push(base, 3, 4, 5)
    promoted(base, 1, 2, 3, 4)
    assert ModelRegistry(base).rollback(to=2).from_version == 4
    assert ModelRegistry(base).rollback().to_version == 1


def test_rollback_passes_over_versions_that_are_gone(base):
    push(base, 3)
    promoted(base, 1, 2, 3)
    (base / "2").rename(base.parent / "elsewhere")
    assert ModelRegistry(base).rollback().to_version == 1


def test_rollback_without_a_predecessor_says_so_and_changes_nothing(tmp_path):
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).begin()
    push(base, 1)
    with pytest.raises(ModelError, match="nothing to go back to"):
        ModelRegistry(base).rollback()
    promoted(base, 1)
    before = (base / deployment.STATE_FILE).read_bytes()
    with pytest.raises(ModelError, match="nothing to go back to"):
        ModelRegistry(base).rollback()
    assert (base / deployment.STATE_FILE).read_bytes() == before
    with pytest.raises(ModelError, match="has the label stable now"):
        ModelRegistry(base).rollback(to=1)


def test_only_a_validated_version_is_promoted(base):
    ModelRegistry(base).begin()
    push(base, 3)
    with pytest.raises(ModelError, match="version 3 is pushed, not validated"):
        ModelRegistry(base).promote(3)
    ModelRegistry(base).set_validated(3, passed=False, reason="too slow")
    with pytest.raises(ModelError, match="version 3 is refused, not validated"):
        ModelRegistry(base).promote(3)
    with pytest.raises(ModelError, match="never promoted"):
        ModelRegistry(base).rollback(to=3)
    assert (statuses(base)[3], ModelRegistry(base).serving()) == (REFUSED, 2)


def test_an_unknown_or_damaged_version_is_never_promoted(base):
    promoted(base, 1)
    with pytest.raises(ModelError, match=r"version 9 is not there.*choose one of 1, 2|version 9 is not there"):
        ModelRegistry(base).promote(9)
    (base / "2" / "saved_model.pb").write_text("somebody else's", encoding="utf-8")
    for change in (ModelRegistry.promote, ModelRegistry.rollback):
        with pytest.raises(ModelError, match="not those that were pushed"):
            change(ModelRegistry(base), 2)
    assert ModelRegistry(base).serving() == 1


def test_promoting_what_is_promoted_changes_nothing(base):
    promoted(base, 2)
    before = ModelRegistry(base).history()
    assert ModelRegistry(base).promote(2) is None
    assert ModelRegistry(base).history() == before


def test_other_labels_stand_beside_stable(base):
    promoted(base, 1)
    ModelRegistry(base).set_validated(2, passed=True, reason="")
    ModelRegistry(base).promote(2, label="canary")
    assert labels(base) == {"stable": 1, "canary": 2}
    assert ModelRegistry(base).serving() == 1
    assert statuses(base)[2] == VALIDATED


def test_the_history_says_who_when_from_what_to_what_and_why(base):
    promoted(base, 1)
    ModelRegistry(base).rollback(to=2, reason="demand was overestimated")
    history = ModelRegistry(base).history()
    assert [(c.action, c.from_version, c.to_version) for c in history] == [
        ("begin", None, 2), ("validate", None, 1), ("promote", 2, 1), ("rollback", 1, 2),
    ]  # fmt: skip
    assert [change.revision for change in history] == [1, 2, 3, 4]
    assert history[-1].reason == "demand was overestimated"
    assert all("@" in change.who and change.at.endswith("+00:00") for change in history)


def test_the_log_only_ever_grows(base):
    promoted(base, 1)
    before = (base / deployment.AUDIT_FILE).read_bytes()
    promoted(base, 2)
    ModelRegistry(base).rollback()
    assert (base / deployment.AUDIT_FILE).read_bytes().startswith(before)


def test_what_a_later_release_wrote_beside_is_kept(base):
    promoted(base, 1)
    found = json.loads((base / deployment.STATE_FILE).read_text(encoding="utf-8"))
    found["routing"] = {"canary": {"share": 0.05}}
    (base / deployment.STATE_FILE).write_text(json.dumps(found), encoding="utf-8")
    promoted(base, 2)
    after = json.loads((base / deployment.STATE_FILE).read_text(encoding="utf-8"))
    assert after["routing"] == {"canary": {"share": 0.05}}
    assert after["labels"] == {"stable": 2}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "labels": 3, "versions": {}, "previous": {}, "change": {}}'],
    ids=["empty", "cut", "list", "bare", "wrong"],
)
def test_a_damaged_file_is_an_error_and_the_log_gives_it_again(base, content):
    promoted(base, 1, 2)
    ModelRegistry(base).rollback()
    good = ModelRegistry(base).deployment()
    (base / deployment.STATE_FILE).write_bytes(content)
    for question in (ModelRegistry.serving, ModelRegistry.deployment, ModelRegistry.rollback):
        with pytest.raises(StorageError, match="damaged") as error:
            question(ModelRegistry(base))
        assert "move it away" in error.value.fix
    assert len(ModelRegistry(base).history()) == 6
    (base / deployment.STATE_FILE).unlink()
    assert ModelRegistry(base).deployment() == good
    assert ModelRegistry(base).serving() == 1
    ModelRegistry(base).promote(2)
    assert ModelRegistry(base).serving() == 2
    assert ModelRegistry(base).history()[-1].revision == 7


def test_a_file_of_a_later_format_is_refused(base):
    promoted(base, 1)
    found = json.loads((base / deployment.STATE_FILE).read_text(encoding="utf-8"))
    (base / deployment.STATE_FILE).write_text(json.dumps({**found, "format": 3}), encoding="utf-8")
    with pytest.raises(StorageError, match="it has format 3"):
        ModelRegistry(base).serving()


# Where the process dies: before anything is written, before the rename, after it, and in the middle of the log's line.
_CRASHES = {
    "before the file": "LocalFiles.replace = die",
    "before the rename": "Path.replace = die",
    "before the log": "LocalFiles.append = die",
    "within the log": (
        "def half(self, name, content):\n"
        "    with (self._root / name).open('ab') as file:\n        file.write(content[: len(content) // 2])\n"
        "    die()\n"
        "LocalFiles.append = half"
    ),
}


@pytest.mark.parametrize("crash", list(_CRASHES))
def test_a_process_that_dies_leaves_the_state_before_or_after_and_never_a_third(base, crash):
    push(base, 3)
    promoted(base, 1, 2)
    ModelRegistry(base).set_validated(3, passed=True, reason="")
    before, log = ModelRegistry(base).deployment(), (base / deployment.AUDIT_FILE).read_bytes()
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from bike_pipeline.model_registry import ModelRegistry\n"
        "from bike_pipeline.storage.files import LocalFiles\n"
        "die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{_CRASHES[crash]}\nModelRegistry(sys.argv[1]).promote(3, reason='dying')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    happened = crash in ("before the log", "within the log")
    assert ModelRegistry(base).serving() == (3 if happened else 2)
    assert (base / deployment.AUDIT_FILE).read_bytes().startswith(log)
    assert ModelRegistry(base).history()[-1].revision == before.revision + happened
    # The next change goes on from there, and the log has every change once.
    ModelRegistry(base).promote(1, reason="after the crash")
    assert ModelRegistry(base).serving() == 1
    lines = [json.loads(line) for line in (base / deployment.AUDIT_FILE).read_bytes().splitlines() if _is_json(line)]
    assert [line["revision"] for line in lines] == list(range(1, before.revision + 2 + happened))
    assert ModelRegistry(base).rollback().to_version == (3 if happened else 2)


def _is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_two_promotions_at_once_take_turns(base):
    push(base, *range(3, 9))
    for version in range(1, 9):
        ModelRegistry(base).set_validated(version, passed=True, reason="")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: ModelRegistry(base).promote(version), range(1, 9)))
    changes = [change for change in ModelRegistry(base).history() if change.action == "promote"]
    assert sorted(change.to_version for change in changes) == list(range(1, 9))
    # Each took over from the one before.
    assert [c.from_version for c in changes[1:]] == [c.to_version for c in changes[:-1]]
    assert ModelRegistry(base).serving() == changes[-1].to_version


def test_whoever_waits_too_long_is_told(base):
    with open_files(base).lock(), pytest.raises(BusyError, match="another process"):
        ModelRegistry(base, lock_seconds=0.05).begin()


def test_a_folder_without_permission_is_one_clear_error(base):
    base.chmod(0o500)
    try:
        with modes_count(), pytest.raises(StorageError, match="cannot write it"):
            promoted(base, 1)
    finally:
        base.chmod(0o700)


def test_a_disk_that_is_full_leaves_what_was_promoted(base, monkeypatch):
    promoted(base, 1)
    ModelRegistry(base).set_validated(2, passed=True, reason="")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="no space left"):
            ModelRegistry(base).promote(2)
    assert ModelRegistry(base).serving() == 1
    ModelRegistry(base).promote(2)
    assert ModelRegistry(base).serving() == 2


def test_a_label_gets_more_and_more_of_the_requests_until_it_is_stable(base):
    registry = ModelRegistry(base)
    promoted(base, 1)
    registry.set_validated(2, passed=True, reason="")
    assert registry.shift(2, "canary", 1, "starts").share == 1
    registry.shift(2, "canary", 10, "1 % did well")
    assert registry.shift(2, "canary", 10, "again") is None
    assert (labels(base), dict(registry.deployment().shares)) == ({"stable": 1, "canary": 2}, {"canary": 10.0})
    assert [change.share for change in registry.history() if change.action == "shift"] == [1.0, 10.0]
    registry.promote(2, reason="100 % did well")
    assert (labels(base), dict(registry.deployment().shares)) == ({"stable": 2}, {})
    assert json.loads((base / deployment.STATE_FILE).read_text())["format"] == deployment.FORMAT


def test_an_aborted_rollout_leaves_everybody_with_the_stable_version(base):
    registry = ModelRegistry(base)
    promoted(base, 1)
    registry.set_validated(2, passed=True, reason="")
    registry.shift(2, "canary", 50, "starts")
    assert json.loads((base / deployment.STATE_FILE).read_text())["format"] == deployment.SHARES_FORMAT
    (base / deployment.STATE_FILE).unlink()
    assert dict(registry.deployment().shares) == {"canary": 50.0}, "the log restores it"
    assert registry.abort("canary", "errors").to_version == 2
    assert registry.abort("canary", "again") is None
    assert (labels(base), statuses(base)[2], dict(registry.deployment().shares)) == ({"stable": 1}, ROLLED_BACK, {})


@pytest.mark.parametrize(
    ("version", "label", "problem"),
    [(1, "canary", "is stable"), (5, "shadow", "not validated"), (3, "canary", "version 4 has the label")],
)
def test_what_may_not_get_a_share(base, version, label, problem):
    registry = ModelRegistry(base)
    promoted(base, 1)
    push(base, 3, 4, 5)
    for number in (3, 4):
        registry.set_validated(number, passed=True, reason="")
    registry.shift(4, "canary", 1, "starts")
    with pytest.raises(ModelError, match=problem):
        registry.shift(version, label, 1, "starts")
    with pytest.raises(ValueError, match="stable"):
        registry.shift(3, "stable", 1, "starts")
