"""A device takes models from a real web server."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bike_pipeline.edge.bundle import Bundle
from bike_pipeline.edge.device import Device
from bike_pipeline.edge.updates import UpdateError
from tests.edge.following import World, command, following
from tests.edge.making import Key


@pytest.fixture
def world(tmp_path: Path, key: Key, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with following(tmp_path, key, bundles, monkeypatch) as followed:
        yield followed


def test_first_update_next_update_and_nothing_new(world: World) -> None:
    first = world.device.update(world.url)
    assert (first["changed"], first["sequence"], world.version()) == (True, 1, 1)
    assert world.device.update(world.url)["changed"] is False
    world.push(2)
    assert world.device.update(world.url)["changed"] is True
    assert world.version() == 2
    assert world.device._linked("previous") == world.bundles[1].sha256
    assert world.left() == []
    # The way back is a push with a higher number, too.
    world.push(1)
    assert world.device.update(world.url)["sequence"] == 3
    assert world.version() == 1


def test_from_the_command_line_with_real_golden_rows(world: World) -> None:
    done = command(world, "update", "--channel-url", world.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["version"] == 1
    place = Path(command(world, "start").stdout.strip())
    assert (place / "predictor.py").exists()
    assert json.loads(command(world, "status").stdout)["sequence"] == 1
    refused = command(world, "update", "--channel-url", f"{world.web.url}/nowhere")
    assert (refused.returncode, refused.stdout) == (19, "")
    assert refused.stderr.startswith("error: http://")
    assert refused.stderr.count("\n") == 1


def test_an_older_signed_bundle_does_not_pass_as_a_newer_one(world: World) -> None:
    world.device.update(world.url)
    world.push(2)
    world.device.update(world.url)
    older, newer = (world.state / "releases" / world.bundles[version].sha256 for version in (1, 2))
    shutil.rmtree(newer)
    shutil.copytree(older, newer)
    done = command(world, "start")
    assert "it holds another bundle, version 1 of the model" in done.stderr
    assert Path(done.stdout.strip()) == older
    # The channel still names the newer one, so it is fetched again.
    assert world.device.update(world.url)["changed"] is True
    assert world.version() == 2


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_channel_that_was_copied_to_a_stick_is_taken_too(world: World, tmp_path: Path, form: str) -> None:
    stick = tmp_path / "a stick"
    shutil.copytree(world.base, stick)
    place = (stick / "stable").as_uri() if form == "file" else str(stick / "stable")
    done = command(world, "update", "--channel-url", place)
    assert done.returncode == 0, done.stderr
    assert world.version() == 1
    assert world.device.update(place)["changed"] is False

    # It is believed no more than a server is.
    world.push(2)
    shutil.rmtree(stick)
    shutil.copytree(world.base, stick)
    bundle = stick / "stable" / "bundles" / f"{world.bundles[2].sha256}.tar"
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UpdateError, match="its SHA-256 is not the signed one"):
        world.device.update(place)
    bundle.unlink()
    with pytest.raises(UpdateError, match="No such file"):
        world.device.update(place)
    (stick / "stable" / "channel.json").unlink()
    with pytest.raises(UpdateError, match=r"a%20stick/stable/channel\.json: .*No such file"):
        world.device.update(place)
    assert world.version() == 1


def test_other_places_are_refused_in_words(world: World) -> None:
    for place in ("ftp://models.example.org/stable", "file://models.example.org/stable"):
        with pytest.raises(UpdateError, match="a channel is at http://, https:// or file:///, or a folder"):
            world.device.update(place)


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "from_the_start"])
def test_a_broken_download_is_gone_on_with(world: World, ranges: bool) -> None:
    world.web.ranges = ranges
    first, second = (len(world.bundles[1].archive) // share for share in (3, 4))
    world.web.break_after = [first, second]
    assert world.device.update(world.url)["changed"]
    asked = [asked for path, asked in world.web.requests if path.endswith(".tar")]
    assert asked == ["", f"bytes={first}-", f"bytes={first + second if ranges else second}-"]
    assert world.version() == 1


def test_what_was_fetched_before_a_failure_is_not_fetched_again(world: World) -> None:
    world.web.break_after = [10_000, 10_000, 10_000, 10_000]
    with pytest.raises(UpdateError, match=r"\.tar: .*complete|\.tar: "):
        world.device.update(world.url)
    world.web.requests.clear()
    assert world.device.update(world.url)["changed"]
    assert world.web.requests[-1][1] == "bytes=40000-"


def test_two_updates_at_once_take_turns(world: World) -> None:
    with world.device._locked(), pytest.raises(UpdateError, match="another update is running"):
        Device(world.state, world.key.public).update(world.url)


def test_bad_arguments_are_one_line(world: World, tmp_path: Path) -> None:
    done = command(world, "update", "--channel-url", "ftp://models.example.org/stable")
    assert "a channel is at http://, https:// or file:///, or a folder" in done.stderr
    missing = command(world, "update", "--channel-url", "file:///no-such-folder").stderr
    assert missing.startswith("error: file:///no-such-folder/channel.json: [Errno 2] No such file or directory")
    assert missing.count("\n") == 1
    (tmp_path / "no.pub").write_text("no key")
    call = [sys.executable, "-m", "bike_pipeline.edge.device", "start", "--state", str(tmp_path / "none")]
    for name in ("no.pub", "absent.pub"):
        done = subprocess.run([*call, "--key", str(tmp_path / name)], capture_output=True, text=True, check=False)
        assert done.returncode == 19
        assert "cannot read the public key" in done.stderr
