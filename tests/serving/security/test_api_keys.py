from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.serve import api_key_command as command
from bike_pipeline.errors import ConfigurationError, StorageError
from bike_pipeline.serving.security import api_keys

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "api-keys.json"


def later(**delta):
    return datetime.now(UTC) + timedelta(**delta)


def find(ring, key, moment=None):
    return ring.find(key, (moment or later(seconds=1)).timestamp())


def test_a_key_is_found_and_nothing_like_it(path):
    made, key = api_keys.create(path, "dashboard", ["predict"])
    ring = api_keys.read(path)
    found = find(ring, key)
    assert found.id == f"key:{made.id}"
    assert found.scopes == {"predict"}
    for wrong in ("", key[:-1], key + "a", key.upper(), " " + key, made.sha256, "\ud800", key + "\0"):
        assert find(ring, wrong) is None


def test_the_file_is_its_owners_alone_and_holds_no_key(path):
    _, key = api_keys.create(path, "dashboard", ["predict"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        content = file.read_bytes()
        assert key.encode() not in content
        assert key.removeprefix(api_keys.PREFIX).encode() not in content


def test_two_keys_of_one_client_are_valid_at_once_each_in_its_time(path):
    ends, begins = later(days=2), later(days=1)
    _, old = api_keys.create(path, "dashboard", ["predict"], expires=ends)
    _, new = api_keys.create(path, "dashboard", ["predict", "admin"], not_before=begins)
    ring = api_keys.read(path)

    def valid(moment):
        return [find(ring, key, moment) is not None for key in (old, new)]

    assert valid(later(seconds=1)) == [True, False]
    assert valid(begins + timedelta(hours=1)) == [True, True]
    assert valid(ends) == [False, True]
    assert find(ring, new, ends).scopes == {"predict", "admin"}


def test_every_hash_is_compared_wherever_the_key_stands(path, monkeypatch):
    keys = [api_keys.create(path, f"client-{i}", ["predict"])[1] for i in range(4)]
    ring = api_keys.read(path)
    compared = []
    real = api_keys.hmac.compare_digest
    monkeypatch.setattr(api_keys.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    counts = []
    for key in (*keys, "unknown"):
        compared.clear()
        find(ring, key)
        counts.append(len(compared))
    assert counts == [4] * 5


def test_a_revoked_key_is_refused_and_stays_on_record(path):
    made, key = api_keys.create(path, "dashboard", ["predict"])
    other, other_key = api_keys.create(path, "batch", ["predict"])
    gone = api_keys.revoke(path, made.id)
    ring = api_keys.read(path)
    assert find(ring, key) is None
    assert find(ring, other_key).id == f"key:{other.id}"
    assert [each.state(later(seconds=1)) for each in ring.keys] == ["revoked", "active"]
    assert made.sha256 not in path.read_text()
    assert api_keys.revoke(path, made.id) == gone
    with pytest.raises(ConfigurationError, match=f"active keys: {other.id}"):
        raise_with_fix(lambda: api_keys.revoke(path, "00000000"))


def raise_with_fix(call):
    try:
        call()
    except ConfigurationError as error:
        raise ConfigurationError(f"{error.what} {error.fix}") from None


@pytest.mark.parametrize("name", ["", " ", "a b", "../../etc", "a\n", "x" * 65, "-rf", "ü"])
def test_a_name_that_is_none_is_refused(path, name):
    with pytest.raises(ConfigurationError, match="is no name"):
        api_keys.create(path, name, ["predict"])
    assert not path.exists()


def test_a_key_that_ends_before_it_begins_is_refused(path):
    with pytest.raises(ConfigurationError, match="end before it begins"):
        api_keys.create(path, "a", ["predict"], expires=later(days=-1))
    with pytest.raises(ConfigurationError, match="end before it begins"):
        api_keys.create(path, "a", ["predict"], not_before=later(days=3), expires=later(days=2))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"layout": 2, "salt": "00", "keys": []}',
        '{"layout": 1, "salt": "zz", "keys": []}',
        '{"layout": 1, "salt": "00"}',
        '{"layout": 1, "salt": "00", "keys": [{"id": "a"}]}',
        "[" * 5000,
    ],
    ids=["empty", "cut", "list", "layout", "salt", "no-keys", "half-a-key", "deep"],
)
def test_a_damaged_file_is_one_clear_error_and_is_never_written_over(path, content):
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)
    for call in (lambda: api_keys.read(path), lambda: api_keys.create(path, "a", ["predict"])):
        with pytest.raises(ConfigurationError, match="damaged"):
            call()
    assert path.read_text() == content


@pytest.mark.parametrize("change", [{"scopes": ["everything"]}, {"sha256": ""}, {"expires": "2026-01-01T00:00:00"}])
def test_a_key_with_an_unknown_scope_no_hash_or_no_time_zone_is_refused(path, change):
    api_keys.create(path, "a", ["predict"])
    content = json.loads(path.read_text())
    content["keys"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="damaged"):
        api_keys.read(path)


def test_a_file_that_others_may_write_to_is_refused(path):
    api_keys.create(path, "a", ["predict"])
    path.chmod(0o660)
    with pytest.raises(ConfigurationError, match="let themselves in"):
        api_keys.read(path)


def test_a_write_that_fails_leaves_the_last_good_file(path, monkeypatch):
    _, key = api_keys.create(path, "a", ["predict"])
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        api_keys.create(path, "b", ["predict"])
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}
    assert find(api_keys.read(path), key)


def test_keys_made_at_the_same_moment_are_all_kept(path):
    threads = [threading.Thread(target=api_keys.create, args=(path, f"c{i}", ["predict"])) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in api_keys.read(path).keys) == [f"c{i}" for i in range(8)]


def test_the_command_prints_a_key_once_lists_without_it_and_revokes(tmp_path):
    where = ["--set", f"workspace={tmp_path}"]
    made = CliRunner().invoke(command, ["create", "dashboard", "--scope", "admin", "--days", "7", *where])
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key.startswith(api_keys.PREFIX)
    assert find(api_keys.read(tmp_path / "keys" / "api-keys.json"), key).scopes == {"admin"}
    listed = CliRunner().invoke(command, ["list", "--json", *where])
    assert key not in listed.stdout
    [told] = json.loads(listed.stdout)
    assert told["state"] == "active"
    table = CliRunner().invoke(command, ["list", *where]).stdout
    assert told["id"] in table
    assert "sha256" not in told
    revoked = CliRunner().invoke(command, ["revoke", told["id"], *where])
    assert revoked.exit_code == 0
    assert find(api_keys.read(tmp_path / "keys" / "api-keys.json"), key) is None


def test_a_process_that_may_not_write_there_says_so_in_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "bike_pipeline.cli", "api-key", "create", "a", "--set", f"workspace={blocked}"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "BIKE_PIPELINE_DEBUG": ""},
    )
    assert done.returncode == 8
    assert len(done.stderr.strip().splitlines()) == 1
    assert "api-keys.json: cannot write it" in done.stderr
