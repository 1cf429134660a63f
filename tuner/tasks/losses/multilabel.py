"""Losses over classes of which a sample may have any number."""

from typing import Annotated, Literal, Self

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import ClassCounts, Target
from tuner.tasks.losses.base import Loss, focused, on_device

PositiveWeight = Annotated[float, Field(gt=0, le=1e6)]


class OneForEachClass(Loss):
    """A loss over classes of which a sample has any number."""

    target_kind = "multilabel"

    def distance(self, output: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """The Kullback-Leibler divergence of the teacher's answer from the predicted one: the mean over the classes."""
        own, goal = output / temperature, wanted / temperature
        likely = goal.sigmoid()
        crossed, least = (F.binary_cross_entropy_with_logits(each, likely) for each in (own, goal))
        return temperature**2 * (crossed - least)


class BinaryCrossEntropy(OneForEachClass):
    """Binary cross-entropy between logits (N, classes) and targets (N, classes), each 0 or 1; a mean over both.

    Its reported value has no `pos_weight`.
    """

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    pos_weight: Literal["balanced"] | PositiveWeight | tuple[PositiveWeight, ...] = 1.0
    """Weight in training of samples that have a class: a number, one for each class, or balanced (without by with)."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        assert self.pos_weight != "balanced", "`weighted` makes it numbers"
        weight = None if self.pos_weight == 1 else on_device(self.pos_weight, output.device)
        return F.binary_cross_entropy_with_logits(output, target, pos_weight=weight)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target)

    def check(self, target: Target) -> None:
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != target.size:
            weights = counted(len(self.pos_weight), "weight")
            message = f"has {weights} for {counted(target.size, 'class', 'classes')}"
            hint = "give one number for all classes, one for each, or write balanced"
            raise Mistakes(Problem(message, "loss.pos_weight", hint=hint))

    @property
    def needs_counts(self) -> bool:
        return self.pos_weight == "balanced"

    @property
    def can_balance(self) -> bool:
        return True

    def weighted(self, counts: ClassCounts, *, balance: bool) -> Self:
        """The loss with its weights as numbers; a class that no training sample has, or all have, weighs 1."""
        if self.pos_weight != "balanced" and not (balance and self.pos_weight == 1):
            return self
        weights = tuple((counts.samples - each) / each if 0 < each < counts.samples else 1.0 for each in counts.counts)
        return self.model_copy(update={"pos_weight": weights})


class BinaryFocal(OneForEachClass):
    """Binary cross-entropy in which targets that are predicted well weigh less (Lin et al., 2017, without its alpha).

    Its reported value is the binary cross-entropy, so that trials with different `gamma` can be compared.
    """

    kind: Literal["binary_focal"] = "binary_focal"
    gamma: float = Field(2.0, ge=0, le=10)
    """Power of the probability of the wrong answer, by which a target is weighted; 0 weighs all the same."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        return focused(losses, self.gamma).mean()

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target)
