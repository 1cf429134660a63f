"""Targets that lie at places of an image, and change with it."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from tuner.data.augmentation.boxes import Boxes
from tuner.data.augmentation.instances import Instances
from tuner.data.augmentation.masks import Masks
from tuner.data.augmentation.patches import Bounds, EachBounds, Patch
from tuner.interfaces import Target, TargetKind


class Located(Protocol):
    """What an augmentation of images does to a target of one kind, a tensor whose first dimension is the sample."""

    plural: ClassVar[str]
    """What messages call such targets."""
    has_objects: ClassVar[bool]
    """Whether they know single objects, and where each one is."""

    def flipped(self, values: Tensor, is_flipped: Tensor, width: int) -> Tensor:
        """Mirror the targets of some images, left to right.

        Args:
            values: The targets.
            is_flipped: Which images are mirrored, booleans (N,).
            width: Width of the images.
        """

    def moved(self, values: Tensor, maps: Tensor, size: tuple[int, int], bounds: Bounds | None = None) -> Tensor:
        """Move targets with their images.

        Args:
            values: The targets.
            maps: The affine maps of the images (N, 2, 3), as `tuner.data.augmentation.geometry` describes them.
            size: Height and width of the images.
            bounds: The part of each result that is used; None for all of it.
        """

    def pasted(self, own: Tensor, other: Tensor, patch: Patch) -> Tensor:
        """Combine the targets of images and of those from which they get a patch."""

    def blended(self, own: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Combine the targets of images that are blended.

        Args:
            own: The targets of images.
            other: Those of the images that are blended into them.
            share: Share of the first ones, in [0, 1]: a scalar on their device.

        Returns:
            The targets whose loss has this share, and those whose loss has the rest: twice the same if all objects of
            both can be in one target.
        """

    def drawn_object(self, values: Tensor) -> EachBounds:
        """Draw an object of each sample, if they know objects: its bounds, which are empty where there is none."""

    def shapes(self, values: Tensor) -> Tensor | None:
        """The pixels of objects, booleans (N, H, W); None if such targets do not know them."""


_KINDS: Mapping[TargetKind, Located] = {"mask": Masks(), "boxes": Boxes(), "instances": Instances()}


def located(targets: Mapping[str, Target]) -> dict[str, Located]:
    """Those of the targets, by name, that lie at places of an image."""
    return {name: _KINDS[target.kind] for name, target in targets.items() if target.kind in _KINDS}
