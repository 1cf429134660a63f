"""The base class of losses, and what several of them use."""

from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar, Self

import torch
from torch import Tensor

from tuner.config import Config
from tuner.interfaces import ClassCounts, Target, TargetKind


class Loss(Config, ABC):
    """A loss, which fits targets of one kind."""

    target_kind: ClassVar[TargetKind]
    """The kind of the targets that the loss fits."""
    log_probabilities: ClassVar[bool] = False
    """Whether the loss needs outputs that end in a log-softmax."""
    is_of_model: ClassVar[bool] = False
    """Whether the model computes the loss itself, in training mode, from the targets that it gets."""

    def check(self, target: Target) -> None:
        """Raise Mistakes, at keys of the head, if the fields do not fit a target, which is of the right kind."""

    @abstractmethod
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the training loss of outputs and targets, a scalar: a mean over the samples."""

    @abstractmethod
    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the reported loss, without smoothing and weights."""

    @abstractmethod
    def distance(self, output: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Compute how far an output (N, size) is from that of a teacher, a scalar: a mean over the samples.

        Args:
            output: The output.
            wanted: The output of the teacher, which has no gradient.
            temperature: What both are divided by, if they are logits. The distance is multiplied by its square, so that
                the size of the gradients does not depend on it (Hinton et al., 2015, section 2).
        """

    @property
    def needs_counts(self) -> bool:
        """Whether `weighted` changes the loss by the numbers of training samples."""
        return False

    @property
    def can_balance(self) -> bool:
        """Whether the loss can weigh rare classes more."""
        return False

    def weighted(self, counts: ClassCounts, *, balance: bool) -> Self:
        """The loss with its weights as numbers for a training set.

        Args:
            counts: How often the classes occur in it.
            balance: Whether rare classes weigh more if the loss has no weights of its own.
        """
        return self


def focused(losses: Tensor, gamma: float) -> Tensor:
    """Multiply each cross-entropy by the probability of the wrong answers to the power of `gamma`."""
    wrong = -torch.expm1(-losses)
    # At 0 the power has an infinite slope if gamma is below 1.
    return wrong.clamp(min=1e-6).pow(gamma).mul(losses)


@cache
def on_device(numbers: float | tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers as a tensor, copied to a device once: a step of the training must not wait for it.

    It stays for good: steps that were recorded read it where it lies, and do not ask for it again.
    """
    with torch.inference_mode(False):  # the first call may be within inference, whose tensors cannot be trained with
        return torch.tensor(numbers, dtype=torch.float32, device=device)
