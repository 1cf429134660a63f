"""How far the outputs of an exported file are from those of the model."""

import torch
from torch import Tensor

from tuner.train.signature import OutputSignature

BOUND = 1e-3
"""Largest difference with which a file is written."""
_BOX = 6


def difference(ours: Tensor, theirs: Tensor, output: OutputSignature, longest: int) -> float:
    """The largest difference of two outputs (N, ...); infinite if one has another shape, or is not finite elsewhere.

    Values differ in units of the largest of them, at the least 1. An object differs from the nearest one of its class
    in its score, in its edges as shares of the longest side of the image, and in its mask on average; at the most by
    its score, which is what it differs by if the other outputs lack it.

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
    is_full = bool((others[:, 5] >= 0).all())
    some, others = (rows[rows[:, 5] >= 0] for rows in (some, others))
    if not len(some):
        return 0.0
    # An object that is missing matters as much as its score says; one for which no row is left, as much as it is surer
    # than what took the last row: of equally sure ones, chance says which are listed.
    missing = some[:, 4] - (others[:, 4].min() if is_full else 0)
    if not len(others):
        return float(missing.max())
    differs = torch.maximum(
        (some[:, None, :4] - others[None, :, :4]).abs().amax(dim=2) / longest,
        (some[:, None, 4] - others[None, :, 4]).abs(),
    )
    if some.shape[1] > _BOX:
        differs = torch.maximum(differs, _of_masks(some[:, _BOX:], others[:, _BOX:]))
    differs = torch.where(some[:, None, 5] == others[None, :, 5], differs, torch.full_like(differs, torch.inf))
    return float(torch.minimum(differs.amin(dim=1), missing).clamp(min=0).max())


def _of_masks(some: Tensor, others: Tensor) -> Tensor:
    """The mean differences of the probabilities of masks (K, F) from those of others (L, F): (K, L)."""
    return torch.cdist(some, others, p=1) / some.shape[1]
