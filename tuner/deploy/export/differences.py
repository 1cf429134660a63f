"""How far the outputs of an exported file are from those of the model."""

import torch
from torch import Tensor

from tuner.models.detection.boxes import overlaps
from tuner.train.signature import OutputSignature

BOUND = 1e-3
"""Largest difference with which a file is written."""
_SAME = 0.5
"""Least overlap of an object with the same one in the other outputs."""
_BOX = 6


def difference(ours: Tensor, theirs: Tensor, output: OutputSignature, longest: int) -> float:
    """The largest difference of two outputs (N, ...); infinite if one has another shape, or is not finite elsewhere.

    Values differ in units of the largest of them, at the least 1. Objects of one class that overlap are the same one:
    they differ in their scores, and in their edges as shares of the longest side of the image. One that is in one of
    the outputs alone differs by its score.

    Args:
        ours: The output of the model.
        theirs: That of the file.
        output: What it is.
        longest: Longest side of an image in pixels.
    """
    if ours.shape != theirs.shape or not torch.equal(ours.isfinite(), theirs.isfinite()):
        return float("inf")
    ours, theirs = ours.nan_to_num(0, 0, 0), theirs.nan_to_num(0, 0, 0)
    if output.boxes:
        pairs = zip(ours, theirs, strict=True)
        return max(max(_of_objects(a, b, longest), _of_objects(b, a, longest)) for a, b in pairs)
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))


def _of_objects(some: Tensor, others: Tensor, longest: int) -> float:
    """The largest difference of some objects (K, 6 + F) of an image from others, which may have more."""
    some, others = (rows[rows[:, 5] >= 0] for rows in (some, others))
    if not len(some):
        return 0.0
    if not len(others):
        return float(some[:, 4].max())
    shared = overlaps(some[None, :, :4], others[None, :, :4])[0]
    shared = torch.where(some[:, None, 5] == others[None, :, 5], shared, torch.zeros_like(shared))
    overlap, nearest = shared.max(dim=1)
    pair = others[nearest]
    edges = (some[:, :4] - pair[:, :4]).abs().amax(dim=1) / longest
    differs = torch.maximum(edges, (some[:, 4] - pair[:, 4]).abs())
    if some.shape[1] > _BOX:
        differs = torch.maximum(differs, (some[:, _BOX:] - pair[:, _BOX:]).abs().mean(dim=1))
    # What is in one of them alone matters as much as its score says.
    return float(torch.where(overlap >= _SAME, torch.minimum(differs, some[:, 4].clamp(min=BOUND)), some[:, 4]).max())
