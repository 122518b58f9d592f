"""What the owner of the channel did not sign, or what is old, replaces no model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.edge import channel, updates
from bike_pipeline.edge.bundle import Bundle
from bike_pipeline.edge.updates import UpdateError
from tests.edge import making
from tests.edge.following import World, changed_bytes, command, failing_update, following, later
from tests.edge.making import DAYS, Key, sign_channel


@pytest.fixture
def world(tmp_path: Path, key: Key, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with following(tmp_path, key, bundles, monkeypatch) as followed:
        yield followed


@pytest.mark.parametrize("at", [5, 600, 40_000, -2000])
def test_a_changed_byte_of_the_bundle_is_refused(world: World, at: int) -> None:
    world.device.update(world.url)
    world.push(2)
    size = len(world.bundles[2].archive)
    world.web.change = changed_bytes(".tar", at % size)
    failing_update(world, "its SHA-256 is not the signed one")
    world.web.change = lambda _, content: content
    assert world.device.update(world.url)["changed"]
    assert world.version() == 2


def test_every_changed_byte_of_the_channel_file_is_refused_or_of_no_account(world: World) -> None:
    content = (world.base / "stable" / "channel.json").read_bytes()
    known = updates.read_channel(content, world.key.public)
    for at in range(len(content)):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        try:
            assert updates.read_channel(changed, world.key.public) == known
        except UpdateError as error:
            assert "damaged" in str(error) or "signature" in str(error)  # noqa: PT017


def test_a_longer_and_a_shorter_bundle_are_refused(world: World) -> None:
    world.device.update(world.url)
    world.push(2)
    world.web.change = lambda path, content: content + b"more" if path.endswith(".tar") else content
    failing_update(world, "larger than was signed")
    world.web.change = lambda path, content: content[:-600] if path.endswith(".tar") else content
    failing_update(world, r"\.tar: ")
    assert [path for path, _ in world.web.requests].count(f"/stable/bundles/{world.bundles[2].sha256}.tar") == 8


def test_a_channel_of_another_key_is_refused(world: World) -> None:
    world.device.update(world.url)
    other = making.new_key()
    shutil.rmtree(world.base / "stable")
    channel.publish(world.base, "stable", world.bundles[2], other.signer, other.trusted, DAYS)
    failing_update(world, "the signature is not that of the key of this device")


def test_a_bundle_of_another_key_is_refused_though_the_channel_is_right(
    world: World, versions: Path, key: Key, small_model: Path, tmp_path: Path
) -> None:
    world.device.update(world.url)
    other = making.new_key()
    version = making.push(small_model, tmp_path / "other", 9, other)
    world.bundles = {**world.bundles, 9: making.build(version, other)}
    world.push(9)
    failing_update(world, r"manifest\.json: the signature is not that of the key")


def test_an_older_channel_file_replayed_is_refused(world: World) -> None:
    old = (world.base / "stable" / "channel.json").read_bytes()
    world.push(2)
    world.device.update(world.url)
    (world.base / "stable" / "channel.json").write_bytes(old)
    failing_update(world, "1 is older than 2, seen before", good=2)


def test_a_withheld_update_is_noticed_and_the_model_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.device.update(world.url)
    held_back = (world.base / "stable" / "channel.json").read_bytes()
    later(monkeypatch, DAYS - 1)
    world.push(2)
    newest = (world.base / "stable" / "channel.json").read_bytes()
    (world.base / "stable" / "channel.json").write_bytes(held_back)
    assert not world.device.update(world.url)["changed"]
    later(monkeypatch, DAYS + 1)
    failing_update(world, r"channel\.json: it expired at 20..-..-..T..:..:..Z, and the clock here says .* are withheld")
    assert world.device.status()["current"] == world.bundles[1].sha256
    (world.base / "stable" / "channel.json").write_bytes(newest)
    assert world.device.update(world.url)["changed"]
    assert world.version() == 2


def test_a_device_without_a_model_takes_none_from_an_expired_channel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, DAYS + 1)
    with pytest.raises(UpdateError, match="it expired at"):
        world.device.update(world.url)
    assert not [path for path, _ in world.web.requests if path.endswith(".tar")]


def test_an_expired_file_is_one_line_and_exit_code_19(world: World) -> None:
    assert command(world, "update", "--channel-url", world.url).returncode == 0
    sign_channel(world.base / "stable" / "channel.json", world.key, expires="2026-01-01T00:00:00Z", sequence=2)
    done = command(world, "update", "--channel-url", world.url)
    assert (done.returncode, done.stderr.count("\n")) == (19, 1)
    assert "it expired at 2026-01-01T00:00:00Z" in done.stderr
    told = json.loads(command(world, "status").stdout)
    assert (told["expires"], told["current"]) == ("2026-01-01T00:00:00Z", world.bundles[1].sha256)


def test_a_renewed_file_keeps_the_bundle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.device.update(world.url)
    later(monkeypatch, DAYS * 0.6)
    world.push(1)
    later(monkeypatch, DAYS * 1.2)
    again = world.device.update(world.url)
    assert (again["changed"], again["sequence"]) == (False, 2)


def test_a_channel_of_an_earlier_release_is_read_with_a_warning(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_channel(world.base / "stable" / "channel.json", world.key, expires=None)
    later(monkeypatch, 10_000)
    assert world.device.update(world.url)["changed"]
    assert "warning: channel.json never expires, so a withheld update goes unnoticed" in capsys.readouterr().err
    assert world.device.status()["expires"] is None


def test_a_number_seen_is_remembered_though_its_bundle_could_not_be_fetched(world: World) -> None:
    world.device.update(world.url)
    old = (world.base / "stable" / "channel.json").read_bytes()
    world.push(2)
    (world.base / "stable" / "bundles" / f"{world.bundles[2].sha256}.tar").unlink()
    failing_update(world, "404")
    (world.base / "stable" / "channel.json").write_bytes(old)
    failing_update(world, "is older than")


def test_another_file_with_the_same_number_and_another_channel_are_refused(world: World, tmp_path: Path) -> None:
    world.device.update(world.url)
    shutil.rmtree(world.base / "stable")
    world.push(2)
    failing_update(world, "another file with the number 1 was seen before")
    world.push(2, "beta")
    with pytest.raises(UpdateError, match="it is of beta, this device follows stable"):
        world.device.update(f"{world.web.url}/beta")


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "damaged"), (b"[]", "damaged"), (b"{}", "damaged"), (b"\xff", "damaged"), (b"x" * 100_000, "larger than")],
    ids=["empty", "list", "object", "bytes", "large"],
)
def test_what_is_no_channel_file_is_refused(world: World, content: bytes, told: str) -> None:
    world.device.update(world.url)
    (world.base / "stable" / "channel.json").write_bytes(content)
    failing_update(world, told)


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": {"sha256": "../../x", "size": 5}},
        {"bundle": {"sha256": "0" * 64, "size": 2**40}},
        {"bundle": {"sha256": "0" * 64, "size": -1}},
        {"bundle": {"sha256": "0" * 64}},
        {"sequence": 0},
        {"sequence": "9"},
        {"minimum": []},
        {"expires": "2026-13-01T00:00:00Z"},
        {"expires": "2026-12-01T00:00:00"},
        {"expires": 1},
        {"format": 2},
    ],
    ids=["path", "large", "negative", "no_size", "zero", "text", "minimum", "month", "no_zone", "number", "format"],
)
def test_even_a_signed_channel_file_asks_for_nothing_strange(world: World, change: dict[str, Any]) -> None:
    sign_channel(world.base / "stable" / "channel.json", world.key, **change)
    with pytest.raises(UpdateError, match=r"channel\.json: it (names no bundle|has format 2)"):
        world.device.update(world.url)
