"""Requests share a call of the model, and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bike_pipeline.serving.protos import types_pb2
from bike_pipeline.serving.server.batching import Batcher, Resources, quick_rows
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.model_metrics import VersionMetrics
from bike_pipeline.serving.server.tensors import Signature, TensorSpec
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving import BatchingSettings, ServerSettings

SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec(types_pb2.DT_INT64, (-1,))},
    {"y": TensorSpec(types_pb2.DT_INT64, (-1,))},
    batches=True,
)


class Doubling:
    """Answers 2x and keeps every call; a negative x fails, and `gate` holds a call up."""

    name = "doubling"

    def __init__(self, sizes=()):
        self.sizes = sizes
        self.calls = []
        self.gate = None
        self.entered = threading.Event()

    def run(self, inputs):
        x = inputs["x"]
        self.calls.append(x.tolist())
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        if (x < 0).any():
            raise invalid("negative")
        if (x == 1313).any():
            raise RuntimeError("what the inside looks like")
        return {"y": 2 * x}


def batched(test, backend, quick=1000, max_rows=64, max_waiting=1000, timeout=30.0, signature=SIGNATURE):
    """Run a test coroutine with a batcher."""

    async def run():
        limits = BatchingSettings(max_rows=max_rows, max_waiting_requests=max_waiting)
        settings = ServerSettings(batching=limits, request_timeout_seconds=timeout)
        backend.quick_rows = quick
        with ThreadPoolExecutor(1) as executor:
            resources = Resources(settings, executor, executor, Metrics())
            await test(Batcher(backend, signature, "m", resources, VersionMetrics()))

    asyncio.run(run())


@pytest.mark.parametrize("quick", [0, 1000], ids=["in a thread", "at once"])
def test_requests_of_one_moment_share_a_call_and_get_their_own_answers(quick):
    backend = Doubling()

    async def test(batcher):
        answers = await asyncio.gather(*(batcher.submit({"x": [i, i + 1]}, 2) for i in range(10)))
        assert [answer["y"].tolist() for answer in answers] == [[2 * i, 2 * i + 2] for i in range(10)]

    batched(test, backend, quick=quick)
    assert len(backend.calls) == 1


def test_lists_and_arrays_mix():
    async def test(batcher):
        answers = await asyncio.gather(batcher.submit({"x": [1]}, 1), batcher.submit({"x": np.array([2, 3])}, 2))
        assert [answer["y"].tolist() for answer in answers] == [[2], [4, 6]]

    batched(test, Doubling())


def test_single_rows_of_plain_numbers_are_joined_with_each_other_and_with_all_else():
    backend = Doubling(sizes=(4,))

    async def test(batcher):
        answers = await asyncio.gather(*(batcher.submit((i,), 1) for i in range(3)))
        assert [answer["y"].tolist() for answer in answers] == [[0], [2], [4]]
        answers = await asyncio.gather(batcher.submit((7,), 1), batcher.submit({"x": np.array([8, 9])}, 2))
        assert [answer["y"].tolist() for answer in answers] == [[14], [16, 18]]

    batched(test, backend)
    assert backend.calls == [[0, 1, 2, 2], [7, 8, 9, 9]]


def test_calls_are_padded_to_prepared_sizes_and_answers_are_not():
    backend = Doubling(sizes=(1, 4, 16))

    async def test(batcher):
        for count in (1, 3, 5, 16, 20):
            answer = await batcher.submit({"x": list(range(count))}, count)
            assert answer["y"].tolist() == [2 * i for i in range(count)]
        answer = await batcher.submit({"x": np.array([7, 8])}, 2)
        assert answer["y"].tolist() == [14, 16]

    batched(test, backend)
    assert [len(call) for call in backend.calls] == [1, 4, 16, 16, 20, 4]


def test_one_bad_request_does_not_fail_its_neighbours():
    backend = Doubling()

    async def test(batcher):
        sent = [batcher.submit({"x": [x]}, 1) for x in (1, -1, 2)]
        first, bad, last = await asyncio.gather(*sent, return_exceptions=True)
        assert first["y"].tolist() == [2]
        assert last["y"].tolist() == [4]
        assert isinstance(bad, StatusError)
        assert (bad.code, bad.message) == (Code.INVALID_ARGUMENT, "negative")

    batched(test, backend)
    assert backend.calls == [[1, -1, 2], [1], [-1], [2]]


def test_what_a_runtime_says_of_its_inside_stays_inside():
    async def test(batcher):
        with pytest.raises(StatusError, match="doubling failed") as caught:
            await batcher.submit({"x": [1313]}, 1)
        assert caught.value.code is Code.INTERNAL

    batched(test, Doubling())


def test_no_rows_are_answered_with_none():
    backend = Doubling()

    async def test(batcher):
        assert (await batcher.submit({"x": []}, 0))["y"].shape == (0,)
        answers = await asyncio.gather(batcher.submit({"x": []}, 0), batcher.submit({"x": [1]}, 1))
        assert [answer["y"].tolist() for answer in answers] == [[], [2]]

    batched(test, backend)
    assert backend.calls == [[1]]


def test_a_cancelled_request_hurts_nobody():
    backend = Doubling()

    async def test(batcher):
        gone = batcher.submit({"x": [1]}, 1)
        stays = batcher.submit({"x": [2]}, 1)
        gone.cancel()
        assert (await stays)["y"].tolist() == [4]

    batched(test, backend)
    assert backend.calls == [[2]]


def test_a_request_that_is_cancelled_while_the_model_works_hurts_nobody():
    backend = Doubling()
    backend.gate = threading.Event()

    async def test(batcher):
        gone = batcher.submit({"x": [1]}, 1)
        stays = batcher.submit({"x": [2]}, 1)
        while not backend.entered.is_set():
            await asyncio.sleep(0)
        gone.cancel()
        later = batcher.submit({"x": [3]}, 1)
        backend.gate.set()
        assert (await stays)["y"].tolist() == [4]
        assert (await later)["y"].tolist() == [6]

    batched(test, backend, quick=0)


def test_what_arrives_while_the_model_works_is_the_next_batch():
    backend = Doubling()
    backend.gate = threading.Event()

    async def test(batcher):
        first = batcher.submit({"x": [0]}, 1)
        while not backend.entered.is_set():
            await asyncio.sleep(0)
        others = [batcher.submit({"x": [i]}, 1) for i in range(1, 100)]
        backend.gate.set()
        await asyncio.gather(first, *others)

    batched(test, backend, quick=0)
    assert [len(call) for call in backend.calls] == [1, 64, 35]


def test_too_many_waiting_requests_are_refused_as_unavailable():
    backend = Doubling()
    backend.gate = threading.Event()

    async def test(batcher):
        first = batcher.submit({"x": [0]}, 1)
        while not backend.entered.is_set():
            await asyncio.sleep(0)
        waiting = [batcher.submit({"x": [i]}, 1) for i in range(2)]
        with pytest.raises(StatusError, match=r"queue .* is full") as caught:
            batcher.submit({"x": [9]}, 1)
        assert caught.value.code is Code.UNAVAILABLE
        backend.gate.set()
        await asyncio.gather(first, *waiting)

    batched(test, backend, quick=0, max_waiting=2)


def test_a_request_does_not_wait_for_ever():
    backend = Doubling()
    backend.gate = threading.Event()

    async def test(batcher):
        sent = [batcher.submit({"x": [i]}, 1) for i in range(2)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        backend.gate.set()
        assert {answer.code for answer in answers} == {Code.DEADLINE_EXCEEDED}
        assert (await batcher.submit({"x": [5]}, 1))["y"].tolist() == [10]

    batched(test, backend, quick=0, timeout=0.05)


def test_requests_of_a_signature_without_batches_are_answered_one_by_one():
    backend = Doubling()
    alone = Signature("s", {"x": TensorSpec(types_pb2.DT_INT64, (2,))}, SIGNATURE.outputs, batches=False)

    async def test(batcher):
        answers = await asyncio.gather(*(batcher.submit({"x": np.array([i, 0])}, None) for i in range(3)))
        assert [answer["y"].tolist() for answer in answers] == [[0, 0], [2, 0], [4, 0]]

    batched(test, backend, signature=alone)
    assert len(backend.calls) == 3


def test_a_backend_is_called_with_every_size_before_it_serves():
    backend = Doubling(sizes=(1, 2, 4))
    assert quick_rows(backend, {"x": np.zeros(4, np.int64)}) in (0, 1, 2, 4)
    assert {len(call) for call in backend.calls} == {1, 2, 4}


@pytest.mark.parametrize("quick", [0, 1000])
def test_a_request_of_many_rows_is_answered_in_parts_and_others_between_them(quick):
    backend = Doubling()

    async def test(batcher):
        large = asyncio.create_task(batcher.in_parts({"x": np.arange(1000)}, 1000))
        await asyncio.sleep(0)
        small = [batcher.submit({"x": [5000 + number]}, 1) for number in range(3)]
        assert [(await answer)["y"].tolist() for answer in small] == [[10_000], [10_002], [10_004]]
        assert not large.done()
        assert (await large)["y"].tolist() == [2 * number for number in range(1000)]

    batched(test, backend, quick=quick)
    assert max(map(len, backend.calls)) <= 64
    place = next(number for number, call in enumerate(backend.calls) if 5000 in call)
    assert place <= 2, "the others came before most parts of the large one"


def test_a_request_in_parts_does_not_take_for_ever_either():
    backend = Doubling()
    backend.run = lambda inputs: time.sleep(0.05) or {"y": inputs["x"]}

    async def test(batcher):
        with pytest.raises(StatusError) as error:
            await batcher.in_parts({"x": np.arange(64_000)}, 64_000)
        assert error.value.code is Code.DEADLINE_EXCEEDED

    batched(test, backend, quick=0, timeout=0.5)
