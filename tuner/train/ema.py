"""The exponential moving average of the weights, which often generalizes better than the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from tuner.config import Config

PREFIX = "ema_"
"""What the names of the metrics of the averaged weights begin with, behind that of the set: ``val_ema_accuracy``."""


class EMA(Config):
    """An exponential moving average of the weights, measured beside the weights that are trained.

    A checkpoint's model has the averaged weights if the experiment's (first) objective measures them, as
    ``val_ema_accuracy`` does, else those that are trained.
    """

    decay: float = Field(0.999, gt=0, lt=1)
    """Share of the average that remains at each step of the optimizer. After t steps it is at most (1 + t) / (10 + t),
    so that the average soon forgets the new weights."""


class AveragedWeights:
    """The moving average of the parameters and the buffers of a module; whole numbers are those of the last step.

    It is not torch's `AveragedModel`, which waits for the device at each step and whose decay has no warm-up.

    Args:
        module: The module, which is trained.
        decay: Share of the average that remains at each step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._steps = 0
        self._averages: dict[str, Tensor] = {}
        self._shares: Tensor | None = None

    def begin_epoch(self, steps: int, device: torch.device) -> None:
        """Compute the shares of the new weights in the averages of an epoch.

        Args:
            steps: Steps of the epoch.
            device: The device of the weights.
        """
        before = range(self._steps, self._steps + steps)
        shares = [1 - min(self._decay, (1 + step) / (10 + step)) for step in before]
        table = torch.tensor(shares, dtype=torch.float32)
        if self._shares is None:
            self._shares = table.to(device)
        else:  # in place: a recorded step reads them there
            self._shares.copy_(table)

    @torch.no_grad()
    def update(self, number: Tensor) -> None:
        """Add the weights after a step of the optimizer. Nothing waits for the device.

        Args:
            number: The number of the step in its epoch, from 0, int64 (1,) on the device of the weights.
        """
        assert self._shares is not None, "`begin_epoch` computes them"
        weights = self._weights()
        if not self._averages:
            self._averages = {name: weight.clone() for name, weight in weights.items()}
        real = [name for name, weight in weights.items() if weight.is_floating_point() or weight.is_complex()]
        whole = [*(weights.keys() - {*real})]
        if real:
            averages, news = _pair(self._averages, weights, real)
            share = self._shares.index_select(0, number)[0]
            torch._foreach_lerp_(averages, news, [share.to(each.dtype) for each in averages])
        if whole:
            torch._foreach_copy_(*_pair(self._averages, weights, whole))

    def advance(self) -> None:
        """Count a step. It is called after each one, also if that was recorded before."""
        self._steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the module the averaged weights within the body."""
        trained = {name: weight.detach().clone() for name, weight in self._weights().items()}
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(trained)

    def state_dict(self) -> dict[str, Any]:
        """The module's `state_dict` with the averaged weights."""
        state = self._module.state_dict()
        state.update(self._averages)
        return state

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the averaged weights."""
        return {"steps": self._steps}

    def load(self, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Go on from what `state_dict` and `state` returned."""
        self._steps = state["steps"]
        self._averages = {name: weights[name].to(weight, copy=True) for name, weight in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        # Read anew each time, because a module may replace its buffers; not detached, which takes time.
        state = self._module.state_dict(keep_vars=True)
        return {name: each for name, each in state.items() if isinstance(each, Tensor)}

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, weight in self._weights().items():
            weight.copy_(values[name])


def _pair(first: dict[str, Tensor], second: dict[str, Tensor], names: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    return [first[name] for name in names], [second[name] for name in names]
