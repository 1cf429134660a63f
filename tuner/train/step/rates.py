"""The learning rates of the groups of an optimizer, step after step."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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
    """Learning rates that lie on the device, so that a recorded step follows the schedule without the host.

    The schedule changes a stand-in for the optimizer. Before an epoch, the rates of all its steps become a table on the
    device, from which each step takes its own.

    Args:
        optimizer: The optimizer, which takes learning rates as tensors.
        build: Builds its schedule, which changes nothing but learning rates.
        steps: Steps of an epoch.
        device: The device of the weights.
    """

    def __init__(self, optimizer: optim.Optimizer, build: BuildSchedule, steps: int, device: torch.device) -> None:
        self._optimizer = optimizer
        self._stand_in = _StandIn(optimizer)
        self._schedule = build(self._stand_in)
        self._stand_in.step()  # else torch warns that the schedule steps first
        self._rates = [torch.tensor(rate, dtype=torch.float32, device=device) for rate in self._now()]
        self._table = torch.zeros((steps, len(self._rates)), dtype=torch.float32, device=device)
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
        for rate, value in zip(self._rates, self._table.index_select(0, number)[0].unbind(), strict=True):
            rate.copy_(value)

    def advance(self) -> None:
        pass

    def skip(self, steps: int) -> None:
        for _ in range(steps):
            self._schedule.step()

    def groups(self) -> list[dict[str, Any]]:
        groups = self._optimizer.state_dict()["param_groups"]
        own = [each | {"lr": rate} for each, rate in zip(groups, self._now(), strict=True)]
        return [each | ({"capturable": False} if "capturable" in each else {}) for each in own]

    def _now(self) -> list[float]:
        return [group["lr"] for group in self._stand_in.param_groups]

    def _place(self) -> None:
        """Give the groups their tensors, which `load_state_dict` replaces by copies."""
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:  # torch's word: all that a step reads lies on a GPU
                group["capturable"] = rate.device.type == "cuda"


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
