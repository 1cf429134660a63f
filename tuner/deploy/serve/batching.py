"""Dynamic batching: whatever waits while a batch is computed is the next batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Computes what many tasks ask for in batches, one at a time, in a thread.

    A request that comes while nothing is computed is computed at once; nobody waits for a batch to fill. What comes
    meanwhile is the next batch, so that batches grow with the load. (Ray Serve's decorator waits a fixed time for each
    batch, and forms batches of what comes within it even while an earlier one is still computed.)

    Args:
        compute: Computes the answers to items, in their order.
        size: How much of a batch an item is.
        most: The most that a batch holds; an item that is more is a batch alone.
    """

    def __init__(
        self, compute: Callable[[Sequence[Item]], Sequence[Answer]], size: Callable[[Item], int], most: int
    ) -> None:
        self._compute, self._size, self._most = compute, size, most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """Compute the answer to an item. What is cancelled while it waits is not computed."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while batch := self._next():
            await self._answer(batch)

    def _next(self) -> list[tuple[Item, "asyncio.Future[Answer]"]]:
        """Take the next batch."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        room = self._most
        while self._waiting and (not batch or self._size(self._waiting[0][0]) <= room):
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
                room -= self._size(item)
        return batch

    async def _answer(self, batch: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        """Compute a batch; what fails in one of several is computed alone, so that it takes no other with it."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._compute, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for each in batch:
                    await self._answer([each])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
