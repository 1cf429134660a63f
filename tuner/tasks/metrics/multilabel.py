"""Meters of logits (N, classes) for targets (N, classes), each 0 or 1: a class is predicted from 0.5 on."""

import torch
from torch import Tensor

from tuner.tasks.metrics.meter import ByClass, CountMeter, SumMeter, macro, of_classes

_LARGEST = 16
"""Logits outside of [-16, 16] count as this: probabilities of 1e-7 and less, or as close to 1."""
_STEPS = 32
"""Bins in each unit of a logit."""
_AT_ONCE = 64
"""Classes whose areas under curves are computed at once."""
_BINS = 2 * _LARGEST * _STEPS


class LabelF1(SumMeter):
    """The macro F1: the average over the classes that occur or are predicted."""

    names = ("f1",)

    def _zeros(self, output: Tensor) -> Tensor:
        return torch.zeros((3, output.shape[1]), dtype=torch.int64, device=output.device)

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        predicted, has = output >= 0, target > 0.5  # a logit of 0 is a probability of 0.5
        sums += torch.stack([(predicted & has).sum(dim=0), predicted.sum(dim=0), has.sum(dim=0)])

    def compute(self) -> dict[str, float]:
        hits, positives, members = self.sums.double()
        return {"f1": macro(hits, positives, members)["f1"]}


class LabelMetrics(CountMeter):
    """Macro and micro averages at a probability of 0.5, and averages over all thresholds.

    The macro averages are over the classes that occur or are predicted, and 0 if there is none. The micro average
    counts every pair of a sample and a class alike. The mean average precision is over the classes that occur, the area
    under the ROC curve over those that some samples have and some have not; without any they are 0 and 0.5.

    The last two need the order of all scores. The meter keeps a histogram instead, of 1024 bins of equal width in the
    logit, from -16 to 16, for the samples of each class and for the others: 8 KB a class. They are exact for scores
    that are rounded down to a bin, as scikit-learn computes them: samples in a bin are tied. A tie changes the area
    under the ROC curve by at most half the share of the pairs of a sample that has the class and one that has not that
    are in one bin.
    """

    names = ("precision", "recall", "f1", "f1_micro", "map", "auroc")

    def _zeros(self, output: Tensor) -> Tensor:
        return torch.zeros((2, output.shape[1], _BINS), dtype=torch.int32, device=output.device)

    def _cells(self, output: Tensor, target: Tensor) -> Tensor:
        # Multiplied by a power of 2, a logit keeps its sign and its order.
        bins = (output * _STEPS).nan_to_num(0).floor().clamp(-_BINS // 2, _BINS // 2 - 1).long() + _BINS // 2
        classes = torch.arange(output.shape[1], device=output.device)
        return ((target > 0.5) * output.shape[1] + classes) * _BINS + bins

    def compute(self) -> dict[str, float]:
        hits, positives, members = self._counts()
        micro = 2 * hits.sum() / (positives + members).sum().clamp(min=1)
        precision, area = self._areas()
        return macro(hits, positives, members) | {
            "f1_micro": micro.item(),
            "map": precision.nanmean().nan_to_num(0.0).item(),
            "auroc": area.nanmean().nan_to_num(0.5).item(),
        }

    def by_class(self) -> ByClass:
        counts = self._counts()
        precision, area = self._areas()
        columns = of_classes(*counts) | {"average_precision": precision, "auroc": area, "support": counts[2]}
        return {name: values.tolist() for name, values in columns.items()}

    def _areas(self) -> tuple[Tensor, Tensor]:
        """The average precision of each class, and its area under the ROC curve."""
        # The sums over bins of some classes at once: those of all take more memory than the meter.
        parts = torch.split(self.sums, _AT_ONCE, dim=1)
        precisions, areas = zip(*((average_precision(each), area_under_roc(each)) for each in parts), strict=True)
        return torch.cat(precisions), torch.cat(areas)

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The samples that have a class and are predicted to, that are predicted to, and that have it; by class."""
        predicted = self.sums[..., _BINS // 2 :].sum(dim=2).double()
        return predicted[1], predicted.sum(dim=0), self.sums[1].sum(dim=1).double()


def average_precision(histogram: Tensor) -> Tensor:
    """Compute the area under the curve of precision by recall, as a sum over bins without interpolation.

    Args:
        histogram: Number of samples without and with each class by the bin of their score, (2, classes, bins).

    Returns:
        A value for each class, float64 (classes,); NaN for a class without samples.
    """
    _, found = histogram
    better = histogram.flip(dims=(2,)).cumsum(dim=2).double()  # those in a bin or above it, from the best bin on
    precision = better[1] / better.sum(dim=0).clamp(min=1)
    area: Tensor = (found.flip(dims=(1,)) * precision).sum(dim=1) / found.sum(dim=1)
    return area


def area_under_roc(histogram: Tensor) -> Tensor:
    """Compute the chance that a sample with a class scores higher than one without; a tie counts half.

    Args:
        histogram: Number of samples without and with each class by the bin of their score, (2, classes, bins).

    Returns:
        A value for each class, float64 (classes,); NaN for a class that no sample has, or all have.
    """
    others, found = histogram.double()
    worse = others.cumsum(dim=1) - others / 2
    chance: Tensor = (found * worse).sum(dim=1) / (found.sum(dim=1) * others.sum(dim=1))
    return chance
