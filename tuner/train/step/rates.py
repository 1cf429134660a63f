"""The learning rates of the groups of an optimizer, step after step."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, optim

from tuner.train.optim.lr_schedules import Schedule

BuildSchedule = Callable[[optim.Optimizer], Schedule]
"""Builds a schedule, stepped after each batch, for an optimizer, whose groups have their peak learning rates."""


class Rates(ABC):
    """Sets the learning rates of an optimizer, and whatever else its schedule changes, before each step."""

    @property
    @abstractmethod
    def head(self) -> float:
        """The learning rate of the head in the next step."""

    @abstractmethod
    def begin_epoch(self) -> None:
        """Prepare the steps of an epoch."""

    @abstractmethod
    def set(self, number: Tensor) -> None:
        """Set the rates of a step.

        Args:
            number: The number of the step in its epoch, from 0, int64 (1,) on the device of the weights.
        """

    @abstractmethod
    def advance(self) -> None:
        """Go on to the rates of the next step. It is called after each step, also if that was recorded before."""

    @abstractmethod
    def skip(self, steps: int) -> None:
        """Go on by steps that were made before the trial resumed."""

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The settings of the optimizer's groups as numbers, for a checkpoint."""


class HostRates(Rates):
    """Rates that the host sets: the schedule changes the optimizer itself.

    Args:
        optimizer: The optimizer.
        build: Builds its schedule.
    """

    def __init__(self, optimizer: optim.Optimizer, build: BuildSchedule) -> None:
        self._optimizer = optimizer
        self._schedule = build(optimizer)

    @property
    def head(self) -> float:
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    def begin_epoch(self) -> None:
        pass

    def set(self, number: Tensor) -> None:
        pass

    def advance(self) -> None:
        self._schedule.step()

    def skip(self, steps: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the optimizer has not stepped yet
            for _ in range(steps):
                self._schedule.step()

    def groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._optimizer.state_dict()["param_groups"]
        return groups


class DeviceRates(Rates):
    """What a schedule changes, on the device, so that a recorded step follows the schedule without the host.

    The schedule changes a stand-in for the optimizer. Before an epoch, the learning rates of all its steps, and the
    momenta if it changes them, become a table on the device, from which each step takes its own.

    Args:
        optimizer: The optimizer, which takes what changes as tensors.
        build: Builds its schedule.
        steps: Steps of an epoch.
        device: The device of the weights.
        moves_momentum: Whether the schedule changes the momentum of the groups, or beta1 if they have one.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        build: BuildSchedule,
        steps: int,
        device: torch.device,
        *,
        moves_momentum: bool,
    ) -> None:
        self._optimizer = optimizer
        self._stand_in = _StandIn(optimizer)
        self._moves_momentum = moves_momentum and _momentum(self._stand_in.param_groups[0]) > 0
        self._schedule = build(self._stand_in)
        self._stand_in.step()  # else torch warns that the schedule steps first
        self._values = [torch.tensor(value, dtype=torch.float32, device=device) for value in self._now()]
        self._table = torch.zeros((steps, len(self._values)), dtype=torch.float32, device=device)
        self._place()

    @property
    def head(self) -> float:
        return self._now()[0]

    def begin_epoch(self) -> None:
        rows = []
        for _ in range(len(self._table)):
            rows.append(self._now())
            self._schedule.step()
        self._table.copy_(torch.tensor(rows, dtype=torch.float32))
        self._place()

    def set(self, number: Tensor) -> None:
        for own, value in zip(self._values, self._table.index_select(0, number)[0].unbind(), strict=True):
            own.copy_(value)

    def advance(self) -> None:
        pass

    def skip(self, steps: int) -> None:
        for _ in range(steps):
            self._schedule.step()

    def groups(self) -> list[dict[str, Any]]:
        groups = self._optimizer.state_dict()["param_groups"]
        return [each | own for each, own in zip(groups, self._settings(self._now()), strict=True)]

    def _now(self) -> list[float]:
        """What the schedule has set: the learning rates of all groups, and then their momenta if it changes them."""
        groups = self._stand_in.param_groups
        momenta = [_momentum(group) for group in groups] if self._moves_momentum else []
        return [*(group["lr"] for group in groups), *momenta]

    def _settings(self, values: Sequence[Any]) -> list[dict[str, Any]]:
        """The settings of each group that have the values of `_now`."""
        groups = self._stand_in.param_groups
        rates, momenta = values[: len(groups)], values[len(groups) :]
        settings: list[dict[str, Any]] = [{"lr": rate} for rate in rates]
        if momenta:
            for own, group, momentum in zip(settings, groups, momenta, strict=True):
                own |= {"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum}
        return settings

    def _place(self) -> None:
        """Give the groups their tensors, which `load_state_dict` replaces by copies."""
        for group, settings in zip(self._optimizer.param_groups, self._settings(self._values), strict=True):
            group.update(settings)


def _momentum(group: Mapping[str, Any]) -> float:
    """What schedules of the momentum change."""
    momentum: float = group["betas"][0] if "betas" in group else group["momentum"]
    return momentum


class _StandIn(optim.Optimizer):
    """An optimizer of nothing, whose groups have the settings of another one."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        groups = [self._without_parameters(group) | {"params": [torch.zeros(())]} for group in optimizer.param_groups]
        super().__init__(groups, dict(optimizer.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing."""

    @staticmethod
    def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in group.items() if name not in ("params", "param_names")}
