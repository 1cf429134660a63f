"""A recorder of steps for the CPU: as a CUDA graph does, it repeats the same operations on the same memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Direct:
    """Records nothing, and has Python compute a function each time that its record is repeated."""

    def __init__(self) -> None:
        self.records = 0
        self.repeats = 0

    def place(self) -> AbstractContextManager[object]:
        return nullcontext()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        self.records += 1
        recorded = self.recorded(function)

        def repeat() -> None:
            self.repeats += 1
            recorded()

        return repeat

    def recorded(self, function: Callable[[], None]) -> Callable[[], None]:
        """What computes a function."""
        return function


class Tape(Direct):
    """Records operations on tensors with their very arguments: numbers are as they were, tensors are read anew.

    What is random is drawn anew from the default generator, as a graph on a GPU does.
    """

    def recorded(self, function: Callable[[], None]) -> Callable[[], None]:
        generator = torch.get_rng_state()
        with _Recording() as recording:
            function()
        torch.set_rng_state(generator)
        recording.undo()
        repeat: Callable[[], None] = recording.repeat
        return repeat


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._written: list[tuple[Tensor, Tensor]] = []
        """Tensors that were changed in place, and their values before."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            self._keep(argument, value)
        for argument in func._schema.arguments:
            if argument.name in kwargs:
                self._keep(argument, kwargs[argument.name])
        if "batch_norm" in func.name():  # whose schema does not say that it changes its running statistics
            self._written += [(each, each.detach().clone()) for each in _tensors(args)]
        result = func(*args, **kwargs)
        inputs = {each.untyped_storage().data_ptr() for each in _tensors((args, kwargs))}
        new = [each for each in _tensors(result) if each.untyped_storage().data_ptr() not in inputs]
        self._operations.append((func, args, kwargs, new))
        return result

    def _keep(self, argument: Any, value: Any) -> None:
        if argument.alias_info is not None and argument.alias_info.is_write:
            self._written += [(each, each.detach().clone()) for each in _tensors(value)]

    @torch.no_grad()
    def undo(self) -> None:
        """Undo what was computed: a recording computes nothing."""
        for tensor, before in reversed(self._written):
            tensor.detach().copy_(before)
        self._written.clear()

    @torch.no_grad()
    def repeat(self) -> None:
        """Compute the same operations."""
        for func, args, kwargs, results in self._operations:
            inputs = {each.untyped_storage().data_ptr() for each in _tensors((args, kwargs))}
            again = [
                each for each in _tensors(func(*args, **kwargs)) if each.untyped_storage().data_ptr() not in inputs
            ]
            for old, new in zip(results, again, strict=True):
                if old.numel():
                    old.detach().copy_(new)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
