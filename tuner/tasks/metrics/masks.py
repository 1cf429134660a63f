"""Meters of masks, in which each pixel has one class: outputs are logits (N, classes, H, W).

Pixels whose class is unknown do not count.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.interfaces import IGNORED
from tuner.tasks.metrics.meter import ByClass, CountMeter, SumMeter, macro_of

_TOLERANCE = 0.0075
"""Distance, as a share of the image's diagonal, within which a boundary is found (Csurka et al., 2013)."""


class PixelAccuracy(SumMeter):
    """Share of the pixels whose largest output is that of their class, in [0, 1]."""

    names = ("accuracy",)

    def _zeros(self, output: Tensor) -> Tensor:
        return super()._zeros(output).new_zeros((2,))

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        hits = output.argmax(dim=1) == target  # no class has the index of an ignored pixel
        sums += torch.stack([hits.sum(), (target != IGNORED).sum()])

    def compute(self) -> dict[str, float]:
        hits, known = self.sums.tolist()
        return {"accuracy": hits / max(known, 1)}


class Regions(CountMeter):
    """How well the regions of the classes are found, over the pixels of all samples together.

    Averages are over the classes that occur or are predicted.
    """

    names = ("miou", "dice", "accuracy")

    def _zeros(self, output: Tensor) -> Tensor:
        classes = output.shape[1]
        return torch.zeros(classes * classes + 1, dtype=torch.int64, device=output.device)

    def _cells(self, output: Tensor, target: Tensor) -> Tensor:
        classes = output.shape[1]
        cells = target.long() * classes + output.argmax(dim=1)
        return torch.where(target == IGNORED, classes * classes, cells).flatten(1)  # the last cell is not read

    @property
    def confusion(self) -> list[list[int]]:
        """The confusion matrix, in counts of pixels: rows are true classes, columns predicted ones."""
        rows: list[list[int]] = self._matrix().tolist()
        return rows

    def compute(self) -> dict[str, float]:
        hits, predicted, true = self._counts()
        occurs = predicted + true > 0
        iou, dice = _overlaps(hits, predicted, true)
        accuracy = hits.sum() / true.sum().clamp(min=1)
        return {"miou": macro_of(iou, occurs), "dice": macro_of(dice, occurs), "accuracy": accuracy.item()}

    def by_class(self) -> ByClass:
        hits, predicted, true = self._counts()
        iou, dice = _overlaps(hits, predicted, true)
        columns = {
            "iou": iou,
            "dice": dice,
            "precision": hits / predicted.clamp(min=1),
            "recall": hits / true.clamp(min=1),
            "support": true,
        }
        return {name: values.tolist() for name, values in columns.items()}

    def _matrix(self) -> Tensor:
        cells = self.sums[:-1]
        return cells.view(math.isqrt(len(cells)), -1)

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The pixels of each class that are predicted as such, those that are predicted, and those that have it."""
        matrix = self._matrix()
        return matrix.diagonal().double(), matrix.sum(dim=0).double(), matrix.sum(dim=1).double()


class Boundaries(SumMeter):
    """How well the boundaries of the classes' regions are found, in [0, 1] (Csurka et al., 2013).

    A pixel of a predicted boundary is right if the true boundary of that class is near, and one of a true boundary is
    found if a predicted one is near: within 0.75 % of the image's diagonal, in a square. The F1 of each class is over
    the pixels of all samples together, and averaged over the classes that have a boundary. Boundaries with regions
    whose class is unknown do not count.
    """

    names = ("boundary_f",)

    def _zeros(self, output: Tensor) -> Tensor:
        return super()._zeros(output).new_zeros((output.shape[1], 4))

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        height, width = target.shape[-2:]
        radius = max(1, round(_TOLERANCE * math.hypot(height, width)))
        predicted = output.argmax(dim=1)
        known = _dilated(target == IGNORED, 1) == 0
        for number in range(output.shape[1]):  # one class after the other, as all at once take much memory
            found, true = (_boundary(each == number) * known for each in (predicted, target))
            sums[number] += torch.stack(
                [
                    (found * _dilated(true, radius)).sum(),
                    found.sum(),
                    (true * _dilated(found, radius)).sum(),
                    true.sum(),
                ]
            ).to(sums.dtype)

    def compute(self) -> dict[str, float]:
        scores, exists = self._scores()
        return {"boundary_f": macro_of(scores, exists)}

    def by_class(self) -> ByClass:
        return {"boundary_f": self._scores()[0].tolist()}

    def _scores(self) -> tuple[Tensor, Tensor]:
        """The F1 of each class, and whether it has a boundary."""
        right, found, covered, true = self.sums.double().unbind(dim=1)
        precision, recall = right / found.clamp(min=1), covered / true.clamp(min=1)
        return 2 * precision * recall / (precision + recall).clamp(min=1e-12), found + true > 0


def _overlaps(hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """The intersection over union and the Dice coefficient of each class; 0 where it is nowhere."""
    both = predicted + true
    return hits / (both - hits).clamp(min=1), 2 * hits / both.clamp(min=1)


def _boundary(region: Tensor) -> Tensor:
    """The pixels of regions, booleans (N, H, W), that have a pixel of another region beside them: 1 or 0, float."""
    # Outside of the image nothing is known: its edge is no boundary.
    return region * _dilated(~region, 1)


def _dilated(pixels: Tensor, radius: int) -> Tensor:
    """The pixels (N, H, W) within a square around each pixel that is set: 1 or 0, float."""
    return F.max_pool2d(pixels.float().unsqueeze(1), 2 * radius + 1, stride=1, padding=radius).squeeze(1)
