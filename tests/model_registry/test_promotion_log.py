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
from bike_pipeline.model_registry import promotion_log, promotion_log_files
from bike_pipeline.model_registry.phases import PROMOTED, PUSHED, REFUSED, REPLACED, ROLLED_BACK, VALIDATED
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
        promotion_log.set_validated(base, version, passed=True, reason="")
        promotion_log.promote(base, version, reason=f"because of {version}")


def phases(base):
    return dict(promotion_log.read(base).phases)


def test_without_a_record_the_newest_version_serves(base, tmp_path):
    assert promotion_log.promoted_version(base) == 2
    assert promotion_log.labels(base) == {}
    assert promotion_log.history(base) == []
    assert promotion_log.promoted_version(tmp_path / "nothing") is None


def test_a_pushed_version_does_not_serve_before_it_is_promoted(base):
    promotion_log.begin(base)
    push(base, 3)
    assert promotion_log.promoted_version(base) == 2
    assert promotion_log.read(base).phase(3) == PUSHED
    promoted(base, 3)
    assert promotion_log.promoted_version(base) == 3
    assert phases(base) == {2: REPLACED, 3: PROMOTED}


def test_where_nothing_was_pushed_before_nothing_serves_before_the_first_promotion(tmp_path):
    base = tmp_path / "serving" / "bike_demand"
    promotion_log.begin(base)
    push(base, 7)
    assert promotion_log.promoted_version(base) is None
    promoted(base, 7)
    assert promotion_log.promoted_version(base) == 7


def test_rollback_goes_back_step_by_step(base):
    push(base, 3)
    promoted(base, 1, 2, 3)
    assert promotion_log.rollback(base, reason="too many rentals").to_version == 2
    assert phases(base) == {1: REPLACED, 2: PROMOTED, 3: ROLLED_BACK}
    assert promotion_log.rollback(base).to_version == 1
    assert promotion_log.promoted_version(base) == 1


def test_rollback_to_a_named_version_forgets_what_came_after_it(base):
    push(base, 3, 4)
    promoted(base, 1, 2, 3, 4)
    assert promotion_log.rollback(base, to=2).from_version == 4
    assert promotion_log.rollback(base).to_version == 1


def test_rollback_passes_over_versions_that_are_gone(base):
    push(base, 3)
    promoted(base, 1, 2, 3)
    (base / "2").rename(base.parent / "elsewhere")
    assert promotion_log.rollback(base).to_version == 1


def test_rollback_without_a_predecessor_says_so_and_changes_nothing(tmp_path):
    base = tmp_path / "serving" / "bike_demand"
    promotion_log.begin(base)
    push(base, 1)
    with pytest.raises(ModelError, match="nothing to go back to"):
        promotion_log.rollback(base)
    promoted(base, 1)
    before = (base / promotion_log.STATE_FILE).read_bytes()
    with pytest.raises(ModelError, match="nothing to go back to"):
        promotion_log.rollback(base)
    assert (base / promotion_log.STATE_FILE).read_bytes() == before
    with pytest.raises(ModelError, match="has the label stable now"):
        promotion_log.rollback(base, to=1)


def test_only_a_validated_version_is_promoted(base):
    promotion_log.begin(base)
    push(base, 3)
    with pytest.raises(ModelError, match="version 3 is pushed, not validated"):
        promotion_log.promote(base, 3)
    promotion_log.set_validated(base, 3, passed=False, reason="too slow")
    with pytest.raises(ModelError, match="version 3 is refused, not validated"):
        promotion_log.promote(base, 3)
    with pytest.raises(ModelError, match="never promoted"):
        promotion_log.rollback(base, to=3)
    assert (phases(base)[3], promotion_log.promoted_version(base)) == (REFUSED, 2)


def test_an_unknown_or_damaged_version_is_never_promoted(base):
    promoted(base, 1)
    with pytest.raises(ModelError, match=r"version 9 is not there.*choose one of 1, 2|version 9 is not there"):
        promotion_log.promote(base, 9)
    (base / "2" / "saved_model.pb").write_text("somebody else's", encoding="utf-8")
    for change in (promotion_log.promote, promotion_log.rollback):
        with pytest.raises(ModelError, match="not those that were pushed"):
            change(base, 2)
    assert promotion_log.promoted_version(base) == 1


def test_promoting_what_is_promoted_changes_nothing(base):
    promoted(base, 2)
    before = promotion_log.history(base)
    assert promotion_log.promote(base, 2) is None
    assert promotion_log.history(base) == before


def test_other_labels_stand_beside_stable(base):
    promoted(base, 1)
    promotion_log.set_validated(base, 2, passed=True, reason="")
    promotion_log.promote(base, 2, label="canary")
    assert promotion_log.labels(base) == {"stable": 1, "canary": 2}
    assert promotion_log.promoted_version(base) == 1
    assert phases(base)[2] == VALIDATED


def test_the_history_says_who_when_from_what_to_what_and_why(base):
    promoted(base, 1)
    promotion_log.rollback(base, to=2, reason="demand was overestimated")
    history = promotion_log.history(base)
    assert [(c.action, c.from_version, c.to_version) for c in history] == [
        ("begin", None, 2), ("validate", None, 1), ("promote", 2, 1), ("rollback", 1, 2),
    ]  # fmt: skip
    assert [change.revision for change in history] == [1, 2, 3, 4]
    assert history[-1].reason == "demand was overestimated"
    assert all("@" in change.who and change.at.endswith("+00:00") for change in history)


