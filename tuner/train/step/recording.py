"""Recording of a step, so that it is repeated without Python: an interface, and what has nothing recorded."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

Graph = Literal["auto", "on", "off"]
"""Whether steps are recorded: wherever they can be, in any case, or never."""


class Recorder(Protocol):
    """Records what a function computes on a device. A CUDA graph is such a record.

    A record repeats the same kernels on the same memory: what the host computes in between, and what it decides, is as
    it was when it was recorded. The function therefore reads what changes from tensors, and writes what is wanted into
    tensors, all of which were there before.
    """

    def place(self) -> AbstractContextManager[object]:
        """Where all of the training that has recorded steps is computed, such as a stream of a GPU."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record a function, of which nothing is computed now.

        Returns:
            What computes it.

        Raises:
            Unrecordable: The function does something that cannot be recorded.
        """


class Unrecordable(Exception):
    """A function cannot be recorded. Its text says why, in words that follow "since"."""


@dataclass(frozen=True)
class Unrecorded:
    """Records nothing: each step is computed by Python.

    Args:
        why: Why, in words that follow "eagerly, since".
    """

    why: str

    def place(self) -> AbstractContextManager[object]:
        return nullcontext()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        raise Unrecordable(self.why)
