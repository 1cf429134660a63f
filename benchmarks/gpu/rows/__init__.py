"""The rows of the table, in the order in which they are measured: what each one is, its target, and its time."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.setting import Setting


@dataclass(frozen=True)
class Row:
    """A row.

    Args:
        name: What `--only` takes.
        what: What is measured, in words.
        target: What is aimed at on a GPU.
        seconds: What it may take on a GPU.
        measured_by: A generator of `Figure` from a `Setting`, as ``module:function``, of this package.
        is_extra: Whether it is measured only where it is named, for its time would be too much.
    """

    name: str
    what: str
    target: str
    seconds: int
    measured_by: str
    is_extra: bool = False

    def measure(self, setting: Setting) -> Iterator[Figure]:
        """Measure it; raise Skipped where it cannot be measured, and whatever fails."""
        module, _, function = self.measured_by.partition(":")
        return cast(Iterator[Figure], getattr(import_module(f"{__name__}.{module}"), function)(setting))


ROWS = (
    Row(
        "one-trial",
        "the main job's CNN, batch 64, one trial",
        "8 times the eager loop",
        35,
        "one_trial:measure",
    ),
    Row(
        "sixteen",
        "16 trials of it on one GPU by `tuner run`",
        "4.5 times four processes, 500,000 images/s",
        60,
        "many_trials:sixteen",
    ),
    Row(
        "sixteen-compiled",
        "the same with `trial.compile: on`",
        "600,000 images/s",
        45,
        "many_trials:sixteen_compiled",
    ),
    Row(
        "beside",
        "a trial beside 15 others: its weights, against those of itself alone",
        "no difference",
        15,
        "beside:measure",
    ),
    Row(
        "main-job",
        "seconds of the whole main job, `tuner run experiments/mnist_grid.yaml`",
        "20 s",
        50,
        "main_job:measure",
    ),
    Row(
        "resnet18-16",
        "ResNet-18 of width 16, 32x32, batch 128, 16 trials",
        "160,000 images/s",
        45,
        "many_trials:narrow",
    ),
    Row(
        "resnet18-64",
        "ResNet-18 of width 64, 32x32, batch 128, 4 trials",
        "55,000 images/s",
        40,
        "many_trials:wide",
    ),
    Row(
        "resnet18-64-compiled",
        "the same with `trial.compile: on`",
        "75,000 images/s",
        40,
        "many_trials:wide_compiled",
    ),
    Row(
        "resnet50",
        "ResNet-50, 224x224, batch 128, channels last, bfloat16",
        "0.95 times a plain, well-written loop; 40 % of the card's matrix multiplication",
        40,
        "resnet50:measure",
    ),
    Row(
        "accuracy",
        "accuracy over 10 seeds, recorded and eager steps",
        "equal within 2 standard errors",
        20,
        "accuracy:measure",
    ),
    Row(
        "mps",
        "16 processes under MPS, each with its graph, beside the trials of one job",
        "none: it says what MPS gives and costs",
        40,
        "mps:measure",
    ),
    Row(
        "two-hundred",
        "a whole job of 200 trials of the CNN, 2 epochs each, against an earlier commit",
        "4 times faster",
        40,
        "short_trials:measure",
    ),
    Row(
        "one-trial-others",
        "one trial of other models: an MLP, the ResNet-18 of width 16 and of width 64",
        "none",
        90,
        "one_trial:others",
        is_extra=True,
    ),
)


def named(names: Collection[str] = (), *, extra: bool = False) -> list[Row]:
    """Rows in the order of the table.

    Args:
        names: Their names; none for all that are measured by default.
        extra: Whether the others are, too.
    """
    return [row for row in ROWS if (row.name in names if names else extra or not row.is_extra)]
