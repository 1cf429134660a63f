"""Prediction on several devices at once: a thread for each gives it one batch after another."""

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import cycle

import torch
from torch import nn

from tuner.deploy.about import About
from tuner.deploy.images import Decoded
from tuner.deploy.listing import Item
from tuner.deploy.pipeline import DecodedBatch, Pipeline
from tuner.deploy.result import Result, Skipped
from tuner.interfaces import Outputs
from tuner.tasks.predictions.base import Options

_WAITING = 2
"""Batches that a device has at once: one that it computes, and one that it computes next."""


class OnDevices:
    """Predicts for any number of images, in their order. While devices compute, results are read and written.

    Args:
        module: The model, which is moved to the first device. The others get copies, once there is a batch for them.
        about: What its checkpoint says of it.
        devices: The devices.
        options: What is asked of predictions.
        batch_size: Images that a device computes at once; None for as many as in validation.
        every: Of a video, every so many frames one is predicted for; 1 for all.
    """

    def __init__(
        self,
        module: nn.Module,
        about: About,
        devices: Sequence[torch.device],
        options: Options | None = None,
        batch_size: int | None = None,
        every: int = 1,
    ) -> None:
        self._first = Pipeline(module, about, devices[0], options, batch_size, every=every)
        self._devices = [_Device(module, about, each, self._first.batch_size) for each in devices]
        self._devices[0].pipeline = self._first

    def __call__(self, items: Iterable[Item]) -> Iterator[Result | Skipped]:
        """Predict what is in images; those that cannot be read are skipped.

        Raises:
            UserError: A model of the user's own fails, or returns something else than its signature says.
        """
        most = _WAITING * len(self._devices)
        pending: deque[tuple[DecodedBatch, Future[list[tuple[Outputs, int]]]]] = deque()
        with ExitStack() as stack:
            batches = stack.enter_context(closing(self._first.batches(items, len(self._devices))))
            threads = [ThreadPoolExecutor(1, f"device-{number}") for number, _ in enumerate(self._devices)]
            for thread in threads:
                stack.callback(thread.shutdown, cancel_futures=True)
            turns = cycle(zip(threads, self._devices, strict=True))
            for batch in batches:
                thread, device = next(turns)
                pending.append((batch, thread.submit(device.outputs, batch.images)))
                if len(pending) == most:
                    yield from self._results(*pending.popleft())
            while pending:
                yield from self._results(*pending.popleft())

    def _results(
        self, batch: DecodedBatch, computing: "Future[list[tuple[Outputs, int]]]"
    ) -> Iterator[Result | Skipped]:
        return self._first.results(batch, computing.result())


class _Device:
    """A device, whose copy of the model is made in its own thread when the first batch is there.

    Args:
        module: The model, on the first device.
        about: What its checkpoint says of it.
        device: The device.
        batch_size: Images that are computed at once.
    """

    def __init__(self, module: nn.Module, about: About, device: torch.device, batch_size: int) -> None:
        self._module, self._about, self._device, self._batch_size = module, about, device, batch_size
        self.pipeline: Pipeline | None = None

    def outputs(self, images: list[Decoded]) -> list[tuple[Outputs, int]]:
        """Compute the outputs for images; see `Pipeline.outputs`."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # for code of the user's own that names no device
        if self.pipeline is None:
            module = copy.deepcopy(self._module)
            self.pipeline = Pipeline(module, self._about, self._device, batch_size=self._batch_size)
        return self.pipeline.outputs(images)
