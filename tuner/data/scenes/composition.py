"""Composition of scenes of digits over clutter."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 512
"""Scenes that are composed at once."""
_PIECE, _SMALLEST_PIECE = 10, 5
"""Side in pixels of a piece of a digit that is clutter, and the smallest one to which it is resized."""
_BACK, _CONTRAST, _FAINT = (0.0, 0.35), (0.45, 0.65), (0.1, 0.3)
"""The colours of the background, and how much brighter a digit and clutter are, in each channel, in [0, 1]."""
_INK = 0.3
"""Smallest share of ink with which a pixel belongs to a digit, and not to what is behind it."""
_NOISE = 0.03
"""Standard deviation of the noise of a pixel, of a scale of [0, 1]."""

_Array = np.ndarray[Any, np.dtype[Any]]


def compose(
    digits: Tensor,
    labels: Tensor,
    count: int,
    rng: np.random.Generator,
    *,
    side: int,
    most: int,
    sides: tuple[int, int],
    clutter: int,
) -> tuple[Tensor, Tensor]:
    """Compose scenes of digits.

    Args:
        digits: uint8 (K, h, w), light on dark.
        labels: Their classes, int64 (K,).
        count: Number of scenes N.
        rng: Generator of the scenes.
        side: Side S of a scene in pixels.
        most: Most digits of a scene.
        sides: Smallest and largest side of a digit's square in pixels, at most `side`.
        clutter: Pieces of digits in the background of each scene.

    Returns:
        The scenes, uint8 (N, 3, S, S), and the class of each pixel, uint8 (N, S, S): 0 for the background, else that of
        the foremost digit plus 1.
    """
    chunks = []
    for start in range(0, count, _CHUNK):
        scenes = _Scenes(min(_CHUNK, count - start), side, rng)
        for _ in range(clutter):
            pieces, _ = _drawn(digits, labels, np.ones(len(scenes), dtype=bool), rng)
            scenes.add(_cropped(pieces, rng), sides=(_SMALLEST_PIECE, _PIECE), contrast=_FAINT, classes=None)
        numbers = rng.integers(0, most, size=len(scenes), endpoint=True)
        for number in range(most):
            has = numbers > number
            found, classes = _drawn(digits, labels, has, rng)
            scenes.add(found, sides=sides, contrast=_CONTRAST, classes=classes + 1, scenes=np.flatnonzero(has))
        chunks.append(scenes.finished())
    images, masks = zip(*chunks, strict=True)
    return torch.cat(images), torch.cat(masks)


class _Scenes:
    """Scenes to which digits are added from back to front.

    Args:
        count: Number of scenes N.
        side: Their side S in pixels.
        rng: Generator of colours, places and sizes.
    """

    def __init__(self, count: int, side: int, rng: np.random.Generator) -> None:
        self._rng, self._side = rng, side
        top, bottom = (_tensor(rng.uniform(*_BACK, size=(count, 3, 1, 1))) for _ in range(2))
        self._backs = (top + bottom) / 2
        share = torch.linspace(0, 1, side).view(1, 1, -1, 1)
        self._images = torch.lerp(top, bottom, share).expand(count, 3, side, side).contiguous()
        self._masks = torch.zeros((count, side, side), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._masks)

    def add(
        self,
        shapes: Tensor,
        *,
        sides: tuple[int, int],
        contrast: tuple[float, float],
        classes: Tensor | None,
        scenes: _Array | None = None,
    ) -> None:
        """Add a shape to each scene, or to some.

        Args:
            shapes: Shares of ink, float32 (M, h, w) in [0, 1].
            sides: Smallest and largest side to which they are resized, in pixels.
            contrast: Smallest and largest distance of their colours from the background.
            classes: What their pixels are in the mask, (M,); None if they belong to the background.
            scenes: The indices of the scenes, (M,); None for all.
        """
        index = np.arange(len(self)) if scenes is None else scenes
        sizes = self._rng.integers(*sides, size=len(index), endpoint=True)
        tops, lefts = (self._rng.integers(0, self._side - sizes, endpoint=True) for _ in range(2))
        backs = self._backs[torch.from_numpy(index)]
        distances = _tensor(self._rng.uniform(*contrast, size=(len(index), 3, 1, 1)))
        colours = backs + distances
        for size in np.unique(sizes):  # one resize for each size instead of one for each shape
            rows = np.flatnonzero(sizes == size)
            which = torch.from_numpy(rows)
            ink = F.interpolate(
                shapes[which].unsqueeze(1), size=(int(size), int(size)), mode="bilinear", antialias=True
            )
            scene = torch.from_numpy(index[rows]).view(-1, 1, 1)
            down, across = (
                torch.from_numpy(starts[rows]).view(-1, 1) + torch.arange(int(size)) for starts in (tops, lefts)
            )
            place = (scene, down.unsqueeze(2), across.unsqueeze(1))
            behind = self._images.permute(0, 2, 3, 1)
            ink = ink.permute(0, 2, 3, 1)
            behind[place] = torch.lerp(behind[place], colours[which].permute(0, 2, 3, 1), ink)
            if classes is not None:
                of_digit = classes[which].to(torch.uint8).view(-1, 1, 1)
                self._masks[place] = torch.where(ink[..., 0] >= _INK, of_digit, self._masks[place])

    def finished(self) -> tuple[Tensor, Tensor]:
        """The scenes, uint8 (N, 3, S, S), and their masks, uint8 (N, S, S)."""
        noise = _tensor(self._rng.normal(0, _NOISE, size=self._images.shape))
        return (self._images + noise).clamp(0, 1).mul(255).round().to(torch.uint8), self._masks


def _drawn(digits: Tensor, labels: Tensor, has: _Array, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw a digit for each scene that has one: shares of ink, float32 (M, h, w), and classes (M,)."""
    index = torch.from_numpy(rng.integers(0, len(digits), size=int(has.sum())))
    return digits[index].float() / 255, labels[index]


def _cropped(shapes: Tensor, rng: np.random.Generator) -> Tensor:
    """Cut a piece out of the middle of each shape (M, h, w) at a random place: float32 (M, piece, piece)."""
    height, width = shapes.shape[-2:]
    tops, lefts = (
        torch.from_numpy(rng.integers(side // 6, side - _PIECE - side // 6, size=len(shapes), endpoint=True))
        for side in (height, width)
    )
    rows, columns = (start.view(-1, 1) + torch.arange(_PIECE) for start in (tops, lefts))
    return shapes[torch.arange(len(shapes)).view(-1, 1, 1), rows.unsqueeze(2), columns.unsqueeze(1)]


def _tensor(values: _Array) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
