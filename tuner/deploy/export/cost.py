"""What the quantization of a file costs and saves: accuracy, size and latency before and after."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from tuner.data.images import OnceRead
from tuner.deploy.about import About
from tuner.deploy.evaluate.classes import match_targets
from tuner.deploy.evaluate.measured import measure
from tuner.deploy.evaluate.sets import WHOLE, EvaluationSet, evaluation_set
from tuner.deploy.export.base import Run

CALIBRATED = 256
"""Images, at the most, from which the ranges of values come."""
_RUNS = 30
"""Times that the latency is measured."""
_ORDER: tuple[OnceRead, ...] = ("validation", "train", "test")
"""The set that is used of data with several: the first that there is. The test set is for what is chosen in the end."""


@dataclass(frozen=True)
class Figures:
    """What was measured of a file.

    Args:
        metrics: The task's metrics by name.
        size: Its size in bytes.
        latency_ms: Median time for one image in milliseconds, on the CPU.
    """

    metrics: Mapping[str, float]
    size: int
    latency_ms: float


@dataclass(frozen=True)
class Cost:
    """A file before and after it was quantized, measured on the same images.

    Args:
        before: The file in float32.
        after: The one with 8-bit integers.
        data: The images, in words.
        calibrated: How many of them the ranges of values come from.
    """

    before: Figures
    after: Figures
    data: str
    calibrated: int


def labelled(data: Path, about: About) -> EvaluationSet:
    """The images by which a file is calibrated and measured: those of the validation set, if the data have one.

    Raises:
        UserError: There are no such data, or they are not for the model.
    """
    of = evaluation_set(data, None, {}, order=_ORDER)
    return of.with_objects() if any(each.instances for each in about.signature.targets.values()) else of


def calibrating(of: EvaluationSet, about: About) -> Tensor:
    """The first images of a set, uint8 (N, C, H, W).

    Raises:
        UserError: They cannot be read.
    """
    with of.opened(about.form, torch.device("cpu")) as source:
        batches = list(source.first(min(CALIBRATED, len(source))).batches(CALIBRATED))
        return torch.cat([as_bytes(batch.inputs) for batch in batches])


def as_bytes(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1] as the bytes that they were."""
    return (images * 255).round().to(torch.uint8).contiguous()


def cost_of(files: Mapping[Path, Run], of: EvaluationSet, about: About, calibrated: int) -> Cost:
    """Measure a file before and after it was quantized; the latencies in turns.

    Args:
        files: The two files, and what computes them.
        of: The images.
        about: What is known of the model.
        calibrated: How many of the images the ranges of values come from.

    Raises:
        UserError: The images cannot be read, or are not for the model.
    """
    matches = match_targets(about, of.targets, of.source)
    cpu = torch.device("cpu")
    metrics = [measure(_Module(run), about, of, matches, cpu).meter.compute() for run in files.values()]
    size = about.signature.input
    one = torch.full((1, size.channels, size.height, size.width), 127, dtype=torch.uint8)
    seconds: list[list[float]] = [[] for _ in files]
    for _ in range(_RUNS):
        for run, each in zip(files.values(), seconds, strict=True):
            started = time.perf_counter()
            run(one)
            each.append(time.perf_counter() - started)
    before, after = (
        Figures(found, path.stat().st_size, 1000 * median(each))
        for path, found, each in zip(files, metrics, seconds, strict=True)
    )
    return Cost(before, after, f"the {of.name} set of {of.source}" if of.name != WHOLE else of.source, calibrated)


class _Module(nn.Module):
    """A module that computes images in [0, 1] by a file."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        outputs = dict(self.run(as_bytes(images)))
        return outputs.get("", outputs)
