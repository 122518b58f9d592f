"""A channel: signed, with a number that only grows, and never half visible."""

import base64
import json
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.edge import channel
from bike_pipeline.edge.bundle import Bundle
from bike_pipeline.errors import EdgeError, StorageError
from tests.data.crashing import die_at, in_child
from tests.edge import making
from tests.edge.making import DAYS, Key, sign_channel


@pytest.fixture
def small() -> dict[int, Bundle]:
    """Bundles as far as a channel looks at them."""
    manifest = {"forced": False, "minimum": {"python": "3.11"}}
    return {
        number: Bundle(bytes([number]) * 5000, {**manifest, "model": {"name": "bike_demand", "version": number}})
        for number in (1, 2)
    }


def test_each_push_has_the_next_number_and_its_bundle_beside_it(
    small: dict[int, Bundle], key: Key, tmp_path: Path
) -> None:
    for number, bundle in small.items():
        done = channel.publish(tmp_path, "stable", bundle, key.signer, key.trusted, DAYS)
        assert done.changed
        assert done.payload["sequence"] == number
        assert done.payload["bundle"] == {"sha256": bundle.sha256, "size": 5000}
        assert (tmp_path / "stable" / "bundles" / f"{bundle.sha256}.tar").read_bytes() == bundle.archive
    assert channel.current(tmp_path / "stable", key.trusted) == done.payload
    back = channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    assert back.payload["sequence"] == 3


def test_the_same_bundle_again_is_no_news(small: dict[int, Bundle], key: Key, tmp_path: Path) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    before = (tmp_path / "stable" / "channel.json").read_bytes()
    again = channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    assert (again.changed, again.payload["sequence"]) == (False, 1)
    assert (tmp_path / "stable" / "channel.json").read_bytes() == before
    # A bundle that was damaged where it lies is mended all the same.
    place = tmp_path / "stable" / "bundles" / f"{small[1].sha256}.tar"
    place.write_bytes(b"damaged")
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    assert place.read_bytes() == small[1].archive


@pytest.mark.parametrize(("left", "signed_anew"), [(DAYS * 0.4, True), (DAYS * 0.6, False), (-1, True), (None, True)])
def test_the_same_bundle_is_signed_anew_when_half_of_its_time_is_over(
    small: dict[int, Bundle], key: Key, tmp_path: Path, left: float | None, signed_anew: bool
) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    today = datetime.now(UTC)
    expires = None if left is None else (today + timedelta(days=left)).isoformat()
    sign_channel(tmp_path / "stable" / "channel.json", key, expires=expires)
    done = channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    assert (done.changed, done.payload["sequence"]) == (signed_anew, 2 if signed_anew else 1)
    if signed_anew:
        assert datetime.fromisoformat(done.payload["expires"]) - today > timedelta(days=DAYS - 0.01)


def test_channels_count_for_themselves(small: dict[int, Bundle], key: Key, tmp_path: Path) -> None:
    channel.publish(tmp_path, "beta", small[2], key.signer, key.trusted, DAYS)
    done = channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    assert done.payload["sequence"] == 1
    assert done.payload["channel"] == "stable"


@pytest.mark.parametrize("how", ["damaged", "other_key", "changed"])
def test_a_number_that_cannot_be_believed_is_not_gone_on_from(
    small: dict[int, Bundle], key: Key, tmp_path: Path, how: str
) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    path = tmp_path / "stable" / "channel.json"
    signer, trusted = key.signer, key.trusted
    if how == "damaged":
        path.write_text("{")
    elif how == "other_key":
        other = making.new_key()
        signer, trusted = other.signer, other.trusted
    else:
        envelope = json.loads(path.read_text())
        path.write_text(
            json.dumps({**envelope, "payload": envelope["payload"].replace('"sequence": 1', '"sequence": 9')})
        )
    before = path.read_bytes()
    with pytest.raises(EdgeError, match="its number cannot be gone on from"):
        channel.publish(tmp_path, "stable", small[2], signer, trusted, DAYS)
    assert path.read_bytes() == before


def test_a_lost_channel_file_is_gone_on_from_with_a_number_of_ones_own(
    small: dict[int, Bundle], key: Key, tmp_path: Path
) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    (tmp_path / "stable" / "channel.json").write_text("{")
    done = channel.publish(tmp_path, "stable", small[2], key.signer, key.trusted, DAYS, sequence=7)
    assert done.payload["sequence"] == 7
    with pytest.raises(EdgeError, match="the number 7 is not above 7"):
        channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS, sequence=7)
    assert channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS).payload["sequence"] == 8


def test_a_former_key_that_is_still_trusted_may_have_signed_the_file_of_now(
    small: dict[int, Bundle], key: Key, tmp_path: Path
) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    new = making.new_key()
    done = channel.publish(tmp_path, "stable", small[2], new.signer, {**new.trusted, **key.trusted}, DAYS)
    assert done.payload["sequence"] == 2


def test_two_pushes_at_once_get_two_numbers(small: dict[int, Bundle], key: Key, tmp_path: Path) -> None:
    numbers: list[int] = []

    def push(bundle: Bundle) -> None:
        numbers.append(channel.publish(tmp_path, "stable", bundle, key.signer, key.trusted, DAYS).payload["sequence"])

    threads = [threading.Thread(target=push, args=(bundle,)) for bundle in small.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2]


def readable(folder: Path, key: Key) -> int:
    """Return the number of a channel whose bundle is whole; 0 where there is no channel yet."""
    payload = channel.current(folder, key.trusted)
    if payload is None:
        return 0
    bundle = (folder / "bundles" / f"{payload['bundle']['sha256']}.tar").read_bytes()
    assert len(bundle) == payload["bundle"]["size"]
    return int(payload["sequence"])


def test_killed_at_any_point_devices_find_the_one_before_or_this_one(
    small: dict[int, Bundle], key: Key, tmp_path: Path
) -> None:
    import filelock  # noqa: F401 - imported before the forks

    seen: list[int] = []
    for point in range(100):
        base = tmp_path / str(point)
        channel.publish(base, "stable", small[1], key.signer, key.trusted, DAYS)

        def push(point: int = point, base: Path = base) -> None:
            die_at(point, str(base))
            channel.publish(base, "stable", small[2], key.signer, key.trusted, DAYS)

        status = in_child(push)
        seen.append(readable(base / "stable", key))
        assert seen[-1] in (1, 2)
        assert channel.publish(base, "stable", small[2], key.signer, key.trusted, DAYS).payload["sequence"] == 2
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(seen) > 8
    assert seen == sorted(seen)
    assert {1, 2} == set(seen)


def test_a_full_disk_leaves_what_was_current(
    small: dict[int, Bundle], key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on device"):
        channel.publish(tmp_path, "stable", small[2], key.signer, key.trusted, DAYS)
    monkeypatch.setattr(os, "fsync", real)
    assert readable(tmp_path / "stable", key) == 1
    assert not list((tmp_path / "stable").rglob(".*.*"))


def test_the_file_holds_payload_and_signature_in_one(small: dict[int, Bundle], key: Key, tmp_path: Path) -> None:
    channel.publish(tmp_path, "stable", small[1], key.signer, key.trusted, DAYS)
    envelope: dict[str, Any] = json.loads((tmp_path / "stable" / "channel.json").read_text())
    key.public.verify(base64.b64decode(envelope["signature"]), envelope["payload"].encode())
    assert envelope["key_id"] == key.signer.key_id
