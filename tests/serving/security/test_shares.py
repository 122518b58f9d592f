"""What one client may have under way, and that it is given back with the answer."""

from __future__ import annotations

import asyncio

import pytest

from bike_pipeline.serving.security import limits
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings.serving import LimitSettings

LIMITS = LimitSettings(rows=1000, client_rows=1500)


async def hold(held: limits.Shares, client: str, rows: int, until: asyncio.Event) -> None:
    with limits.Share(held, client):
        limits.take_rows(rows)
        await until.wait()


def test_rows_of_one_client_are_bounded_and_others_do_not_wait_for_it():
    async def asking() -> None:
        held, until = limits.Shares(LIMITS, largest=1), asyncio.Event()
        first = asyncio.create_task(hold(held, "greedy", 1000, until))
        await asyncio.sleep(0)
        with pytest.raises(StatusError, match="More than 1500 rows of this client are under way") as refused:
            await hold(held, "greedy", 600, until)
        assert (refused.value.status, refused.value.code) == (429, Code.RESOURCE_EXHAUSTED)
        other = asyncio.create_task(hold(held, "modest", 1000, until))
        await asyncio.sleep(0)
        until.set()
        await asyncio.gather(first, other)
        # The answers are out, so as many rows may come again.
        await hold(held, "greedy", 1000, until)

    asyncio.run(asking())


def test_the_largest_request_that_is_allowed_always_fits():
    async def asking() -> None:
        until = asyncio.Event()
        until.set()
        held = limits.Shares(LimitSettings(rows=1000, client_rows=10), largest=1)
        await hold(held, "anybody", 1000, until)

    asyncio.run(asking())
