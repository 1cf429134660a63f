"""Trainings in this process: by tuner's loop, and by the textbook's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import textbook
from benchmarks.gpu.figures import Ratios
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.workloads import AsPictures, Workload
from tuner.objectives import Objective
from tuner.report_keys import COMPILE, GRAPH
from tuner.train import checkpoint
from tuner.train.device import keep_freed_memory
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

OBJECTIVE = Objective(metric="val_accuracy", mode="max")


@dataclass(frozen=True)
class Training:
    """A finished training.

    Args:
        speed: Images per second of the loop: the median of all epochs but the first, in which workers start, and in
            which a step is watched and recorded.
        accuracy: On the validation set after the last epoch, in [0, 1].
        first: Seconds of the first epoch, with its validation.
        how: What the trial says of its steps; empty on a CPU.
        weights: The weights after the last epoch, on the CPU.
    """

    speed: float
    accuracy: float
    first: float
    how: str = ""
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def ours(setting: Setting, trial: Mapping[str, Any], seed: int = 0) -> Training:
    """Train by tuner's loop, as a trial that has the device to itself."""
    reports: list[dict[str, Any]] = []
    weights: dict[str, Tensor] = {}

    def report(metrics: dict[str, Any], save: checkpoint.Save) -> None:
        reports.append(metrics)
        if metrics["epoch"] == trial["epochs"]:
            weights.update(save.snapshot().weights)

    train(setting, TrialConfig.model_validate({**trial, "seed": seed}), report)
    speed = median(each["images_per_second"] for each in reports[1:])
    how = "; ".join(str(reports[-1][key]) for key in (GRAPH, COMPILE) if key in reports[-1])
    return Training(speed, reports[-1]["val_accuracy"], reports[0]["epoch_seconds"], how, weights)


def train(setting: Setting, config: TrialConfig, report: Callable[[dict[str, Any], checkpoint.Save], None]) -> None:
    """Train a trial with the settings of a worker's process."""
    keep_freed_memory()
    fit(config, OBJECTIVE, report, device=setting.device)


def images_of(trial: Mapping[str, Any]) -> int:
    """The number of training images of an epoch."""
    description = TrialConfig.model_validate(trial).data.describe()
    assert description is not None, "the data of the benchmark say what they are"
    return description.sizes["train"]


def weights_after(setting: Setting, config: TrialConfig, epoch: int) -> dict[str, Tensor]:
    """Train a trial alone up to an epoch, and return its weights, on the CPU."""
    found: dict[str, Tensor] = {}

    def report(metrics: dict[str, Any], save: checkpoint.Save) -> None:
        if metrics["epoch"] == epoch:
            found.update(save.snapshot().weights)
            raise _Enough

    try:
        train(setting, config, report)
    except _Enough:
        return found
    raise AssertionError(f"the trial has no epoch {epoch}")


class _Enough(Exception):
    """The epoch that was asked for is over."""


def by_textbook(setting: Setting, workload: Workload, *, epochs: int, limit: int, seed: int = 0) -> Training:
    """Train by the textbook loop, whose images two workers read."""
    from torchvision import transforms

    config = TrialConfig.model_validate(workload.trial(setting, epochs=epochs, limit=limit) | {"seed": seed})
    steps: list[Any] = [transforms.ToTensor()]
    steps += [transforms.Normalize((0.1307,), (0.3081,))] if workload.is_cnn else []  # others contain that
    images, held_out = (
        AsPictures(each.images, each.targets["label"], transforms.Compose(steps)) for each in config.data.load()
    )

    def build() -> nn.Module:
        return textbook.build_model() if workload.is_cnn else config.build_model()

    reports: list[dict[str, float]] = []
    textbook.train(
        images,
        held_out,
        lambda metrics, model: reports.append(metrics),
        lr=0.01,
        momentum=0.9,
        epochs=epochs,
        seed=seed,
        device=setting.device,
        workers=setting.sized(2, 0),
        build=build,
        batch_size=workload.batch,
    )
    speed = median(each["images_per_second"] for each in reports[1:])
    return Training(speed, reports[-1]["val_accuracy"], reports[0]["epoch_seconds"])


@dataclass(frozen=True)
class References:
    """Images per second of one trial, in this run: the textbook loop, and tuner's with `graph: off`."""

    textbook: list[float]
    eager: list[float]

    def ratios(self, values: Sequence[float]) -> Ratios:
        """How many times the medians of the references values are."""
        return Ratios(
            times_textbook=[each / median(self.textbook) for each in values],
            times_eager=[each / median(self.eager) for each in values],
        )


def references(setting: Setting, workload: Workload, turns: int = 2) -> References:
    """The references of a workload, measured once a run."""

    def measure() -> dict[str, Any]:
        limit, epochs = setting.sized(10_000, 128), 3
        found: dict[str, list[float]] = {"textbook": [], "eager": []}
        eager = workload.trial(setting, epochs=epochs, limit=2 * limit, graph="off")
        for turn in setting.turns(turns):
            found["textbook"].append(by_textbook(setting, workload, epochs=2, limit=limit, seed=turn).speed)
            found["eager"].append(ours(setting, eager, turn).speed)
        return found

    return References(**setting.once(f"references-{workload.name}", measure))


def device_name() -> str:
    """The name of the first GPU that this process may use; empty if there is none."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
