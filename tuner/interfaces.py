"""The words in which data, tasks and models agree: what there is to learn, and what a model puts out."""

from dataclasses import dataclass

from torch import Tensor

Outputs = Tensor | dict[str, Tensor]
"""What a model returns: one tensor, or one for each of its heads."""

Targets = dict[str, Tensor]
"""What a dataset holds beside its images: one tensor a target, its first dimension the sample."""


@dataclass(frozen=True)
class Target:
    """One thing that a dataset has to learn.

    Args:
        size: Number of classes, or of values.
        unit: Unit of the values; None where the target is a class.
        classes: Names of the classes, by index; empty where they are unknown.
    """

    size: int
    unit: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def is_class(self) -> bool:
        """Whether the target is one of `size` classes (int64, one index a sample)."""
        return self.unit is None

    def __str__(self) -> str:
        return f"{self.size} classes" if self.is_class else f"{self.size} values in {self.unit}"


@dataclass(frozen=True)
class Output:
    """One output that a task asks of a model.

    Args:
        size: Number of values a sample.
        hidden: Width of the hidden layer before it; None leaves that to the model, 0 means none.
        log_probabilities: Whether the output ends in a log-softmax, as negative log likelihood needs.
    """

    size: int
    hidden: int | None = None
    log_probabilities: bool = False


@dataclass(frozen=True)
class ImageShape:
    """Channels, height and width of an image, and the mean and deviation in [0, 1] to normalize each channel with."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
