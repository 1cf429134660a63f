"""The boxes of many images in columns, without a Python object for each box."""

from dataclasses import dataclass

import numpy as np

from tuner.data.encoded.listing import Array


@dataclass(frozen=True)
class Boxes:
    """Boxes, in columns of the same length.

    Args:
        images: The index of each one's image, int64 (B,).
        corners: x1, y1, x2, y2 in pixels of the image as it is shown, float64 (B, 4).
        classes: The index of each one's class, int64 (B,).
        ignored: Whether it is neither trained on nor measured, such as a crowd, bool (B,).
        masks: The mask of what is in it, as COCO's compressed run-length encoding, bytes (B,); None if masks are not
            read.
    """

    images: Array
    corners: Array
    classes: Array
    ignored: Array
    masks: Array | None = None

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, index: Array) -> "Boxes":
        """The boxes at these indices, or where a mask is true, in this order."""
        masks = None if self.masks is None else self.masks[index]
        return Boxes(self.images[index], self.corners[index], self.classes[index], self.ignored[index], masks)

    @property
    def columns(self) -> tuple[Array, Array, Array, Array]:
        """All columns of numbers."""
        return self.images, self.corners, self.classes, self.ignored

    @classmethod
    def joined(cls, parts: "list[Boxes]") -> "Boxes":
        """The boxes of several parts, one after the other."""
        images, corners, classes, ignored = map(np.concatenate, zip(*(part.columns for part in parts), strict=True))
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(images, corners, classes, ignored, np.concatenate(masks) if masks else None)