def test_the_log_only_ever_grows(base):
    promoted(base, 1)
    before = (base / promotion_log.AUDIT_FILE).read_bytes()
    promoted(base, 2)
    promotion_log.rollback(base)
    assert (base / promotion_log.AUDIT_FILE).read_bytes().startswith(before)


def test_what_a_later_release_wrote_beside_is_kept(base):
    promoted(base, 1)
    found = json.loads((base / promotion_log.STATE_FILE).read_text(encoding="utf-8"))
    found["routing"] = {"canary": {"share": 0.05}}
    (base / promotion_log.STATE_FILE).write_text(json.dumps(found), encoding="utf-8")
    promoted(base, 2)
    after = json.loads((base / promotion_log.STATE_FILE).read_text(encoding="utf-8"))
    assert after["routing"] == {"canary": {"share": 0.05}}
    assert after["labels"] == {"stable": 2}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "labels": 3, "versions": {}, "previous": {}, "change": {}}'],
    ids=["empty", "cut", "list", "bare", "wrong"],
)
def test_a_damaged_file_is_an_error_and_the_log_gives_it_again(base, content):
    promoted(base, 1, 2)
    promotion_log.rollback(base)
    good = promotion_log.read(base)
    (base / promotion_log.STATE_FILE).write_bytes(content)
    for question in (promotion_log.promoted_version, promotion_log.labels, promotion_log.begin, promotion_log.rollback):
        if question is not promotion_log.begin:
            with pytest.raises(StorageError, match="damaged") as error:
                question(base)
            assert "move it away" in error.value.fix
    assert len(promotion_log.history(base)) == 6
    (base / promotion_log.STATE_FILE).unlink()
    assert promotion_log.read(base) == good
    assert promotion_log.promoted_version(base) == 1
    promotion_log.promote(base, 2)
    assert promotion_log.promoted_version(base) == 2
    assert promotion_log.history(base)[-1].revision == 7


def test_a_file_of_a_later_format_is_refused(base):
    promoted(base, 1)
    found = json.loads((base / promotion_log.STATE_FILE).read_text(encoding="utf-8"))
    (base / promotion_log.STATE_FILE).write_text(json.dumps({**found, "format": 2}), encoding="utf-8")
    with pytest.raises(StorageError, match="it has format 2"):
        promotion_log.promoted_version(base)


# Where the process dies: before anything is written, before the rename, after it, and in the middle of the log's line.
_CRASHES = {
    "before the file": "state_files.LocalStateFiles.replace = die",
    "before the rename": "Path.replace = die",
    "before the log": "state_files.LocalStateFiles.append = die",
    "within the log": (
        "def half(self, name, content):\n"
        "    with (self._folder / name).open('ab') as file:\n        file.write(content[: len(content) // 2])\n"
        "    die()\n"
        "state_files.LocalStateFiles.append = half"
    ),
}


@pytest.mark.parametrize("crash", list(_CRASHES))
def test_a_process_that_dies_leaves_the_state_before_or_after_and_never_a_third(base, crash):
    push(base, 3)
    promoted(base, 1, 2)
    promotion_log.set_validated(base, 3, passed=True, reason="")
    before, log = promotion_log.read(base), (base / promotion_log.AUDIT_FILE).read_bytes()
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from bike_pipeline.model_registry import promotion_log as state, promotion_log_files as state_files\n"
        "die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{_CRASHES[crash]}\nstate.promote(sys.argv[1], 3, reason='dying')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    happened = crash in ("before the log", "within the log")
    assert promotion_log.promoted_version(base) == (3 if happened else 2)
    assert (base / promotion_log.AUDIT_FILE).read_bytes().startswith(log)
    assert promotion_log.history(base)[-1].revision == before.revision + happened
    # The next change goes on from there, and the log has every change once.
    promotion_log.promote(base, 1, reason="after the crash")
    assert promotion_log.promoted_version(base) == 1
    lines = [json.loads(line) for line in (base / promotion_log.AUDIT_FILE).read_bytes().splitlines() if _is_json(line)]
    assert [line["revision"] for line in lines] == list(range(1, before.revision + 2 + happened))
    assert promotion_log.rollback(base).to_version == (3 if happened else 2)


def _is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_two_promotions_at_once_take_turns(base):
    push(base, *range(3, 9))
    for version in range(1, 9):
        promotion_log.set_validated(base, version, passed=True, reason="")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: promotion_log.promote(base, version), range(1, 9)))
    changes = [change for change in promotion_log.history(base) if change.action == "promote"]
    assert sorted(change.to_version for change in changes) == list(range(1, 9))
    # Each took over from the one before.
    assert [c.from_version for c in changes[1:]] == [c.to_version for c in changes[:-1]]
    assert promotion_log.promoted_version(base) == changes[-1].to_version


def test_whoever_waits_too_long_is_told(base, monkeypatch):
    monkeypatch.setattr(promotion_log_files, "_LOCK_SECONDS", 0.05)
    with promotion_log.files_of(base).lock(), pytest.raises(BusyError, match="another process"):
        promotion_log.begin(base)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_clear_error(base):
    base.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="cannot write it"):
            promoted(base, 1)
    finally:
        base.chmod(0o700)


def test_a_disk_that_is_full_leaves_what_was_promoted(base, monkeypatch):
    promoted(base, 1)
    promotion_log.set_validated(base, 2, passed=True, reason="")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            promotion_log.promote(base, 2)
    assert promotion_log.promoted_version(base) == 1
    promotion_log.promote(base, 2)
    assert promotion_log.promoted_version(base) == 2
