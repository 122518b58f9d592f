"""Versions come and go: a successor is there before its predecessor leaves, and a broken one replaces nothing."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import AsyncMock

import pytest

from bike_pipeline.serving.server import served_version
from bike_pipeline.serving.server.batching import Resources
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.model_versions import ModelConfig, ModelVersions
from bike_pipeline.serving.server.served_version import LoadedVersion, State
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings.serving import ServerSettings

NAME = "m"


class World:
    """A model's folder, and the versions of it that a server has; a folder with a file `broken` does not load."""

    def __init__(self, base, versions):
        self.base = base
        self.versions = versions
        self.loads = []

    def push(self, *numbers, broken=False):
        for number in numbers:
            folder = self.base / str(number)
            folder.mkdir(parents=True)
            if broken:
                (folder / "broken").touch()

    def load(self, folder, settings):
        self.loads.append(int(folder.name))
        if (folder / "broken").exists():
            raise StatusError(Code.DATA_LOSS, "it is broken")
        return LoadedVersion(folder, {}, {})

    async def look(self, **config):
        await self.versions.configure([ModelConfig(NAME, self.base, **config)])

    async def look_and_settle(self, **config):
        await self.look(**config)
        while State.UNLOADING in self.states().values():
            await asyncio.sleep(0.001)

    def states(self):
        model = self.versions.models.get(NAME)
        return {number: version.state for number, version in sorted(model.versions.items())} if model else {}


@pytest.fixture
def in_world(tmp_path, monkeypatch):
    """Run a test coroutine with a world; settings can be given."""

    def run(test, **settings):
        async def main():
            server = ServerSettings(**{"load_retry_seconds": 1e6, "drain_seconds": 30.0, **settings})
            with ThreadPoolExecutor(2) as executor:
                versions = ModelVersions(Resources(server, executor, executor, Metrics()), AsyncMock())
                world = World(tmp_path / NAME, versions)
                monkeypatch.setattr(served_version, "load", world.load)
                await test(world)

        asyncio.run(main())

    return run


def test_the_newest_version_serves_and_its_predecessor_leaves_after_it(in_world):
    async def test(world):
        world.push(1)
        await world.look()
        assert world.versions.find(NAME).number == 1
        world.push(2)
        await world.look_and_settle()
        assert world.versions.find(NAME).number == 2
        assert world.states() == {1: State.END, 2: State.AVAILABLE}
        with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)") as caught:
            world.versions.find(NAME, 1)
        assert caught.value.code is Code.NOT_FOUND

    in_world(test)


def test_a_broken_version_replaces_nothing_and_is_reported(in_world):
    async def test(world):
        world.push(1)
        await world.look()
        world.push(2, broken=True)
        with pytest.raises(StatusError, match="m version 2 cannot be served: it is broken"):
            await world.look_and_settle()
        assert world.versions.find(NAME).number == 1
        assert world.states() == {1: State.AVAILABLE, 2: State.END}
        assert world.versions.statuses(NAME, 2)[0].error.message == "it is broken"

    in_world(test)


def test_a_broken_version_is_tried_again_as_often_as_configured(in_world):
    async def test(world):
        world.push(1, broken=True)
        for _ in range(6):
            with pytest.raises(StatusError):
                await world.look()
            await asyncio.sleep(0.002)
        assert world.loads == [1, 1, 1]

    in_world(test, load_retries=2, load_retry_seconds=0.001)


def test_a_broken_version_is_not_tried_at_every_look(in_world):
    async def test(world):
        world.push(1, broken=True)
        for _ in range(5):
            with pytest.raises(StatusError):
                await world.look()
        assert world.loads == [1]

    in_world(test)


def test_a_mended_version_is_loaded_at_once(in_world):
    async def test(world):
        world.push(1, broken=True)
        with pytest.raises(StatusError):
            await world.look()
        (world.base / "1" / "broken").unlink()
        await world.look()
        assert world.versions.find(NAME).number == 1

    in_world(test)


def test_an_unexpected_failure_of_a_runtime_is_a_broken_version(in_world, monkeypatch):
    async def test(world):
        def fail(folder, settings):
            raise RuntimeError("out of luck")

        world.push(1)
        monkeypatch.setattr(served_version, "load", fail)
        with pytest.raises(StatusError, match="RuntimeError: out of luck") as caught:
            await world.look()
        assert caught.value.code is Code.INTERNAL

    in_world(test)


