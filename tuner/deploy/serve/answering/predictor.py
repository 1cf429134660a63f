"""A model that answers requests: it decodes what was sent, and predicts for several requests at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tuner.data.decoding import DECODED, Form, Undecodable
from tuner.data.pixels import Unclear
from tuner.deploy.images import Decoded, decoded
from tuner.deploy.listing import Item
from tuner.deploy.model import about_of, load_model
from tuner.deploy.output.json_lines import as_json
from tuner.deploy.pipeline import Pipeline
from tuner.deploy.result import Result
from tuner.deploy.serve.answering.asked import NPY, Answered, Asked, Description, Sent
from tuner.deploy.serve.answering.npy import array_of
from tuner.deploy.serve.limits import Limits
from tuner.errors import Problem, UserError
from tuner.interfaces import Outputs
from tuner.storage.uris import masked
from tuner.tasks.predictions.base import Options
from tuner.train.device import trial_device

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = frozenset({"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"})
"""The formats of Pillow that are decoded: those of others are rare, and some run other programs, as EPS does."""
_BATCH = 4
"""Dimensions of a batch of arrays."""
_READABLE = "send images that Pillow reads, or arrays of uint8, uint16 or floats in [0, 1]"
_LEAVE_OUT = "leave out the option that has no effect"
_FEWER = "send as many images in a request as it may have"
_SMALLER = "send smaller images"


class _TooMany(Undecodable):
    """An array has none or too many images."""


@dataclass(frozen=True)
class Model:
    """A model that is to be loaded from its checkpoint, where the replica runs.

    Args:
        source: What the user calls it.
        trust: The user's code that may be called to build it.
        code: The folder of that code; None for the working directory.
        example: An image file that it has to predict for before it answers; empty for none.
    """

    source: str
    trust: tuple[str, ...] = ()
    code: str | None = None
    example: bytes = b""


@dataclass(frozen=True)
class Prepared:
    """A request whose images are decoded.

    Args:
        names: The name of each image.
        images: The images.
        options: What is asked of the predictions.
    """

    names: tuple[str, ...]
    images: tuple[Decoded, ...]
    options: Options


class Predictor:
    """A loaded model that answers requests.

    Args:
        folder: The folder of its checkpoint, which is not needed afterwards.
        model: The model.
        limits: What is accepted of a client.
        has_gpu: Whether it may use a GPU, if there is one.

    Raises:
        UserError: It cannot be loaded, takes no images that clients can send, or computes no numbers.
    """

    def __init__(self, folder: Path, model: Model, limits: Limits, *, has_gpu: bool = False) -> None:
        try:
            module = load_model(folder, model.trust, model.code)
        except UserError as error:  # the folder is one of this replica's, on whatever node that is
            raise error.elsewhere(str(folder), masked(model.source)) from None
        self._about = about_of(module)
        self._limits = limits
        self._pipeline = Pipeline(module, self._about, trial_device(has_gpu))
        self.batch_size = self._pipeline.batch_size
        """Most images of a batch."""
        self._check(model)

    @property
    def description(self) -> Description:
        """What the model says of itself."""
        about, outputs = self._about, self._about.signature.outputs
        predicts = {name: each.predicts for name, each in outputs.items()}
        options = {each for kind in about.predictions.values() for each in kind.options}
        form = about.form
        facts: dict[str, Any] = {
            "predicts": predicts.get("", predicts),
            "options": sorted(options),
            "input": {"channels": form.channels, "height": form.height, "width": form.width, "resize": form.resize},
            "metrics": {
                name: value
                for name, value in about.metrics.items()
                if isinstance(value, int | float) and math.isfinite(value)
            },
        }
        classes = {name: list(each.classes) for name, each in outputs.items() if each.classes}
        return Description(predicts, facts | ({"classes": classes.get("", classes)} if classes else {}))

    def prepare(self, asked: Asked) -> Prepared | Answered:
        """Decode the images of a request, in any thread; say what is wrong if something is."""
        faults = list(self._without_effect(asked))
        hints = dict.fromkeys([_LEAVE_OUT] if faults else [])  # a set that keeps the order
        names: list[str] = []
        images: list[Decoded] = []
        for number, sent in enumerate(asked.sent):
            try:
                for each in self._decoded(sent, self._limits.images - len(images)):
                    names.append(sent.name)
                    images.append(each)
            except Undecodable as error:
                faults.append(f"{sent.name or f'image {number}'}: {error}")
                hints |= {_FEWER if isinstance(error, _TooMany) else _READABLE: None}
            except MemoryError:
                faults.append(f"{sent.name or f'image {number}'}: there is too little memory to decode it")
                hints |= {_SMALLER: None}
        return (
            Answered(faults=tuple(faults), hints=tuple(hints))
            if faults
            else Prepared(tuple(names), tuple(images), asked.options)
        )

    def answer(self, batch: Sequence[Prepared]) -> list[Answered]:
        """Predict for the images of several requests at once.

        Raises:
            UserError: A model of the user's own fails.
        """
        images = [image for each in batch for image in each.images]
        options = [each.options for each in batch for _ in each.images]
        predictions = self._pipeline.predictions(images, options)
        return [Answered(tuple(self._json(each, predictions))) for each in batch]

    def _json(self, prepared: Prepared, predictions: Iterator[Any]) -> Iterator[str]:
        """The JSON of the predictions for a request, which are the next ones."""
        for index, (name, image) in enumerate(zip(prepared.names, prepared.images, strict=True)):
            placed = image.placement
            yield as_json(Result(index, name, placed.width, placed.height, next(predictions)).as_dict())

    def _decoded(self, sent: Sent, most: int) -> Iterator[Decoded]:
        """Decode what was sent of one or more images, of which there may be `most`."""
        form = self._about.form
        if not sent.content.startswith(NPY):
            yield decoded(Item(sent.name, sent.content), form, self._check_header)
            return
        array = array_of(sent.content)
        arrays = array if array.ndim == _BATCH else array[None]
        if not 1 <= len(arrays) <= most:
            raise _TooMany(f"it has {len(arrays)} images, and a request has from 1 to {self._limits.images}")
        if 0 in array.shape:
            raise Undecodable(f"an array {array.shape} has no pixels")
        for each in arrays:
            yield decoded(Item(sent.name, each), form)

    def _check_header(self, image: "Image") -> None:
        """Refuse an image that is too large to be decoded, or of a format that is not."""
        if image.format not in FORMATS:
            raise Unclear(f"it is {image.format}, and these are decoded: {', '.join(sorted(FORMATS))}", "")
        if image.width * image.height > self._limits.pixels:
            raise Unclear(
                f"it is too large: {image.width}x{image.height} pixels are more than {self._limits.pixels}", ""
            )

    def _without_effect(self, asked: Asked) -> Iterator[str]:
        """The options that were given and have no effect."""
        effective = {each for kind in self._about.predictions.values() for each in kind.options}
        for name in sorted(asked.given - effective):
            yield f"{name} has no effect: the model predicts {self._predicts}"

    @property
    def _predicts(self) -> str:
        return "; ".join(each.predicts for each in self._about.signature.outputs.values())

    def _check(self, model: Model) -> None:
        """Check the model on noise and on its example, alone and in a full batch, which warms it up, too."""
        form, source = self._about.form, model.source
        if form.channels not in DECODED and form.channels > _BATCH:
            message = f"it takes images of {form.channels} channels, which no image file has"
            raise UserError(Problem(message, where=source, hint="tuner.load(MODEL).predict(arrays) predicts with it"))
        images = {"an image": _noise(form)} | ({"its example": self._example(model)} if model.example else {})
        for what, image in images.items():
            for count in (1, min(self.batch_size, self._limits.images)):
                for outputs, _ in self._pipeline.outputs([image] * count):
                    if not _is_finite(outputs):
                        hint = "another epoch of its trial may be sound"
                        raise UserError(Problem(f"it computes NaN or infinity for {what}", where=source, hint=hint))
            self.answer([Prepared(("",), (image,), Options())])

    def _example(self, model: Model) -> Decoded:
        try:
            return next(self._decoded(Sent("", model.example), 1))
        except Undecodable as error:
            raise UserError(Problem(f"its example cannot be read: {error}", where=model.source)) from None


def _noise(form: Form) -> Decoded:
    """An image of noise in a form."""
    pixels = np.random.default_rng(0).integers(0, 256, (form.height, form.width, form.channels), np.uint8)
    return decoded(Item("", pixels if form.channels in DECODED else torch.from_numpy(pixels).permute(2, 0, 1)), form)


def _is_finite(outputs: Outputs) -> bool:
    tensors = outputs.values() if isinstance(outputs, dict) else [outputs]
    return all(bool(each.isfinite().all()) for each in tensors)
