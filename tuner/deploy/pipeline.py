"""The one way from images to predictions: decode, preprocess, batch, run, postprocess."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from tuner.data import images as data_images
from tuner.data.decoding import Undecodable
from tuner.data.loading.source import Source
from tuner.deploy.about import About
from tuner.deploy.ahead import decoded_ahead
from tuner.deploy.images import Decoded
from tuner.deploy.listing import Item
from tuner.deploy.result import Result, Skipped
from tuner.errors import Problem, UserError
from tuner.interfaces import Batch, Outputs
from tuner.interfaces.placement import Placement
from tuner.models.memory_format import placed
from tuner.process.out_of_memory import is_out_of_memory
from tuner.tasks.predictions.base import Options, Prediction
from tuner.train.evaluation import images_at_once, predict
from tuner.train.signature import OutputSignature
from tuner.user_code import raised

_BATCHES = 2
"""Batches that are decoded ahead."""
_BOX = 6
"""Least number of values of an object that was found."""


@dataclass(frozen=True)
class DecodedBatch:
    """Images that are computed at once.

    Args:
        first: The number of the first of them among all images.
        items: The images, or why they cannot be read.
    """

    first: int
    items: list[tuple[Item, Decoded | Undecodable]]

    @cached_property
    def images(self) -> list[Decoded]:
        """Those that could be read."""
        return [each for _, each in self.items if isinstance(each, Decoded)]


class Pipeline:
    """Predicts for any number of images, in constant memory, as the validation of a trial computes its outputs.

    Args:
        module: The model, which is moved to the device.
        about: What its checkpoint says of it.
        device: The device to compute on.
        options: What is asked of predictions.
        batch_size: Images that are computed at once; None for as many as in validation.
        threads: Threads that decode; None for as many as torch uses.
        every: Of a video, every so many frames one is predicted for; 1 for all.
    """

    def __init__(
        self,
        module: nn.Module,
        about: About,
        device: torch.device,
        options: Options | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        every: int = 1,
    ) -> None:
        self._module = placed(module, device)
        self._about = about
        self._device = device
        self._options = options or Options()
        form = about.form
        self.batch_size = batch_size or images_at_once(form.channels * form.height * form.width, device)
        """Images that are computed at once."""
        self._threads = threads or torch.get_num_threads()
        self._every = every

    def __call__(self, items: Iterable[Item]) -> Iterator[Result | Skipped]:
        """Predict what is in images; those that cannot be read are skipped.

        Raises:
            UserError: A model of the user's own fails, or returns something else than its signature says.
        """
        with closing(self.batches(items)) as batches:
            for batch in batches:
                yield from self.results(batch, self.outputs(batch.images))

    def batches(self, items: Iterable[Item], at_once: int = 1) -> "Generator[DecodedBatch]":
        """Decode images ahead.

        Args:
            items: The images.
            at_once: How many batches are computed at once.
        """
        ahead = _BATCHES * at_once * self.batch_size + self._threads
        decoding = decoded_ahead(items, self._about.form, threads=self._threads, ahead=ahead, every=self._every)
        with closing(decoding):
            first = 0
            while images := list(islice(decoding, self.batch_size)):
                yield DecodedBatch(first, images)
                first += len(images)

    def results(self, batch: "DecodedBatch", outputs: list[tuple[Outputs, int]]) -> Iterator[Result | Skipped]:
        """Read the outputs for a batch.

        Args:
            batch: The batch.
            outputs: What `outputs` has returned for its images, on any device.
        """
        predictions = self._predictions(batch.images, outputs, [self._options] * len(batch.images))
        for index, (item, each) in enumerate(batch.items, start=batch.first):
            if isinstance(each, Undecodable):
                yield Skipped(index, item.path, str(each))
            else:
                size = each.placement.width, each.placement.height
                yield Result(index, item.path, *size, next(predictions), item.frame, item.time)

    def predictions(self, images: Sequence[Decoded], options: Sequence[Options]) -> Iterator[Mapping[str, Prediction]]:
        """Predict for images that are decoded already, in batches.

        Args:
            images: The images, in the form of the model.
            options: What is asked of the predictions of each.

        Returns:
            What each head says of each image, by head.

        Raises:
            UserError: As of calling the pipeline.
        """
        for start in range(0, len(images), self.batch_size):
            end = start + self.batch_size
            some = list(images[start:end])
            yield from self._predictions(some, self.outputs(some), options[start:end])

    def _predictions(
        self, images: list[Decoded], computed: list[tuple[Outputs, int]], options: Sequence[Options]
    ) -> Iterator[Mapping[str, Prediction]]:
        """What each head says of each image, one image after another: those of large images take much memory."""
        start = 0
        for outputs, count in computed:
            placements = [each.placement for each in images[start : start + count]]
            yield from self._read(outputs, placements, options[start : start + count])
            start += count

    def _read(
        self, outputs: Outputs, placements: Sequence[Placement], options: Sequence[Options]
    ) -> Iterator[Mapping[str, Prediction]]:
        """Read the outputs for a batch: at once if the same is asked of all of its images, else one by one."""
        task, targets = self._about.task, self._about.signature.targets
        if all(each == options[0] for each in options):
            yield from task.predictions(outputs, targets, placements, options[0])
            return
        for index, (placement, asked) in enumerate(zip(placements, options, strict=True)):
            yield from task.predictions(_image_of(outputs, index), targets, [placement], asked)

    def outputs(self, images: list[Decoded]) -> list[tuple[Outputs, int]]:
        """Compute the outputs of the model for images.

        Returns:
            The outputs for all of them; for as many as fit in memory at once, and how many these are.
        """
        if not images:
            return []
        pixels = torch.from_numpy(np.stack([each.pixels for each in images]))
        with self._told(tuple(pixels.shape)):
            source = data_images.Images(pixels, {}).to(self._device)
        return [(outputs, len(batch)) for batch, outputs in self.run(source, len(images))]

    def run(self, source: Source, batch_size: int | None = None) -> Iterator[tuple[Batch, Outputs]]:
        """Compute the outputs of the model for a set of images in its form, in the order of the set.

        Args:
            source: The set, on the device.
            batch_size: Images that are computed at once; None for `batch_size`.

        Returns:
            Batch after batch; of one that does not fit in memory the parts that do.
        """
        size, form = batch_size or self.batch_size, self._about.form
        with self._told((size, form.channels, form.height, form.width)):
            dtype = self._about.dtype(self._device)
            for batch, outputs in predict(self._about.task, self._module, source, dtype, size):
                self._check(outputs, len(batch))
                yield batch, outputs

    @contextmanager
    def _told(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Tell the user in a line what fails in a model of their own, or that there is too little memory."""
        try:
            yield
        except UserError:  # of the images, or of outputs
            raise
        except Exception as error:
            if is_out_of_memory(error):
                hint = "free memory on it, or use another one: CUDA_VISIBLE_DEVICES='' computes on the CPU"
                raise UserError(
                    Problem(f"one image takes more memory than {self._device} has free", hint=hint)
                ) from None
            if not self._about.user_code:
                raise
            code = ", ".join(self._about.user_code)
            raise UserError(Problem(f"{code} fails with images {shape}: {raised(error)}")) from None

    def _check(self, outputs: Outputs, count: int) -> None:
        """Check that outputs for `count` images are those that the model's signature describes.

        Raises:
            UserError: They are not.
        """
        signed = self._about.signature.outputs
        by_head = dict.fromkeys(signed, outputs) if isinstance(outputs, Tensor) else outputs
        for name, output in signed.items():
            found = by_head.get(name)
            if isinstance(found, Tensor) and _fits(found, output, count):
                continue
            what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else "no tensor"
            head = f" for the head {name}" if name else ""
            message = f"the model returns {what}{head} for {count} images: its checkpoint says {output.predicts}"
            hint = f"a row for each image, with {output.size} classes or values"
            raise UserError(Problem(message, where=self._about.source, hint=hint))


def _image_of(outputs: Outputs, index: int) -> Outputs:
    """The outputs for one image of a batch, as a batch."""
    if isinstance(outputs, Tensor):
        return outputs[index : index + 1]
    return {name: each[index : index + 1] for name, each in outputs.items()}


def _fits(found: Tensor, output: OutputSignature, count: int) -> bool:
    """Whether a tensor has the form of an output for `count` images."""
    if output.boxes:
        return found.ndim == 3 and len(found) == count and found.shape[2] >= _BOX
    return found.shape[:2] == (count, output.size) and found.ndim == (4 if output.per_pixel else 2)
