"""Finds out whether a function can be recorded: whether it computes the same each time, and never asks the device."""

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ASKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""What torch says of an operation whose result the host needs, before it can go on."""
_INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
"""Operations that ask the device if, and only if, an index is of booleans."""
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")


@dataclass(frozen=True)
class Operations:
    """What a function computed in one call.

    Args:
        each: Its operations on tensors, with the forms of these and the arguments that are none.
        why_not: Why it cannot be recorded, in words that follow "since"; empty if that is not known of this call.
    """

    each: list[tuple[Any, ...]]
    why_not: str

    def why_not_as(self, other: "Operations") -> str:
        """Why neither call stands for the other one, which a record would make it do; empty if they are the same."""
        if self.each == other.each:
            return ""
        pairs = zip(self.each, other.each, strict=False)
        differs = next((first[0] for first, second in pairs if first != second), "one more operation")
        return f"two steps compute different things: {differs}"


def watched(function: Callable[[], None], device: torch.device) -> Operations:
    """Call a function that computes on a device, and note what it computes.

    It takes milliseconds more than the function.
    """
    before = _generators_of_host(device)
    with _Watch(device) as watch:
        function()
    why_not = watch.why_not
    if not why_not and before != _generators_of_host(device):
        why_not = "random numbers are drawn on the host, which a record would repeat"
    return Operations(watch.operations, why_not)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation on tensors.

    Args:
        device: Where they are to be computed.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, ...]] = []
        self.why_not = ""
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = tree_leaves((args, kwargs or {}))
        if not self.why_not and _asks(func, args):
            self.why_not = f"the host needs a value from the device: {func.name()}{_line()}"
        result = func(*args, **(kwargs or {}))
        if not self.why_not and self._crosses([*arguments, *tree_leaves(result)]):
            self.why_not = f"the host and the device copy from each other: {func.name()}{_line()}"
        self.operations.append((func.name(), *map(self._noted, arguments)))
        return result

    def _crosses(self, values: list[Any]) -> bool:
        """Whether tensors of an operation lie on the device, and others, which are no single numbers, on the host."""
        types = {each.device.type for each in values if isinstance(each, Tensor) and each.ndim}
        return len(types) > 1

    def _noted(self, value: Any) -> Any:
        """What identifies an argument: the form of a tensor on the device, and the value of anything else."""
        if not isinstance(value, Tensor):
            return value if isinstance(value, int | float | str | None) else str(value)
        form = (tuple(value.shape), value.stride(), value.dtype, value.device)
        is_number = value.ndim == 0 and value.device.type != self._device.type  # such as a factor of a loss
        return (*form, value.tolist()) if is_number else form


def _asks(func: Any, args: Any) -> bool:
    """Whether an operation waits for the device."""
    if func.overloadpacket in _INDEXING:
        return any(each.dtype in (torch.bool, torch.uint8) for each in tree_leaves(args[1]) if isinstance(each, Tensor))
    return bool(_ASKS & set(func.tags))


def _line() -> str:
    """The last line of code that called an operation and is not torch's; empty in a backward pass, which has none."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_LIBRARIES):
            return f" in {frame.filename}, line {frame.lineno}: {frame.line}"
    return ""


def _generators_of_host(device: torch.device) -> list[Any]:
    """The states of the generators of random numbers that do not lie on the device."""
    states: list[Any] = [random.getstate(), str(np.random.get_state())]
    return states if device.type == "cpu" else [*states, torch.get_rng_state().tolist()]
