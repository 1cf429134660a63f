"""torch's default random generators, which several trainings in one process must not share."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any, Protocol

import torch

_turn = RLock()
"""Whoever holds it draws from the default generators, in a process with several trainings."""


def undisturbed() -> AbstractContextManager[object]:
    """In the body, no training of another thread draws from the default generators, or sets their states."""
    return _turn


@contextmanager
def generators_kept() -> Iterator[None]:
    """In the body, what draws on the CPU leaves its default generator as it was, also for other threads."""
    with undisturbed(), torch.random.fork_rng(devices=[]):
        yield


class Generators(Protocol):
    """The random state of one training."""

    def own(self) -> AbstractContextManager[object]:
        """In the body, torch's default generators are those of this training, which go on where they were left."""


class OfProcess:
    """The default generators of the process, which has one training."""

    def own(self) -> AbstractContextManager[object]:
        return nullcontext()


OF_PROCESS = OfProcess()


class OfThread:
    """The random state of a training that is one of several threads.

    Whatever draws from a default generator is computed within `own`, one thread at a time. A CUDA graph keeps the
    state with which it was recorded, so that it may be repeated outside.

    Args:
        device: The device of the training.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_inside = False
        self._gpu = _default(device) if device.type == "cuda" else None
        with _turn:
            self._cpu = torch.default_generator.get_state()
            self._state = self._gpu.clone_state() if self._gpu is not None else None

    @contextmanager
    def own(self) -> Iterator[None]:
        with _turn:
            if self._is_inside:
                yield
                return
            self._is_inside = True
            cpu, state = self._exchanged(self._cpu, self._state)
            try:
                yield
            finally:
                self._cpu, self._state = self._exchanged(cpu, state)
                self._is_inside = False

    def _exchanged(self, cpu: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Set the states of the default generators, and return those that they had."""
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(cpu)
        if self._gpu is None:
            return before, None
        # Not copied: recorded graphs refer to the state itself.
        before_gpu = self._gpu.graphsafe_get_state()
        self._gpu.graphsafe_set_state(state)
        return before, before_gpu


def _default(device: torch.device) -> Any:
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return torch.cuda.default_generators[device.index or 0]
