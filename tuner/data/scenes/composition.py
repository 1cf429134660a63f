"""Composition of scenes of digits over clutter."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.interfaces import NO_BOX
from tuner.interfaces.instances import NUMBERS

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

_LEAST_VISIBLE = 0.25
"""Smallest share of a digit's pixels that is not hidden; of what shows less, nobody can say what it is."""

_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Composed:
    """Scenes of digits.

    Args:
        images: The scenes, uint8 (N, 3, S, S).
        masks: The class of each pixel, uint8 (N, S, S): 0 for the background, else that of the foremost digit plus 1.
        instances: The digit that each pixel belongs to, int16 (N, S, S), as `tuner.interfaces.instances` codes it.
        boxes: The boxes of what is visible of the digits, and their classes, as `tuner.interfaces.TargetKind` describes
            them, (N, most, 6). A digit that is hidden has none, and one that is nearly hidden is ignored.
    """

    images: Tensor
    masks: Tensor
    instances: Tensor
    boxes: Tensor


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
) -> Composed:
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
    """
    chunks = []
    for start in range(0, count, _CHUNK):
        scenes = _Scenes(min(_CHUNK, count - start), side, most, rng)
        for _ in range(clutter):
            pieces, _ = _drawn(digits, labels, np.ones(len(scenes), dtype=bool), rng)
            scenes.add(_cropped(pieces, rng), sides=(_SMALLEST_PIECE, _PIECE), contrast=_FAINT)
        numbers = rng.integers(0, most, size=len(scenes), endpoint=True)
        for number in range(most):
            has = numbers > number
            found, classes = _drawn(digits, labels, has, rng)
            shown = np.flatnonzero(has)
            scenes.add(found, sides=sides, contrast=_CONTRAST, scenes=shown, number=number, classes=classes)
        chunks.append(scenes.finished())
    names = ("images", "masks", "instances", "boxes")
    return Composed(**{name: torch.cat([getattr(each, name) for each in chunks]) for name in names})


class _Scenes:
    """Scenes to which digits are added from back to front.

    Args:
        count: Number of scenes N.
        side: Their side S in pixels.
        most: Most digits of a scene.
        rng: Generator of colours, places and sizes.
    """

    def __init__(self, count: int, side: int, most: int, rng: np.random.Generator) -> None:
        self._rng, self._side = rng, side
        top, bottom = (_tensor(rng.uniform(*_BACK, size=(count, 3, 1, 1))) for _ in range(2))
        self._backs = (top + bottom) / 2
        share = torch.linspace(0, 1, side).view(1, 1, -1, 1)
        self._images = torch.lerp(top, bottom, share).expand(count, 3, side, side).contiguous()
        # Which digit is the foremost at each pixel, counted from 1; 0 for none.
        self._digits = torch.zeros((count, side, side), dtype=torch.uint8)
        self._classes = torch.full((count, most), -1)
        self._pixels = torch.zeros((count, most))  # of each digit before others hide some

    def __len__(self) -> int:
        return len(self._digits)

    def add(
        self,
        shapes: Tensor,
        *,
        sides: tuple[int, int],
        contrast: tuple[float, float],
        scenes: _Array | None = None,
        number: int | None = None,
        classes: Tensor | None = None,
    ) -> None:
        """Add a shape to each scene, or to some.

        Args:
            shapes: Shares of ink, float32 (M, h, w) in [0, 1].
            sides: Smallest and largest side to which they are resized, in pixels.
            contrast: Smallest and largest distance of their colours from the background.
            scenes: The indices of the scenes, (M,); None for all.
            number: The number of the digit that they are in each scene, from 0; None if they are background.
            classes: The classes of these digits, (M,).
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
            if number is not None and classes is not None:
                is_ink = ink[..., 0] >= _INK
                self._digits[place] = torch.where(is_ink, number + 1, self._digits[place])
                self._pixels[scene.flatten(), number] = is_ink.sum(dim=(1, 2)).float()
                self._classes[scene.flatten(), number] = classes[which]

    def finished(self) -> Composed:
        """The scenes."""
        noise = _tensor(self._rng.normal(0, _NOISE, size=self._images.shape))
        images = (self._images + noise).clamp(0, 1).mul(255).round().to(torch.uint8)
        of_digit = F.pad(self._classes + 1, (1, 0)).to(torch.uint8)  # what is no digit has the class 0
        masks = of_digit.gather(1, self._digits.long().flatten(1)).view_as(self._digits)
        boxes = self._boxes()
        # A digit that is nearly hidden is ignored: its code is negative.
        signs = F.pad(1 - 2 * boxes[..., 5], (1, 0)).short().gather(1, self._digits.long().flatten(1))
        numbers = self._digits.short()
        codes = (masks.short() - 1) * NUMBERS + numbers
        return Composed(images, masks, torch.where(numbers > 0, codes * signs.view_as(codes), 0), boxes)

    def _boxes(self) -> Tensor:
        """The boxes of what is visible of the digits, (N, most, 6)."""
        boxes = torch.tensor(NO_BOX).repeat(*self._classes.shape, 1)
        for number in range(boxes.shape[1]):
            visible = self._digits == number + 1
            left, right = _extent(visible.any(dim=1))
            top, bottom = _extent(visible.any(dim=2))
            pixels = visible.sum(dim=(1, 2))
            is_ignored = pixels < _LEAST_VISIBLE * self._pixels[:, number]
            rows = torch.stack([left, top, right, bottom, self._classes[:, number], is_ignored], dim=1).float()
            boxes[:, number] = torch.where((pixels > 0).unsqueeze(1), rows, boxes[:, number])
        return boxes


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """The first place and the one behind the last that is occupied, of booleans (N, S)."""
    found = occupied.to(torch.uint8)
    return found.argmax(dim=1), found.shape[1] - found.flip(1).argmax(dim=1)


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
