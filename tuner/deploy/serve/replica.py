"""What runs in a replica: a model, the threads that decode for it, and the batches that it computes."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tuner.data.decoding import quiet
from tuner.deploy.serve.asked import Answered, Asked, Description
from tuner.deploy.serve.batching import Batcher
from tuner.deploy.serve.limits import Limits
from tuner.deploy.serve.predictor import Model, Predictor, Prepared


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
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="images")
        self._batches: Batcher[Prepared, Answered] = Batcher(
            self._computed, lambda each: len(each.images), self._predictor.batch_size
        )

    def describe(self) -> Description:
        """What the model says of itself."""
        return self._predictor.description

    async def answer(self, asked: Asked) -> Answered:
        """Answer a request.

        Raises:
            UserError: A model of the user's own fails.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._decoders, self._predictor.prepare, asked)
        return prepared if isinstance(prepared, Answered) else await self._batches(prepared)

    def _computed(self, batch: Sequence[Prepared]) -> Sequence[Answered]:
        return self._predictor.answer(batch)
