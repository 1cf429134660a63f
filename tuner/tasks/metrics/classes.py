"""Meters of outputs over classes of which a sample has one: outputs are logits or log-probabilities (N, classes)."""

import numpy as np
import torch
from torch import Tensor

from tuner.tasks.metrics.meter import ByClass, CountMeter, SumMeter, macro, of_classes
from tuner.tasks.metrics.samples import Array

_CALIBRATION_BINS = 15  # as in Guo et al., 2017


class Accuracy(SumMeter):
    """Share of the samples whose largest output is that of the target class (N,), in [0, 1]."""

    names = ("accuracy",)

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        sums += (output.argmax(dim=1) == target).sum()

    def compute(self) -> dict[str, float]:
        return {"accuracy": self.sums.item() / self.samples}


class ClassMetrics(CountMeter):
    """Metrics by class indices (N,), averaged over the classes (macro).

    The averages are over the classes that occur or are predicted, as in scikit-learn. Of these, a class that is never
    predicted has precision 0, one that never occurs recall 0.
    """

    names = ("accuracy", "precision", "recall", "f1")

    def _zeros(self, output: Tensor) -> Tensor:
        classes = output.shape[1]
        return torch.zeros((classes, classes), dtype=torch.int64, device=output.device)

    def _cells(self, output: Tensor, target: Tensor) -> Tensor:
        return (target * output.shape[1] + output.argmax(dim=1)).unsqueeze(1)

    @property
    def right(self) -> Array | None:
        assert self._sums is not None, "no batch was added"
        true, predicted = np.divmod(self.kept.columns[1], len(self._sums))
        right: Array = true == predicted
        return right

    @property
    def confusion(self) -> list[list[int]]:
        """The confusion matrix, in counts of samples: rows are true classes, columns predicted ones."""
        rows: list[list[int]] = self.sums.tolist()
        return rows

    def compute(self) -> dict[str, float]:
        counts = self._counts()
        return {"accuracy": (counts[0].sum() / self.samples).item()} | macro(*counts)

    def by_class(self) -> ByClass:
        counts = self._counts()
        return {name: values.tolist() for name, values in (of_classes(*counts) | {"support": counts[2]}).items()}

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The samples of each class that are predicted as such, those that are predicted, and those that have it."""
        sums = self.sums
        return sums.diagonal().double(), sums.sum(dim=0).double(), sums.sum(dim=1).double()


class TopFive(SumMeter):
    """Share of the samples whose target class (N,) is one of the five with the largest outputs, in [0, 1]."""

    names = ("accuracy_top5",)
    least_size = 6

    def update(self, output: Tensor, target: Tensor) -> None:
        if output.shape[1] >= self.least_size:
            super().update(output, target)

    def add(self, output: Tensor, target: Tensor) -> None:
        if output.shape[1] >= self.least_size:
            super().add(output, target)

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        sums += (output.topk(5, dim=1).indices == target.unsqueeze(1)).sum()

    def compute(self) -> dict[str, float]:
        return {"accuracy_top5": self.sums.item() / self.samples} if self._sums is not None else {}


class Calibration(SumMeter):
    """Expected calibration error (Guo et al., 2017): how far the probability of the predicted class is from the truth.

    The samples are put into 15 bins of equal width by that probability. The error is the mean over the samples of the
    distance, in [0, 1], between the mean probability in their bin and the share of it that is predicted right.
    """

    names = ("ece",)

    def _zeros(self, output: Tensor) -> Tensor:
        return super()._zeros(output).new_zeros((_CALIBRATION_BINS,))

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        confidence, predicted = output.softmax(dim=1).max(dim=1)
        bins = (confidence.nan_to_num() * _CALIBRATION_BINS).long().clamp(max=_CALIBRATION_BINS - 1)
        # A GPU adds by index in any order, which would change the last digits from one training to the next.
        in_bin = bins.unsqueeze(1) == torch.arange(_CALIBRATION_BINS, device=bins.device)
        distance = confidence.to(sums.dtype) - (predicted == target).to(sums.dtype)
        sums += (in_bin * distance.unsqueeze(1)).sum(dim=0)

    def compute(self) -> dict[str, float]:
        # The distance of two means over a bin, weighted by its samples, is that of the two sums.
        return {"ece": self.sums.abs().sum().item() / self.samples}
