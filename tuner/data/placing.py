"""Where places of images are once these are resized: moved exactly as `tuner.data.decoding.fitted` moves pixels."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, get_args

import numpy as np

from tuner.data.decoding import Form, Resize
from tuner.interfaces.placement import Placement

_Array = np.ndarray[Any, np.dtype[Any]]

ASSUMED: Resize = "crop"
"""How images of any size are resized for a model whose dataset had images of one size, and resized none."""


def maps(sizes: _Array, form: Form) -> tuple[_Array, _Array]:
    """How resizing moves places: the factor and then the shift in each image, both for x and y.

    Args:
        sizes: Width and height of each image as it is shown, float64 (N, 2).
        form: The form of the images.

    Returns:
        Both float64 (N, 2).
    """
    sides = np.array([form.width, form.height], dtype=np.float64)
    if form.resize == "squash":
        return sides / sizes, np.zeros_like(sizes)
    if form.resize == "crop":
        scale = (sizes / sides).min(axis=1, keepdims=True)
        return np.repeat(1 / scale, 2, axis=1), -(sizes - sides * scale) / 2 / scale
    scale = (sides / sizes).min(axis=1, keepdims=True)
    inner = np.maximum(1, np.rint(sizes * scale))
    return inner / sizes, (sides - inner) // 2


@lru_cache(maxsize=4096)  # many images have the same size
def placement(size: tuple[int, int], form: Form) -> Placement:
    """How an image is placed in a form.

    Args:
        size: Width and height of the image as it is shown.
        form: The form.
    """
    scale, offset = (each[0].tolist() for each in maps(np.array([size], dtype=np.float64), form))
    return Placement(*size, (scale[0], scale[1]), (offset[0], offset[1]), (form.height, form.width))


def form_of(steps: Iterable[Mapping[str, Any]], channels: int, height: int, width: int) -> Form:
    """The form of a model's input, from what its signature says.

    Args:
        steps: The steps of its preprocessing, as `Form.steps` returns them. A dataset whose images all have one size
            has none that says how others are resized: `ASSUMED` is, as for images in files unless they say otherwise.
        channels: Channels of the input.
        height: Its height in pixels.
        width: Its width.
    """
    fits = [step.get("fit") for step in steps if step.get("kind") == "resize"]
    known = next((each for each in get_args(Resize) if each in fits), ASSUMED)
    return Form(channels, height, width, known)
