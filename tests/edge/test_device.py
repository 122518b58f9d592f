"""A device takes models from a real web server, and keeps a good one whatever the server or the disk does."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.edge import channel, device, updates
from bike_pipeline.edge.bundle import Bundle, program
from bike_pipeline.edge.device import Device
from bike_pipeline.edge.updates import RefusedError, UpdateError
from tests.edge import making
from tests.edge.making import DAYS, Key, sign_channel
from tests.edge.web import Web, serving


class World:
    """A channel on a web server and a device that follows it."""

    def __init__(self, folder: Path, web: Web, key: Key, bundles: dict[int, Bundle]) -> None:
        self.base, self.web, self.key, self.bundles = folder / "edge", web, key, bundles
        self.url = f"{web.url}/stable"
        self.state = folder / "state"
        self.device = Device(self.state, key.public, lambda _: None)

    def push(self, version: int, name: str = "stable") -> None:
        channel.publish(self.base, name, self.bundles[version], self.key.signer, self.key.trusted, DAYS)

    def version(self) -> int:
        """Return the version that the device serves."""
        return int(json.loads((self.device.start() / "manifest.json").read_text())["model"]["version"])

    def left(self) -> list[str]:
        """Return what lies beside the current and the previous bundle."""
        kept = {self.device.current(), self.device._linked("previous")}
        found = [*(self.state / "releases").iterdir(), *(self.state / "downloads").iterdir()]
        return [path.name for path in found if path.name not in kept]


@pytest.fixture
def world(tmp_path: Path, key: Key, bundles: dict[int, Bundle]) -> Iterator[World]:
    (tmp_path / "edge").mkdir()
    with serving(tmp_path / "edge") as web:
        made = World(tmp_path, web, key, bundles)
        made.push(1)
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bike_pipeline.edge.updates.time.sleep", lambda _: None)


def command(world: World, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    (world.state.parent / "signing.pub").write_bytes(world.key.pem)
    call = [sys.executable, "-m", "bike_pipeline.edge.device", *arguments, "--state", str(world.state)]
    if arguments[0] != "status":
        call += ["--key", str(world.state.parent / "signing.pub")]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=120, **options)


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


def failing_update(world: World, told: str, good: int = 1) -> None:
    """Check that an update fails with that message and the device serves what it did."""
    with pytest.raises(UpdateError, match=told):
        world.device.update(world.url)
    assert world.version() == good


def changed_bytes(path_end: str, at: int) -> Any:
    def change(path: str, content: bytes) -> bytes:
        if not path.endswith(path_end):
            return content
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return change


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


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Set the clock of devices and publishers forward."""
    there = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr("bike_pipeline.edge.updates.now", lambda: there)


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


def test_a_device_that_is_too_old_says_what_it_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.device.update(world.url)
    world.push(2)
    monkeypatch.setattr("bike_pipeline.edge.updates.version", lambda _: "1.4.2")
    failing_update(world, r"the bundle needs ai_edge_litert 2\.3 or later, here is 1\.4\.2")


def test_golden_rows_that_fail_keep_the_model_and_are_not_tried_again(world: World) -> None:
    world.device.update(world.url)
    world.push(2)
    bad = world.bundles[2].sha256
    checks: list[str] = []

    def check(folder: Path) -> None:
        checks.append(folder.name)
        if folder.name == bad:
            raise RefusedError("the golden rows fail")

    world.device.check = check
    failing_update(world, "the golden rows fail")
    tars = len(world.web.requests)
    failing_update(world, r"refused here before \(the golden rows fail\); --retry takes it again")
    assert len(world.web.requests) == tars + 1
    assert checks.count(bad) == 1
    with pytest.raises(UpdateError, match="the golden rows fail"):
        world.device.update(world.url, retry=True)
    world.device.check = lambda _: None
    assert world.device.update(world.url, retry=True)["changed"]
    assert world.device.status()["refused"] == {}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda golden: golden["answers"]["tflite_float32"].__setitem__(7, 1e6), "the golden rows fail"),
        (lambda golden: golden["answers"]["tflite_float32"].pop(), "answers for"),
        (lambda golden: golden["columns"]["hr"].pop(), "its columns differ in their number of rows"),
        (
            lambda golden: golden["not_finite"]["columns"].__setitem__(
                "temp", [0.5] * len(golden["not_finite"]["columns"]["temp"])
            ),
            "where a value is not finite",
        ),
        (lambda golden: golden["columns"].pop("hr"), "hr"),
    ],
    ids=["answer", "fewer", "ragged", "number", "column"],
)
def test_real_golden_rows_in_a_child(world: World, damage: Any, told: str) -> None:
    world.device.update(world.url)
    folder = world.device.start()
    golden = json.loads((folder / "golden.json").read_text())
    damage(golden)
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(RefusedError, match=told):
        device.check_in_child(folder)


