"""The types that datasets, tasks and models share: images, targets and outputs."""

from dataclasses import dataclass

from torch import Tensor

Outputs = Tensor | dict[str, Tensor]
"""What a model returns: one tensor, or one tensor for each head. The first dimension is the sample."""

Targets = dict[str, Tensor]
"""The targets of a batch by name. The first dimension of each tensor is the sample."""


@dataclass(frozen=True)
class Target:
    """A target that a dataset provides.

    Args:
        size: Number of classes, or of values.
        unit: Unit of the values; None if the target is a class.
        classes: Names of the classes, by index; empty if they are unknown.
    """

    size: int
    unit: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def is_class(self) -> bool:
        """Whether the target is one of `size` classes: an int64 tensor (N,) of indices."""
        return self.unit is None

    def __str__(self) -> str:
        return f"{self.size} classes" if self.is_class else f"{self.size} values in {self.unit}"


@dataclass(frozen=True)
class Output:
    """An output that a task needs from a model.

    Args:
        size: Number of values per sample.
        hidden: Width of the hidden layer before the output; 0 for none, None to leave it to the model.
        log_probabilities: Whether the output ends in a log-softmax, which negative log likelihood needs.
    """

    size: int
    hidden: int | None = None
    log_probabilities: bool = False


@dataclass(frozen=True)
class ImageShape:
    """The shape of the images, and the statistics with which a model normalizes them.

    Args:
        channels: Number of channels.
        height: In pixels.
        width: In pixels.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
