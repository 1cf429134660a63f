"""Where the time of an epoch goes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.train.profiling.trace import Operator
from tuner.train.trial_config import TrialConfig

Part = Literal["kernels", "launches", "operators", "host", "waiting for data", "evaluation", "checkpoint", "report"]

MEANING: dict[Part, str] = {
    "kernels": "the GPU computes or copies, whatever the host does meanwhile",
    "launches": "the host launches kernels, and the GPU waits",
    "operators": "torch's operators compute on the CPU",
    "host": "Python between the operators",
    "waiting for data": "until the next training batch is read or decoded; what lies in memory is gathered by the step",
    "evaluation": "the validation set, its metrics included",
    "checkpoint": "copying and writing the state; a job does that while the next epoch trains",
    "report": "passing the metrics on",
}
"""What each part of an epoch's time is, in the order in which they are shown."""


@dataclass(frozen=True)
class Profile:
    """Where the time of an epoch goes.

    Args:
        config: The trial.
        device: The name of the device.
        seconds: Seconds of an epoch by what they are spent on. On a GPU the training is split into kernels, launches
            and host; elsewhere into operators and host.
        steps: Steps of an epoch.
        images: Images of the training set.
        waiting_in_evaluation: Seconds of the evaluation in which it waited for data.
        operators: The operators of a training step, the longest one first.
        launches: Kernels and copies that a step launches; None where no GPU computes.
        slowdown: How much longer a step took while torch's profiler traced it, as a factor.
        measured: Steps and validation images of a measured epoch if there were fewer than in a whole one; else None.
        epochs: Number of the measured epochs.
        precision: The type of matrix arithmetic.
        how: How a GPU computed the steps: recorded, as a graph, or eagerly and why; empty elsewhere.
        note: What could not be measured; empty if everything was.
    """

    config: TrialConfig
    device: str
    seconds: Mapping[Part, float]
    steps: int
    images: int
    waiting_in_evaluation: float
    operators: Sequence[Operator]
    launches: float | None
    slowdown: float
    measured: tuple[int, int] | None
    epochs: int
    precision: str
    how: str = ""
    note: str = ""

    @property
    def wall(self) -> float:
        """Seconds of an epoch."""
        return sum(self.seconds.values())

    @property
    def training(self) -> float:
        """Seconds of the training in an epoch, without evaluation, checkpoint and report."""
        names: tuple[Part, ...] = ("kernels", "launches", "operators", "host", "waiting for data")
        return sum(self.seconds.get(name, 0.0) for name in names)

    def share(self, part: Part) -> float:
        """The share of a part in the time of an epoch, in [0, 1]; 0 if it has no meaning on the device."""
        return self.seconds.get(part, 0.0) / self.wall

    def percentages(self) -> dict[Part, float]:
        """The shares in percent, to a tenth, which sum to exactly 100.0."""
        exact = {part: 1000 * self.share(part) for part in self.seconds}
        whole = {part: math.floor(value) for part, value in exact.items()}
        # The parts that lost most by rounding down get the rest.
        by_loss = sorted(exact, key=lambda part: whole[part] - exact[part])
        for part in by_loss[: 1000 - sum(whole.values())]:
            whole[part] += 1
        return {part: value / 10 for part, value in whole.items()}
