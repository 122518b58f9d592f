"""A device keeps a good model, whatever a new one does and whatever becomes of the disk."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.edge import device
from bike_pipeline.edge.bundle import Bundle, program
from bike_pipeline.edge.updates import RefusedError, UpdateError
from tests.edge.following import World, command, failing_update, following
from tests.edge.making import Key


@pytest.fixture
def world(tmp_path: Path, key: Key, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with following(tmp_path, key, bundles, monkeypatch) as followed:
        yield followed


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
