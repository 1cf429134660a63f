"""What runs in a replica: a model, the threads that decode for it, and the batches that it computes."""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tuner.data.decoding import quiet
from tuner.deploy.serve.answering.asked import Answered, Asked, Description
from tuner.deploy.serve.answering.batching import Batcher, in_a_thread
from tuner.deploy.serve.answering.predictor import Model, Predictor, Prepared
from tuner.deploy.serve.limits import Limits


class Replica:
    """Answers the requests of many tasks of one event loop.

    Args:
        folder: The folder of the model's checkpoint, which is not needed afterwards.
        model: The model.
        limits: What is accepted of a client.
        threads: Threads that torch computes with, and threads that decode.
        has_gpu: Whether the model may use a GPU, if there is one.

    Raises:
        UserError: The model cannot be loaded, or fails.
    """

    def __init__(self, folder: Path, model: Model, limits: Limits, threads: int, *, has_gpu: bool = False) -> None:
        self._quiet = quiet()
        self._quiet.__enter__()  # for as long as the process lives: its threads share the filter of warnings
        torch.set_num_threads(threads)
        self._predictor = Predictor(folder, model, limits, has_gpu=has_gpu)
        self._threads, self._decoders = threads, ThreadPoolExecutor(threads, thread_name_prefix="images")
        self._batches: Batcher[Prepared, Answered] = Batcher(
            in_a_thread(self._predictor.answer), lambda each: len(each.images), self._predictor.batch_size
        )

    def describe(self) -> Description:
        """What the model says of itself."""
        return self._predictor.description

    async def answer(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """Answer requests, in their order; an exception stands for the answer of one that fails.

        That is UserError of a model of the user's own.
        """
        loop = asyncio.get_running_loop()
        share = math.ceil(len(asked) / self._threads)
        parts = [asked[start : start + share] for start in range(0, len(asked), share)]
        prepared = await asyncio.gather(*(loop.run_in_executor(self._decoders, self._prepared, part) for part in parts))
        return await asyncio.gather(*(self._answered(each) for part in prepared for each in part))

    def _prepared(self, asked: Sequence[Asked]) -> "list[Prepared | Answered | Exception]":
        """Decode the images of requests."""
        prepared: list[Prepared | Answered | Exception] = []
        for each in asked:
            try:
                prepared.append(self._predictor.prepare(each))
            except Exception as error:
                prepared.append(error)
        return prepared

    async def _answered(self, prepared: "Prepared | Answered | Exception") -> Answered | Exception:
        """The answer to a request whose images are decoded."""
        if not isinstance(prepared, Prepared):
            return prepared
        try:
            return await self._batches(prepared)
        except Exception as error:
            return error
