"""Dynamic batching."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from served import within

from tuner.deploy.serve.answering.batching import Batcher, in_a_thread


class Computed:
    """Doubles numbers, when it is told to; 13 fails."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        assert self.go.wait(60)
        self.batches.append(list(batch))
        if 13 in batch:
            raise ValueError("thirteen")
        return [2 * each for each in batch]


def test_what_waits_meanwhile_is_the_next_batch() -> None:
    computed = Computed()

    async def ask() -> list[int]:
        batcher = Batcher(in_a_thread(computed), lambda each: 1, 4)
        first = asyncio.create_task(batcher(0))
        while not batcher._running:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher(number)) for number in range(1, 7)]
        await asyncio.sleep(0.05)
        computed.go.set()
        return await asyncio.gather(first, *rest)

    assert within(ask()) == [0, 2, 4, 6, 8, 10, 12]
    assert computed.batches in ([[0], [1, 2, 3, 4], [5, 6]], [[0, 1, 2, 3], [4, 5, 6]]) and computed.batches[0][0] == 0


def test_items_are_of_several_sizes() -> None:
    computed = Computed()
    computed.go.set()

    async def ask() -> list[int]:
        batcher = Batcher(in_a_thread(computed), lambda each: each, 5)
        return await asyncio.gather(*(batcher(number) for number in (2, 3, 9, 4, 1, 1)))

    assert within(ask()) == [4, 6, 18, 8, 2, 2]
    assert computed.batches == [[2, 3], [9], [4, 1], [1]], "one that is too large is a batch alone"


def test_one_that_fails_takes_no_other_with_it() -> None:
    computed = Computed()
    computed.go.set()

    async def ask() -> list[int | BaseException]:
        batcher = Batcher(in_a_thread(computed), lambda each: 1, 9)
        return await asyncio.gather(*(batcher(number) for number in (1, 13, 2)), return_exceptions=True)

    one, failed, two = within(ask())
    assert (one, two) == (2, 4) and isinstance(failed, ValueError)
    assert computed.batches == [[1, 13, 2], [1], [13], [2]]


def test_what_is_cancelled_while_it_waits_is_not_computed() -> None:
    computed = Computed()

    async def ask() -> None:
        batcher = Batcher(in_a_thread(computed), lambda each: 1, 1)
        first, second = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await asyncio.sleep(0.05)
        second.cancel()
        computed.go.set()
        assert await first == 2
        with pytest.raises(asyncio.CancelledError):
            await second
        assert await batcher(3) == 6, "it goes on"

    within(ask())
    assert computed.batches == [[1], [3]]


def test_batches_side_by_side_share_what_waits() -> None:
    batches: list[list[int]] = []
    go = asyncio.Event()

    async def answer(batch: Sequence[int]) -> list[int | Exception]:
        batches.append(list(batch))
        await go.wait()
        return [ValueError("thirteen") if each == 13 else 2 * each for each in batch]

    async def ask() -> list[int | BaseException]:
        batcher = Batcher(answer, lambda each: 1, 9, at_once=2)
        first = [asyncio.create_task(batcher(number)) for number in range(5)]
        await asyncio.sleep(0.01)
        more = [asyncio.create_task(batcher(number)) for number in (13, 14)]
        await asyncio.sleep(0.01)
        assert batches == [[0, 1, 2], [3, 4]], "no more than two at once"
        go.set()
        return await asyncio.gather(*first, *more, return_exceptions=True)

    *answers, failed, last = within(ask())
    assert answers == [0, 2, 4, 6, 8] and isinstance(failed, ValueError) and last == 28
    assert [each for batch in batches for each in batch] == [0, 1, 2, 3, 4, 13, 14]


def test_a_call_that_fails_fails_for_all_and_the_next_one_is_made() -> None:
    calls = 0

    async def answer(batch: Sequence[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError
        return list(batch)

    async def ask() -> list[int | BaseException]:
        batcher = Batcher(answer, lambda each: 1, 9)
        failed = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
        return [*failed, await batcher(3)]

    *failed, last = within(ask())
    assert [type(each) for each in failed] == [ConnectionError] * 2 and (calls, last) == (2, 3)
