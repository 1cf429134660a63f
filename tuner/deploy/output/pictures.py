"""Pictures with what was found drawn into them."""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tuner.data.decoding import Form, Undecodable, decode, formed
from tuner.deploy.output.base import Output
from tuner.deploy.result import Result
from tuner.deploy.video import Frame, frames
from tuner.errors import Problem, UserError
from tuner.inspection.boxes import Box, boxes_over
from tuner.inspection.pictures import colour, font, objects_over, over
from tuner.interfaces import IGNORED
from tuner.interfaces.instances import NUMBERS
from tuner.tasks.predictions.base import FoundObject, Pixels, Prediction
from tuner.tasks.predictions.coding import decoded

if TYPE_CHECKING:
    from PIL.Image import Image

_LONGEST = 1280
"""Longest side of a picture in pixels: the lines and texts of a larger one could not be seen."""
_LINE = 16
"""Height of a line of text, in pixels."""
_READABLE = 400
"""Most pixels to which a narrow picture is widened so that the text below it can be read."""
_JPEG = {".jpg", ".jpeg"}


class Pictures(Output):
    """A picture for each image, with boxes, masks, the classes of pixels, or a line of text below it.

    It lies in the folder where the image lies in the working directory, under the image's name; ``.png`` follows this
    unless it is a JPEG or a PNG. Beside it, ``NAME.classes.png`` has the classes of pixels: an image of the original's
    size with a palette, whose indices are the classes, and 255 where the image was cropped. Frames of a video lie in a
    folder of its name.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._films = _Films()

    def write(self, result: Result) -> None:
        place = self._place(result)
        if place.exists() and place.samefile(result.path):
            hint = "name another folder"
            raise UserError(Problem(f"the picture of {result.path} would replace the image", "--output", hint=hint))
        picture, text = _drawn(result, self._films), []
        place.parent.mkdir(parents=True, exist_ok=True)
        for name, prediction in result.heads.items():
            text.append(f"{name}: {prediction}" if name else str(prediction))
            if (classes := prediction.classes_of_pixels) is not None:
                label = place.with_name(".".join(filter(None, (place.name, name, "classes.png"))))
                _label_picture(classes).save(label)
        _captioned(picture, text).save(place, quality=90)

    def close(self) -> None:
        self._films.close()

    def _place(self, result: Result) -> Path:
        """Where the picture of an image is written."""
        absolute, here = Path(result.path).absolute(), Path.cwd()
        inner = absolute.relative_to(here if absolute.is_relative_to(here) else absolute.anchor)
        inside = self._folder / Path(*(part for part in inner.parts if part != ".."))
        if result.frame is not None:
            return inside / f"{result.frame:06}.jpg"
        return inside if inside.suffix.lower() in {*_JPEG, ".png"} else inside.with_name(f"{inside.name}.png")


class _Films:
    """The frames of videos, which are read once more, in their order."""

    def __init__(self) -> None:
        self._path, self._last = "", -1
        self._frames: Generator[Frame] | None = None

    def image(self, path: str, number: int) -> "Image":
        """A frame of a video.

        Raises:
            Undecodable: It cannot be read any more.
        """
        if self._frames is None or path != self._path or number <= self._last:
            self.close()
            self._path, self._frames = path, frames(path)
        self._last = number
        for each in self._frames:
            if each.number == number:
                return each.image()
        raise Undecodable(f"frame {number} is gone")

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()


def _drawn(result: Result, films: _Films) -> "Image":
    """The image, with what was found in it."""
    scale = min(1.0, _LONGEST / max(result.width, result.height))
    width, height = (max(1, round(scale * side)) for side in (result.width, result.height))
    form = Form(3, height, width, "squash")
    if result.frame is None:
        pixels, _ = decode(result.path, form)
    else:
        pixels = formed(films.image(result.path, result.frame), form)
    shown: Tensor = torch.from_numpy(pixels).float() / 255
    boxes: list[Box] = []
    for prediction in result.heads.values():
        shown = _painted(shown, prediction)
        for found in prediction.objects:
            edges = [edge * (width / result.width, height / result.height)[at % 2] for at, edge in enumerate(found.box)]
            boxes.append(Box(edges, found.number, f"{found.label} {found.score:.2f}"))
    return boxes_over(shown, boxes, max(width, height))


def _painted(image: Tensor, prediction: Prediction) -> Tensor:
    """Colour the pixels of an image (3, H, W) by their classes, or by the objects that they belong to."""
    classes = prediction.classes_of_pixels
    if classes is not None:
        image = over(image, _nearest(classes, image))
    masked = [each for each in prediction.objects if each.mask is not None]
    if not masked:
        return image
    codes = torch.zeros(image.shape[1:], dtype=torch.int32)
    for number, found in enumerate(reversed(masked[: NUMBERS - 1]), start=1):  # the surest lies in front
        codes[_nearest(_pixels_of(found), image) > 0] = found.number * NUMBERS + number
    return objects_over(image, codes)


def _pixels_of(found: FoundObject) -> Pixels:
    assert found.mask is not None
    return decoded(found.mask)


def _nearest(pixels: Pixels, image: Tensor) -> Tensor:
    """Numbers of pixels in the size of an image (C, H, W)."""
    rows, columns = (
        (np.arange(side) + 0.5) * before / side for side, before in zip(image.shape[1:], pixels.shape, strict=True)
    )
    return torch.from_numpy(pixels[rows.astype(np.int64)[:, None], columns.astype(np.int64)])


def _label_picture(classes: Pixels) -> "Image":
    """A picture whose indices into its palette are the classes of the pixels."""
    from PIL import Image

    picture = Image.fromarray(classes)
    colours = [colour(number) if number else (0.0, 0.0, 0.0) for number in range(IGNORED + 1)]
    picture.putpalette([round(255 * part) for each in colours for part in each])
    return picture


def _captioned(picture: "Image", lines: list[str]) -> "Image":
    """A picture with lines of text below it."""
    from PIL import Image, ImageDraw

    letters = font(12)
    width = max(picture.width, *(min(_READABLE, 4 + round(letters.getlength(line))) for line in lines), 1)
    canvas = Image.new("RGB", (width, picture.height + _LINE * len(lines)), "white")
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((2, picture.height + _LINE * number), line, fill="black", font=letters)
    return canvas
