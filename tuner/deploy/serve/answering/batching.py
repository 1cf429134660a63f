"""Dynamic batching: whatever waits while batches are answered is the next batch."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Answers what many tasks of an event loop ask for, in batches.

    An item that comes while nothing is answered is answered at once; nobody waits for a batch to fill. What comes
    meanwhile is the next batch, so that batches grow with the load. (Ray Serve's decorator waits a fixed time for each
    batch, and forms batches of what comes within it even while an earlier one is still computed.)

    Args:
        answer: Answers items, in their order; an exception stands for the answer of one that fails.
        size: How much of a batch an item is.
        most: The most that a batch holds; an item that is more is a batch alone.
        at_once: Most batches that are answered at once.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        size: Callable[[Item], int],
        most: int,
        at_once: int = 1,
    ) -> None:
        self._answer, self._size, self._most = answer, size, most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._free = at_once
        self._running: set[asyncio.Task[None]] = set()
        self._is_about_to_start = False

    async def __call__(self, item: Item) -> Answer:
        """Answer an item. What is cancelled while it waits is not answered."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_about_to_start:  # together with what else comes in this turn of the loop
            self._is_about_to_start = True
            loop.call_soon(self._start)
        return await future

    def _start(self) -> None:
        """Start as many batches as may be answered now."""
        self._is_about_to_start = False
        while self._free and (batch := self._next()):
            self._free -= 1
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next(self) -> list[tuple[Item, "asyncio.Future[Answer]"]]:
        """Take the next batch: its share of what waits, so that batches that run side by side are alike."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        room, share = self._most, math.ceil(len(self._waiting) / self._free)
        while self._waiting and (not batch or (len(batch) < share and self._size(self._waiting[0][0]) <= room)):
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
                room -= self._size(item)
        return batch

    async def _run(self, batch: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        """Answer a batch, and start the next one."""
        try:
            answers = await self._answer([item for item, _ in batch])
        except Exception as error:
            answers = [error] * len(batch)
        finally:
            self._free += 1
        self._start()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def in_a_thread(
    compute: Callable[[Sequence[Item]], Sequence[Answer]],
) -> Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]]:
    """Have answers computed in a thread; what fails in one of several is computed alone, and takes no other along.

    Args:
        compute: Computes the answers to items, in their order.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def computed(batch: Sequence[Item]) -> Sequence[Answer | Exception]:
        try:
            return compute(batch)
        except Exception as error:
            return [error] if len(batch) == 1 else [answer for each in batch for answer in computed([each])]

    async def answer(batch: Sequence[Item]) -> Sequence[Answer | Exception]:
        return await asyncio.get_running_loop().run_in_executor(thread, computed, batch)

    return answer