def test_a_model_that_ends_or_hangs_its_process_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.device.update(world.url)
    folder = world.device.start()
    model = folder / json.loads((folder / "manifest.json").read_text())["model"]["file"]
    model.write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 400)
    with pytest.raises(RefusedError):
        device.check_in_child(folder)
    monkeypatch.setattr(device, "CHECK_SECONDS", 0.01)
    with pytest.raises(RefusedError, match=r"took more than 0\.01 seconds"):
        device.check_in_child(folder)


def test_the_program_checks_with_its_own_modules(world: World, tmp_path: Path) -> None:
    installed = tmp_path / "other" / "bike_pipeline"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("raise RuntimeError('another release')")
    (tmp_path / "signing.pub").write_bytes(world.key.pem)
    (tmp_path / "bike-edge.pyz").write_bytes(program())
    call = [sys.executable, tmp_path / "bike-edge.pyz", "update", "--channel-url", world.url, "--state", world.state]
    done = subprocess.run(
        [*call, "--key", tmp_path / "signing.pub"], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "other")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"]


def test_a_missing_runtime_is_no_fault_of_the_bundle(world: World, tmp_path: Path) -> None:
    (tmp_path / "guard" / "ai_edge_litert").mkdir(parents=True)
    (tmp_path / "guard" / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('no runtime')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "guard")}
    done = command(world, "update", "--channel-url", world.url, env=environment)
    assert done.returncode == 19
    assert "no runtime; pip install ai-edge-litert" in done.stderr
    assert json.loads(command(world, "status").stdout)["refused"] == {}
    assert command(world, "update", "--channel-url", world.url).returncode == 0


def test_a_current_model_that_is_damaged_gives_way_to_the_one_before_and_is_mended(world: World) -> None:
    world.device.update(world.url)
    world.push(2)
    world.device.update(world.url)
    path = world.device.start() / "models" / "tflite_float32" / "model.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert world.version() == 1
    assert world.device.current() == world.bundles[1].sha256
    assert world.device.update(world.url)["changed"]
    assert world.version() == 2


def test_a_current_model_that_is_gone_gives_way_too(world: World) -> None:
    world.device.update(world.url)
    world.push(2)
    world.device.update(world.url)
    shutil.rmtree(world.device.start())
    assert world.version() == 1
    shutil.rmtree(world.device.start())
    with pytest.raises(UpdateError, match="there is no good bundle; run update"):
        world.device.start()


def test_a_current_model_that_does_not_load_at_start_gives_way(world: World) -> None:
    world.device.update(world.url)
    world.push(2)
    world.device.update(world.url)

    def check(folder: Path) -> None:
        if folder.name == world.bundles[2].sha256:
            raise RefusedError("it does not load")

    world.device.check = check
    assert world.version() == 1
    failing_update(world, "it does not load")


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_file_that_cannot_grow_keeps_what_is_there(world: World, share: float) -> None:
    limit = int(share * len(world.bundles[2].archive))
    assert command(world, "update", "--channel-url", world.url).returncode == 0
    world.push(2)
    done = command(
        world, "update", "--channel-url", world.url,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 19
    assert "what was current stays" in done.stderr
    assert world.version() == 1
    assert world.left() == []
    assert world.device.update(world.url)["changed"]


def test_a_full_disk_keeps_what_is_there(world: World, tmp_path: Path) -> None:
    """A file system of its own, too small for two bundles: real ENOSPC."""
    mount = ["unshare", "--map-root-user", "--mount"]
    world.state.mkdir()
    if subprocess.run(
        [*mount, "mount", "-t", "tmpfs", "tmpfs", world.state], check=False, capture_output=True
    ).returncode:
        pytest.skip("this system lets nobody mount a file system in a namespace of their own")
    for version in (1, 2):
        shutil.copytree(world.base, tmp_path / "edge" / str(version))
        world.push(2)
    (tmp_path / "signing.pub").write_bytes(world.key.pem)
    program = f"{sys.executable} -m bike_pipeline.edge.device"
    options = f"--state {world.state} --key {tmp_path / 'signing.pub'}"
    script = f"""
    mount -t tmpfs -o size={int(len(world.bundles[1].archive) * 2.6)} tmpfs {world.state}
    {program} update {options} --channel-url {world.web.url}/1/stable > {tmp_path / "first"}
    {program} update {options} --channel-url {world.web.url}/2/stable 2> {tmp_path / "second"}
    echo $? >> {tmp_path / "second"}
    {program} start {options} > {tmp_path / "started"}
    find {world.state} -name '*.tar' -o -name .incoming > {tmp_path / "left"}
    """
    subprocess.run([*mount, "sh", "-c", script], check=True, timeout=120)
    assert json.loads((tmp_path / "first").read_text())["changed"]
    told, status = (tmp_path / "second").read_text().splitlines()
    assert "No space left on device; what was current stays" in told
    assert status == "19"
    assert world.bundles[1].sha256 in (tmp_path / "started").read_text()
    assert (tmp_path / "left").read_text() == ""


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
