"""The base class of predictions: what a head of a model says of one image."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from tuner.interfaces import Target
from tuner.interfaces.placement import Placement

RLE = dict[str, Any]
"""Which pixels of an image belong to something, in runs as COCO codes them: ``size`` (height, width), ``counts``."""
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""A number for each pixel, uint8 (H, W)."""


@dataclass(frozen=True)
class Options:
    """What is asked of predictions.

    Args:
        top: How many of the likeliest classes are named.
        threshold: The least probability, or score, of what is named; None for what the kind of target has.
    """

    top: int = 5
    threshold: float | None = None


@dataclass(frozen=True)
class FoundObject:
    """An object that was found in an image.

    Args:
        box: Left, top, right and bottom edge, in pixels of the image.
        label: The name of its class.
        number: The index of its class.
        score: How sure the model is, in [0, 1].
        mask: Its pixels; None if the model does not predict them.
    """

    box: tuple[float, float, float, float]
    label: str
    number: int
    score: float
    mask: RLE | None = None

    def as_dict(self) -> dict[str, Any]:
        """The object as JSON has it."""
        found = {"box": list(self.box), "label": self.label, "score": self.score}
        return found if self.mask is None else found | {"mask": self.mask}


class Prediction(ABC):
    """What a head says of one image."""

    columns: ClassVar[tuple[str, ...]]
    """The columns of its `rows`."""
    options: ClassVar[frozenset[str]] = frozenset()
    """The names of the `Options` that have an effect."""
    finds_objects: ClassVar[bool] = False
    """Whether it has `objects`."""

    @classmethod
    @abstractmethod
    def of(cls, output: Tensor, target: Target, placements: Sequence[Placement], options: Options) -> Iterator[Self]:
        """Read the output of a head for a batch, one image after another.

        Args:
            output: The output, (N, ...), as `tuner.interfaces.Output` describes it.
            target: What the head predicts.
            placements: How each of the N images was placed in the model's input.
            options: What is asked.
        """

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The prediction as JSON has it."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The prediction as rows of a table, by the names of its `columns`; none if nothing was found."""

    @property
    def objects(self) -> tuple[FoundObject, ...]:
        """The objects that were found, the surest first; empty if the head finds none."""
        return ()

    @property
    def classes_of_pixels(self) -> Pixels | None:
        """The class of each pixel of the image, `tuner.interfaces.IGNORED` where it is unknown; None if it has none."""
        return None

    @abstractmethod
    def __str__(self) -> str:
        """The prediction in a few words."""


def as_dict(heads: Mapping[str, Prediction]) -> dict[str, Any]:
    """What heads say of an image as JSON has it: the fields of the only head, or ``heads`` with those of each."""
    if "" in heads:
        return heads[""].as_dict()
    return {"heads": {name: each.as_dict() for name, each in heads.items()}}
