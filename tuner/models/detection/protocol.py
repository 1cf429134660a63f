"""torchvision's protocol of detection, and the module that makes a model of `tuner` of what follows it.

In training mode, a detector of this protocol takes a list of images (C, H, W) and a list of their targets, dicts of
``boxes`` (n, 4), float32, and ``labels`` (n,), int64, and returns a dict of losses, each a scalar. In eval mode it
takes the images and returns a dict for each: ``boxes`` (n, 4), ``labels`` (n,) and ``scores`` (n,) in [0, 1]. A box is
its left, top, right and bottom edge in pixels of the image. One that finds masks, too, has ``masks`` beside the boxes:
in targets uint8 (n, H, W), 1 where the object is and else 0, and of what it finds probabilities (n, 1, H, W).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.interfaces import Output, instances
from tuner.models.detection.suppression import NotExportable, has_fixed_shapes

BACKGROUND = 1
"""Number of labels before that of the first class, where label 0 is the background, as is usual."""

DETECTIONS = 100
"""The most objects that are found in an image, unless a model says otherwise: as many as COCO's metrics count."""

_PIXELS = 4_000_000
"""Most pixels of the images that are computed at once in eval mode: six of 800x800."""
_IMAGES = 16
"""Most of them: a detector may look at a thousand regions of each, whatever its size, whose features take 50 MB.

Those of 171 images are more than torchvision's pooling of regions can count: it writes where it must not.
"""
_CLASS, _IGNORED = 4, 5  # columns of a target

Boxes = dict[str, Tensor]
"""The objects of an image: targets or detections."""


class Detector(nn.Module):
    """A detector of torchvision's protocol that takes and returns what `tuner` does, as `tuner.interfaces` has it.

    In training mode it takes the targets beside the images, and returns its losses (N, T), the same for each of N
    images. In eval mode it returns the objects that it finds, (N, K, 6), the surest first: left, top, right and bottom
    edge, score, class, and behind them the mask if there is one. What is left of K rows has score 0 and class -1.

    Args:
        head: Name of the output; ``""`` to return a tensor.
        output: The output.
        first: Label of the first class.
        detections: The most objects that are found in an image, K.
    """

    def __init__(self, head: str, output: Output, first: int, detections: int) -> None:
        super().__init__()
        self.head = head
        self.output = output
        self.first = first
        self.detections = detections

    def forward(self, images: Tensor, targets: Mapping[str, Tensor] | None = None) -> Tensor | dict[str, Tensor]:
        if self.training:
            assert targets is not None, "a detector computes its own loss, and needs the targets for it"
            known = objects_of if self.output.masks else boxes_of
            losses = self.losses(images, known(targets[self.head], self.first))
            outputs = torch.stack([each.float().reshape(()) for each in losses.values()]).expand(len(images), -1)
        elif has_fixed_shapes():
            outputs = self.rows(images)
        else:
            outputs = torch.cat([self._rows(part) for part in torch.split(images, self._at_once(images))])
        return {self.head: outputs} if self.head else outputs

    @abstractmethod
    def losses(self, images: Tensor, targets: list[Boxes]) -> Mapping[str, Tensor]:
        """The losses of a batch of images (N, C, H, W) in [0, 1]: scalars, means over the images."""

    @abstractmethod
    def detect(self, images: Tensor) -> Sequence[Boxes]:
        """The detections in each of a few images (N, C, H, W) in [0, 1]."""

    def rows(self, images: Tensor) -> Tensor:
        """The objects of all images (N, C, H, W), (N, K, ...), within `suppression.fixed_shapes`.

        Raises:
            NotExportable: The detector cannot compute them in tensors of fixed shapes.
        """
        raise NotExportable(
            "how many objects its code returns depends on the image: a file needs tensors of fixed shapes"
        )

    def _at_once(self, images: Tensor) -> int:
        return max(1, min(_IMAGES, _PIXELS // images[0, 0].numel()))

    def _rows(self, images: Tensor) -> Tensor:
        found = self.detect(images)
        sides = instances.mask_sides(*images.shape[-2:]) if self.output.masks else None
        return torch.stack([rows_of(each, self.output.size, self.first, self.detections, sides) for each in found])


def boxes_of(rows: Tensor, first: int) -> list[Boxes]:
    """The targets of each image, without those that are padding or ignored.

    Args:
        rows: Targets (N, M, 6).
        first: Label of the first class.
    """
    is_used = (rows[..., _CLASS] >= 0) & (rows[..., _IGNORED] == 0)
    of_images = torch.split(rows[is_used], is_used.sum(dim=1).tolist())
    return [{"boxes": each[:, :4], "labels": each[:, _CLASS].long() + first} for each in of_images]


def objects_of(target: Tensor, first: int) -> list[Boxes]:
    """The targets of each image with their masks, without those that are ignored.

    Args:
        target: Which object each pixel belongs to, as `tuner.interfaces.instances` codes it: int16 or int32 (N, H, W).
        first: Label of the first class.
    """
    rows, numbers = instances.boxes_of(target, instances.NUMBERS)
    is_used = (rows[..., _CLASS] >= 0) & (rows[..., _IGNORED] == 0)
    of_images = torch.split(numbers[is_used], is_used.sum(dim=1).tolist())
    objects = boxes_of(rows, first)
    for each, own, pixels in zip(objects, of_images, instances.numbers_of(target), strict=True):
        each["masks"] = (pixels == own.view(-1, 1, 1)).to(torch.uint8)
    return objects


def rows_of(found: Boxes, classes: int, first: int, count: int, sides: tuple[int, int] | None = None) -> Tensor:
    """The best detections of an image, without those that are of no class, such as the background.

    Args:
        found: The detections.
        classes: Number of classes.
        first: Label of the first class.
        count: Number of rows.
        sides: Height h and width w of the masks; None for boxes alone.

    Returns:
        The detections, (count, 6), or (count, 6 + h * w) with masks.
    """
    labels = found["labels"] - first
    # Detections of a model that has diverged are none: its loss tells.
    is_number = found["boxes"].isfinite().all(dim=1) & found["scores"].isfinite()
    of_class = (is_number & (labels >= 0) & (labels < classes)).nonzero().flatten()
    best = of_class[found["scores"][of_class].argsort(descending=True, stable=True)[:count]]
    values = [found["boxes"][best], found["scores"][best, None], labels[best, None]]
    if sides is not None:
        values.append(functional.adaptive_avg_pool2d(found["masks"][best].float(), sides).flatten(1))
    rows = torch.cat([each.float() for each in values], dim=1)
    rows = functional.pad(rows, (0, 0, 0, count - len(rows)))
    rows[len(best) :, 5] = -1
    return rows