def test_a_version_in_use_is_drained_before_it_leaves(in_world):
    async def test(world):
        world.push(1)
        await world.look()
        with world.versions.find(NAME) as used:
            world.push(2)
            await world.look()
            await asyncio.sleep(0)
            assert used.state is State.UNLOADING
            # Whoever has it goes on with it.
            assert used.loaded.folder == world.base / "1"
        await world.look_and_settle()
        assert used.state is State.END

    in_world(test)


def test_a_request_that_never_ends_does_not_keep_a_version_for_ever(in_world):
    async def test(world):
        world.push(1)
        await world.look()
        with world.versions.find(NAME):
            world.push(2)
            await world.look_and_settle()
            assert world.states()[1] is State.END

    in_world(test, drain_seconds=0.01)


def test_several_versions_serve_side_by_side(in_world):
    async def test(world):
        world.push(1, 2, 3)
        await world.look(policy="all")
        assert {n: s for n, s in world.states().items() if s is State.AVAILABLE}.keys() == {1, 2, 3}
        assert world.versions.find(NAME).number == 3
        assert world.versions.find(NAME, 1).number == 1
        await world.look_and_settle(policy="specific", specific=(2,))
        assert world.states() == {1: State.END, 2: State.AVAILABLE, 3: State.END}
        # Back to a version that was there before.
        await world.look_and_settle(policy="specific", specific=(1,))
        assert world.states() == {1: State.AVAILABLE, 2: State.END, 3: State.END}
        assert world.versions.find(NAME).number == 1

    in_world(test)


def test_the_last_version_stays_when_its_folder_is_gone(in_world):
    async def test(world):
        world.push(1)
        await world.look()
        shutil.rmtree(world.base)
        await world.look_and_settle()
        assert world.versions.find(NAME).number == 1

    in_world(test)


def test_the_last_version_leaves_with_its_folder_where_that_is_configured(in_world):
    async def test(world):
        world.push(1)
        await world.look()
        shutil.rmtree(world.base)
        await world.look_and_settle()
        assert world.states() == {1: State.END}
        with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)"):
            world.versions.find(NAME)

    in_world(test, keep_last_version=False)


def test_labels_stand_for_available_versions_only(in_world):
    async def test(world):
        world.push(1, 2)
        await world.look(policy="all", labels={"stable": 1})
        assert world.versions.find(NAME, label="stable").number == 1
        with pytest.raises(StatusError, match="label to version 7 of model m, which is not currently available"):
            await world.look(policy="all", labels={"stable": 7})
        assert world.versions.find(NAME, label="stable").number == 1
        with pytest.raises(StatusError, match="Unrecognized servable version label: canary") as caught:
            world.versions.find(NAME, label="canary")
        assert caught.value.code is Code.INVALID_ARGUMENT

    in_world(test)


def test_a_new_label_may_come_before_its_version_where_that_is_configured(in_world):
    async def test(world):
        world.push(1)
        await world.look(labels={"next": 2})
        with pytest.raises(StatusError, match="Specific"):
            world.versions.find(NAME, label="next")
        world.push(2)
        await world.look_and_settle(labels={"next": 2})
        assert world.versions.find(NAME, label="next").number == 2
        # Only a new one: what serves must not be pointed to nothing.
        with pytest.raises(StatusError, match="not currently available"):
            await world.look(labels={"next": 3})

    in_world(test, allow_labels_on_unavailable=True)


def test_a_model_that_is_not_listed_any_more_is_dropped(in_world, tmp_path):
    async def test(world):
        world.push(1)
        (tmp_path / "other" / "5").mkdir(parents=True)
        other = ModelConfig("other", tmp_path / "other")
        await world.versions.configure([ModelConfig(NAME, world.base), other])
        assert world.versions.find("other").number == 5
        await world.versions.configure([other])
        with pytest.raises(StatusError, match=r"Latest\(m\)"):
            world.versions.find(NAME)
        with pytest.raises(StatusError, match="Could not find any versions of model m"):
            world.versions.statuses(NAME)
        with pytest.raises(StatusError, match="Duplicate model name: other"):
            await world.versions.configure([other, other])

    in_world(test)


def test_many_swaps_leave_a_bounded_number_of_records(in_world):
    async def test(world):
        for number in range(1, 140):
            world.push(number)
            await world.look()
        await world.look_and_settle()
        assert len(world.states()) <= 101

    in_world(test)


def test_status_tells_the_newest_first(in_world):
    async def test(world):
        world.push(1, 10, 9)
        await world.look(policy="all")
        assert [version.number for version in world.versions.statuses(NAME)] == [10, 9, 1]
        with pytest.raises(StatusError, match="Could not find version 4 of model m"):
            world.versions.statuses(NAME, 4)

    in_world(test)
