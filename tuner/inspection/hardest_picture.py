"""The picture of the images that a model finds hardest."""

import io
from typing import Any

from tuner.inspection.hardest import SIDE, Hardest
from tuner.inspection.pictures import font

_GAP, _LINE = 10, 15
"""Pixels between two images, and of a line of text."""
_LETTERS = 12
"""Size of a text in pixels."""
_WIDTH = 8 * (SIDE + _GAP)
"""Pixels of a row of images."""


def draw(found: Hardest) -> bytes:
    """Draw the hardest images of a head as one PNG picture: below each, the true and the predicted class."""
    from PIL import Image, ImageDraw

    are_masks = any(hard.is_mask for hard in found.mistakes + found.uncertain)
    shown_as = "image, true mask, predicted mask" if are_masks else "true class, predicted class with its probability"
    sections = [
        (f"worst mistakes: the highest loss ({shown_as})", found.mistakes),
        ("least certain: the lowest probability of the predicted class", found.uncertain),
    ]
    cell = 3 * SIDE if are_masks else SIDE
    columns = max(1, _WIDTH // (cell + _GAP))
    row_height = SIDE + 2 * _LINE + _GAP
    heights = [3 * _LINE + -(-max(len(images), 1) // columns) * row_height for _, images in sections]
    canvas = Image.new("RGB", (_GAP + _WIDTH, sum(heights)), "white")
    pen, letters, top = ImageDraw.Draw(canvas), font(_LETTERS), 0
    for (title, images), height in zip(sections, heights, strict=True):
        pen.text((_GAP, top + _LINE), title if images else f"{title}: none", fill="#22292f", font=letters)
        for number, hard in enumerate(images):
            x = _GAP + number % columns * (cell + _GAP)
            y = top + 3 * _LINE + number // columns * row_height
            shown = hard.image.convert("RGB")
            if (times := min(cell // shown.width, SIDE // shown.height)) > 1:
                shown = shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST)
            canvas.paste(shown, (x, y))
            said = "" if hard.is_mask else f" {hard.probability:.0%}"
            pen.text((x, y + SIDE), _cut(hard.true, letters, cell), fill="#66707a", font=letters)
            text = _cut(hard.predicted, letters, cell, said)
            pen.text((x, y + SIDE + _LINE), text, fill="#b3261e" if hard.is_wrong else "#2e7d32", font=letters)
        top += height
    file = io.BytesIO()
    canvas.save(file, "png")
    return file.getvalue()


def _cut(text: str, font: Any, width: int, end: str = "") -> str:
    """Cut a text so that it fits below an image of this width, with an end that is not cut."""
    if font.getlength(text + end) <= width:
        return text + end
    while text and font.getlength(f"{text}…{end}") > width:
        text = text[:-1]
    return f"{text}…{end}"
