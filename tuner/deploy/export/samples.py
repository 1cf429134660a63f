"""The images with which an exported file is compared with its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.data.decoding import DECODED, Form, Undecodable
from tuner.deploy.images import decoded
from tuner.deploy.listing import listed
from tuner.errors import Problem, UserError
from tuner.formatting import counted

MOST = 64
"""Images that are compared at the most."""
_GENERATED = 16
_KEY = "--images"


@dataclass(frozen=True)
class Samples:
    """Images of a model's size.

    Args:
        images: The images, uint8 (N, C, H, W).
        what: What they are, in words.
    """

    images: Tensor
    what: str


def samples_of(arguments: Sequence[str], form: Form) -> Samples:
    """The first images that a user names; without any, images that are made up.

    Raises:
        UserError: They lead to no image that can be read.
    """
    if not arguments:
        return Samples(generated(form), f"{_GENERATED} made-up images (--images names your own)")
    if form.channels not in DECODED:
        message = f"the model takes images of {form.channels} channels, and files are decoded to 1 or 3"
        raise UserError(Problem(message, _KEY, hint="leave it out: images are made up then"))
    found = []
    for item in islice(listed(arguments), MOST):
        try:
            found.append(decoded(item, form).pixels)
        except Undecodable as error:
            raise UserError(Problem(f"{item.path}: {error}", _KEY, hint="leave it out")) from None
    return Samples(torch.from_numpy(np.stack(found)), counted(len(found), "image"))


def generated(form: Form) -> Tensor:
    """Made-up images, the same each time: random patches, from one for the whole image to one for each pixel."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for number in range(_GENERATED):
        cells = 2 ** (number % 8)
        sides = (min(cells, form.height), min(cells, form.width))
        patches = torch.rand(1, form.channels, *sides, generator=generator)
        images.append(functional.interpolate(patches, (form.height, form.width), mode="bilinear"))
    return (torch.cat(images) * 255).round().to(torch.uint8)
