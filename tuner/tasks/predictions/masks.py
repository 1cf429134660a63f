"""The prediction of the class of each pixel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tuner.interfaces import IGNORED, Target
from tuner.interfaces.placement import Placement
from tuner.tasks.predictions.base import Options, Pixels, Prediction
from tuner.tasks.predictions.coding import encoded


@dataclass(frozen=True, eq=False)
class MaskPrediction(Prediction):
    """The class of each pixel of an image.

    Args:
        pixels: The indices of the classes, uint8 (H, W), `IGNORED` where the image was cropped.
        names: The names of the classes.
    """

    columns = ("label", "share")
    pixels: Pixels
    names: tuple[str, ...]

    @classmethod
    def of(cls, output: Tensor, target: Target, placements: Sequence[Placement], options: Options) -> Iterator[Self]:
        names = tuple(map(target.name, range(target.size)))
        for logits, placement in zip(output, placements, strict=True):
            yield cls(_classes_of(logits.float().cpu(), placement), names)

    @property
    def classes_of_pixels(self) -> Pixels | None:
        return self.pixels

    def as_dict(self) -> dict[str, Any]:
        masks = [
            {"label": self.names[number], "share": share, "mask": encoded(self.pixels == number)}
            for number, share in self._shares()
        ]
        return {"masks": masks}

    def rows(self) -> list[dict[str, Any]]:
        return [{"label": self.names[number], "share": share} for number, share in self._shares()]

    def _shares(self) -> list[tuple[int, float]]:
        """The classes that occur, and the share of the pixels whose class is known that each has."""
        counts = np.bincount(self.pixels.ravel(), minlength=IGNORED + 1)[:IGNORED]
        return [(int(number), float(counts[number] / counts.sum())) for number in counts.nonzero()[0]]

    def __str__(self) -> str:
        shares = sorted(self._shares(), key=lambda each: -each[1])
        return ", ".join(f"{share:.0%} {self.names[number]}" for number, share in shares[:5])


def _classes_of(logits: Tensor, placement: Placement) -> Pixels:
    """The classes of the pixels of an image, by the logits (classes, h, w) of the model's input."""
    best = placement.values(logits[:1])[0]
    classes = torch.zeros(best.shape, dtype=torch.uint8)
    for number in range(1, len(logits)):  # one by one: an image may be many times as large as the input
        values = placement.values(logits[number : number + 1])[0]
        classes[values > best] = number
        best = torch.maximum(best, values)
    shown = torch.full_like(classes, IGNORED)
    shown[placement.covered] = classes[placement.covered]
    pixels: Pixels = shown.numpy()
    return pixels
