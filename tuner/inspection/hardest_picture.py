"""The picture of the images that a model finds hardest."""

import io
from typing import Any

from tuner.inspection.hardest import Hardest
from tuner.inspection.pictures import enlarged, font

_GAP, _LINE = 10, 15
"""Pixels between two images, and of a line of text."""
_WIDTH = 8 * (112 + _GAP)
"""Pixels of a row of images."""


def draw(found: Hardest) -> bytes:
    """Draw the hardest images of a head as one PNG picture: below each, the true and the predicted class."""
    from PIL import Image, ImageDraw

    judge = found.judge
    side, cell = judge.side, judge.panels * judge.side
    sections = [
        (title, [(hard, enlarged(hard.image.convert("RGB"), cell, side)) for hard in kept])
        for title, kept in (
            (f"worst mistakes: {judge.worst} ({judge.legend})", found.mistakes),
            (f"least certain: {judge.uncertain}", found.uncertain),
        )
    ]
    columns = max(1, _WIDTH // (cell + _GAP))
    tallest = max((shown.height for _, images in sections for _, shown in images), default=side)
    row_height = tallest + 2 * _LINE + _GAP
    heights = [3 * _LINE + -(-max(len(images), 1) // columns) * row_height for _, images in sections]
    canvas = Image.new("RGB", (_GAP + _WIDTH, sum(heights)), "white")
    pen, letters, top = ImageDraw.Draw(canvas), font(12), 0
    for (title, images), height in zip(sections, heights, strict=True):
        pen.text((_GAP, top + _LINE), title if images else f"{title}: none", fill="#22292f", font=letters)
        for number, (hard, shown) in enumerate(images):
            x = _GAP + number % columns * (cell + _GAP)
            y = top + 3 * _LINE + number // columns * row_height
            canvas.paste(shown, (x, y))
            y += shown.height
            pen.text((x, y), _cut(hard.texts.true, letters, cell), fill="#66707a", font=letters)
            text = _cut(hard.texts.predicted, letters, cell, hard.texts.end)
            pen.text((x, y + _LINE), text, fill="#b3261e" if hard.is_wrong else "#2e7d32", font=letters)
        top += height
    file = io.BytesIO()
    canvas.save(file, "png")
    return file.getvalue()


def _cut(text: str, letters: Any, width: int, end: str = "") -> str:
    """Cut a text so that it fits below an image of this width, with an end that is not cut."""
    if letters.getlength(text + end) <= width:
        return text + end
    while text and letters.getlength(f"{text}…{end}") > width:
        text = text[:-1]
    return f"{text}…{end}"
