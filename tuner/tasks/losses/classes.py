"""Losses over classes of which a sample, or a pixel, has one."""

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import ClassCounts, Target, TargetKind
from tuner.tasks.losses.base import Loss, focused, on_device

ClassWeight = Annotated[float, Field(ge=0, le=1e6)]


class OneClassLoss(Loss):
    """A loss over classes of which a sample, or a pixel, has one, and which may weigh differently."""

    target_kind: ClassVar[TargetKind] = "class"
    class_weights: Literal["none", "balanced"] | tuple[ClassWeight, ...] = "none"
    """Weights of the classes in training: none, balanced (by the inverse of their frequency), or one for each class."""

    def check(self, target: Target) -> None:
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != target.size:
            weights = counted(len(self.class_weights), "weight")
            message = f"has {weights} for {counted(target.size, 'class', 'classes')}"
            raise Mistakes(Problem(message, "loss.class_weights", hint="give one for each class, or write balanced"))

    @field_validator("class_weights")
    @classmethod
    def _some_weight(cls, weights: str | tuple[float, ...]) -> str | tuple[float, ...]:
        if isinstance(weights, tuple) and not any(weights):
            raise ValueError("at least one weight must be above 0")
        return weights

    @property
    def needs_counts(self) -> bool:
        return self.class_weights != "none"

    @property
    def can_balance(self) -> bool:
        return True

    def weighted(self, counts: ClassCounts, *, balance: bool) -> Self:
        """The loss with its weights as numbers, whose mean over the training samples is 1.

        The learning rate thus keeps its meaning, and a mean over samples is the same however they are split.
        """
        if self.class_weights == "none" and not balance:
            return self
        if isinstance(self.class_weights, tuple):
            weights = list(self.class_weights)
        else:
            weights = [1 / count if count else 0.0 for count in counts.counts]
        total = sum(weight * count for weight, count in zip(weights, counts.counts, strict=True))
        scale = counts.samples / total if total else 0.0  # 0: no training sample has a class that weighs
        return self.model_copy(update={"class_weights": tuple(scale * weight for weight in weights)})

    def distance(self, output: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """The Kullback-Leibler divergence of the teacher's classes from the predicted ones."""
        # Log-probabilities are logits, too.
        own, goal = (F.log_softmax(each / temperature, dim=1) for each in (output, wanted))
        return temperature**2 * F.kl_div(own, goal, log_target=True, reduction="none").sum(dim=1).mean()

    def _weights(self, device: torch.device) -> Tensor | None:
        """The weights (classes,) on a device; None if all weigh the same."""
        assert self.class_weights != "balanced", "`weighted` makes them numbers"
        return on_device(self.class_weights, device) if isinstance(self.class_weights, tuple) else None


class CrossEntropy(OneClassLoss):
    """Cross-entropy between logits (N, classes) and class indices (N,)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Tunable({"uniform": [0, 0.2]})] = Field(0.0, ge=0, lt=1)
    """Share of the probability of the true class that is spread over all classes."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        weights = self._weights(output.device)
        if weights is None:
            return F.cross_entropy(output, target, label_smoothing=self.label_smoothing)
        # PyTorch's own mean divides by the weights of the batch, so that micro-batches would not add up to the batch.
        losses = F.cross_entropy(output, target, weights, label_smoothing=self.label_smoothing, reduction="none")
        return losses.mean()

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)


class Focal(OneClassLoss):
    """Cross-entropy in which samples that are classified well weigh less (Lin et al., 2017).

    Its reported value is the cross-entropy, so that trials with different `gamma` can be compared.
    """

    kind: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, le=10)
    """Power of the probability of all other classes, by which a sample is weighted; 0 weighs all the same."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        losses = focused(F.cross_entropy(output, target, reduction="none"), self.gamma)
        weights = self._weights(output.device)
        return (losses if weights is None else losses * weights[target]).mean()

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)


class NLL(OneClassLoss):
    """Negative log likelihood of class indices (N,) under log-probabilities (N, classes)."""

    log_probabilities = True
    kind: Literal["nll"] = "nll"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        weights = self._weights(output.device)
        if weights is None:
            return F.nll_loss(output, target)
        return F.nll_loss(output, target, weights, reduction="none").mean()

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(output, target)
