"""Boxes over an image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from tuner.inspection.pictures import colour, enlarged, font, picture
from tuner.interfaces import Target

if TYPE_CHECKING:
    from PIL.Image import Image

_DASH, _GAP = 5, 4
"""Pixels of a dash, and between two."""
_MISTAKE, _IGNORED = (198, 40, 40), (154, 163, 171)
Style = Literal["plain", "mistake", "ignored"]


@dataclass(frozen=True)
class Box:
    """A box over an image.

    Args:
        edges: The left, top, right and bottom edge, in pixels of the image.
        number: The index of its class, whose colour it has.
        text: The text at its upper edge; at its lower one if there is no room.
        style: What it is: ``plain``; a ``mistake`` has a dashed outline, and its text is red; an ``ignored`` one is
            grey.
    """

    edges: Sequence[float]
    number: int
    text: str = ""
    style: Style = "plain"


def true_boxes(rows: Tensor, target: Target) -> list[Box]:
    """The boxes of an image, (M, 6) as `tuner.interfaces.TargetKind` describes them, with their classes as texts."""
    return [
        Box(edges, int(number), target.name(int(number)), "ignored" if ignored else "plain")
        for *edges, number, ignored in rows.tolist()
        if number >= 0
    ]


def boxes_over(image: Tensor, boxes: Iterable[Box], side: int) -> "Image":
    """Draw boxes over an image. A text for which there is no room beside the others is left out.

    Args:
        image: float (C, H, W) in [0, 1], or uint8.
        boxes: The boxes. Where there is little room, the texts of mistakes come first, then those of the first boxes.
        side: Longest side of the picture in pixels: a smaller image is enlarged, by whole times.
    """
    from PIL import ImageDraw

    shown = enlarged(picture(image, side), side, side).convert("RGB")
    scale = shown.width / image.shape[-1], shown.height / image.shape[-2]
    pen, letters = ImageDraw.Draw(shown), font(11)
    placed = [(box, _corners(box, scale, shown)) for box in boxes]
    placed = sorted(placed, key=lambda each: ("mistake", "plain", "ignored").index(each[0].style))
    for box, corners in reversed(placed):
        _outline(pen, box, corners)
    taken: list[tuple[float, float, float, float]] = []
    for box, (left, top, _, bottom) in placed:
        width, height = letters.getlength(box.text) + 4, 13
        x = max(0.0, min(left, shown.width - width))
        areas = [(x, y, x + width, y + height) for y in (top - height if top >= height else top, bottom - height)]
        free = next((area for area in areas if not any(_overlap(area, other) for other in taken)), None)
        if not box.text or width > shown.width or free is None:
            continue
        taken.append(free)
        y = free[1]
        paint = _paint(box)
        is_dark = paint[0] * 0.3 + paint[1] * 0.59 + paint[2] * 0.11 < 128
        behind, letter = ("white", _MISTAKE) if box.style == "mistake" else (paint, "white" if is_dark else "black")
        pen.rectangle((x, y, x + width - 1, y + height - 1), fill=behind)
        pen.text((x + 2, y - 1), box.text, fill=letter, font=letters)
    return shown


def _corners(box: Box, scale: tuple[float, float], shown: "Image") -> tuple[int, int, int, int]:
    """The edges of a box in a picture, within it."""
    left, top, right, bottom = (round(edge * scale[number % 2]) for number, edge in enumerate(box.edges))
    left, top = min(max(left, 0), shown.width - 2), min(max(top, 0), shown.height - 2)
    return left, top, max(min(right, shown.width) - 1, left + 1), max(min(bottom, shown.height) - 1, top + 1)


def _outline(pen: Any, box: Box, corners: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = corners
    if box.style != "mistake":
        pen.rectangle(corners, outline=_paint(box), width=2 if box.style == "plain" else 1)
        return
    pen.rectangle(corners, outline="black", width=2)
    for start in range(left, right + 1, _DASH + _GAP):
        end = min(start + _DASH - 1, right)
        pen.rectangle((start, top, end, top + 1), fill=_paint(box))
        pen.rectangle((start, bottom - 1, end, bottom), fill=_paint(box))
    for start in range(top, bottom + 1, _DASH + _GAP):
        end = min(start + _DASH - 1, bottom)
        pen.rectangle((left, start, left + 1, end), fill=_paint(box))
        pen.rectangle((right - 1, start, right, end), fill=_paint(box))


def _paint(box: Box) -> tuple[int, int, int]:
    """The colour of a box, each part of 255."""
    if box.style == "ignored":
        return _IGNORED
    red, green, blue = (round(255 * part) for part in colour(box.number))
    return red, green, blue


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
