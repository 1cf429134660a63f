"""A model as another order of the same arithmetic may compute it: what it finds only sometimes, rounding decides."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tuner.models.detection.suppression import Keep, NotExportable, fixed_shapes
from tuner.train.exporting.graph import Graph

_SHIFT = 2.0**-22
"""Shares of weights and of ranges, of pixels as of scores, that are about as large as what rounding changes."""


def computed(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """The outputs of a model for images, uint8 (N, C, H, W), by head."""
    with torch.no_grad():
        return dict(zip(graph.signature.outputs, graph(images), strict=True))


def nearly_computed(graph: Graph, images: Tensor, seed: int) -> dict[str, Tensor]:
    """The same with other last digits in its weights, in the pixels, and in the scores by which objects are chosen.

    Scores need digits of their own: runtimes approximate the sigmoid to within a share of its range, so that the order
    of two small scores changes that differ by much more than a share of themselves.

    Args:
        graph: The model.
        images: The images.
        seed: Seed of these digits.
    """
    generator = torch.Generator().manual_seed(seed)
    shifted = images + 255 * _noise(images, generator)
    with _shifted(graph, generator):
        try:
            with fixed_shapes(_nearly_kept(generator)):
                return computed(graph, shifted)
        except NotExportable:  # its own code chooses the objects
            return computed(graph, shifted)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return 2 * _SHIFT * (torch.rand(like.shape, generator=generator) - 0.5)


@contextmanager
def _shifted(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Within the body, the last digits of a module's weights are others."""
    weights = [each.data for each in module.parameters()]
    kept = [each.clone() for each in weights]
    try:
        for each in weights:
            each.mul_(1 + _noise(each, generator))
        yield
    finally:
        for each, before in zip(weights, kept, strict=True):
            each.copy_(before)


def _nearly_kept(generator: torch.Generator) -> Keep:
    """Non-maximum suppression by scores and boxes whose last digits are others."""
    from torchvision.ops import nms

    def keep(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
        boxes = boxes * (1 + _noise(boxes, generator))
        shifted = scores + _noise(scores, generator)
        is_kept = torch.zeros_like(scores, dtype=torch.bool)
        for image, is_candidate in enumerate(scores >= 0):
            places = is_candidate.nonzero().squeeze(1)
            is_kept[image, places[nms(boxes[image, places], shifted[image, places], overlap)]] = True
        return is_kept

    return keep
