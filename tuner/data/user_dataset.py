"""Reading of a dataset of the user's own, any object with ``len()`` and pairs of an image and its class."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.data.pixels import Bytes, Unclear, as_bytes, as_class
from tuner.errors import Problem
from tuner.formatting import counted
from tuner.interfaces import ImageShape, Target
from tuner.user_code import raised

_READ_TWICE = 32
"""Images of a set that are read a second time: random transforms often leave an image as it is."""
_MOST_CLASSES = 100_000


class ImageSet:
    """The training or the test set in memory: one copy of its images, uint8 (N, C, H, W), and what is known of them.

    Args:
        images: The images in the order of the dataset.
        labels: The labels in that order, int64 (N,).
        classes: The names of the classes; empty if they are unknown.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        self.labels = labels
        self.image = _shape(images)
        self.label = Target(int(labels.max()) + 1, classes=classes)
        sample = images[:: max(1, len(images) // 1000)].numpy().tobytes()
        self.digest = hashlib.md5(sample + labels.numpy().tobytes()).digest()
        self._images = images
        self._order: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """The images in the order of the dataset; a copy if they were ordered."""
        return self._images if self._order is None else self._images[_inverse(self._order)]

    def ordered(self, order: Tensor) -> Tensor:
        """The images in another order, which is kept instead of the former one.

        The first time they are moved in place: a second copy might not fit in memory. Later, others may use them.
        """
        if self._order is None:
            _permute(self._images.numpy(), order.numpy())
        elif not torch.equal(order, self._order):
            self._images = self._images[_inverse(self._order)[order]]
        self._order = order
        return self._images


def _shape(images: Tensor) -> ImageShape:
    sample = images[:1000].double() / 255
    mean, std = sample.mean(dim=(0, 2, 3)), sample.std(dim=(0, 2, 3)).clamp_min(1e-3)
    channels, height, width = images.shape[1:]
    return ImageShape(channels, height, width, tuple(mean.tolist()), tuple(std.tolist()))


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return inverse


def _permute(rows: np.ndarray[Any, Any], order: np.ndarray[Any, Any]) -> None:
    """Put row ``order[i]`` at place i, in place, one cycle of the permutation after the other."""
    is_done = np.zeros(len(order), dtype=bool)
    for start in range(len(order)):
        if is_done[start]:
            continue
        first, place = rows[start].copy(), start
        while (source := int(order[place])) != start:
            rows[place] = rows[source]
            is_done[place] = True
            place = source
        rows[place] = first
        is_done[place] = True


def read_pairs(dataset: Any) -> tuple[Tensor, Tensor]:
    """Read every image, uint8 (N, C, H, W), and label, int64 (N,), into one allocation; some are read a second time.

    Raises:
        Unclear: An image or a label is ambiguous, they do not fit each other, or they differ when they are read twice.
    """
    images, labels = _all_of(dataset)
    _check_repeatable(dataset, images, labels)
    return images, labels


def _all_of(dataset: Any) -> tuple[Tensor, Tensor]:
    count = len(dataset)
    if count == 0:
        raise Unclear("it has no images", "return a dataset whose len() is the number of its images")
    labels = torch.empty(count, dtype=torch.int64)
    images, kind, is_deep = torch.empty(0, dtype=torch.uint8), "", False
    for index in range(count):
        pair = _item(dataset, index)
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise Unclear(f"item {index} is a {type(pair).__name__}", "return a pair: an image and its class")
        pixels, labels[index] = _converted(index, *pair)
        if index == 0:
            images, kind = torch.empty((count, *pixels.shape), dtype=torch.uint8), _kind(pair[0])
            is_deep = _has_16_bits(pair[0])
        if pixels.shape != images.shape[1:]:
            what = f"image {index} is {_size(pixels)} ({_kind(pair[0])}), and image 0 is {_size(images[0])} ({kind})"
            hint = "convert all to one mode, such as Image.convert('RGB'), and resize them to one size, in your dataset"
            raise Unclear(what, hint)
        images.numpy()[index] = pixels
    if is_deep and images.max() <= 1:
        raise Unclear(
            "its images have 16 bits, but no value exceeds 255", "return uint8 if the values are bytes in [0, 255]"
        )
    return images, labels


def _item(dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    except (Exception, SystemExit) as error:
        what = f"item {index} cannot be read: {raised(error)}"
        raise Unclear(what, "repair it, or leave it out of the dataset") from None


def _converted(index: int, image: Any, label: Any) -> tuple[Bytes, int]:
    try:
        return as_bytes(image), as_class(label)
    except Unclear as error:
        raise Unclear(f"image {index} {error.what}", error.hint) from None


def _has_16_bits(image: Any) -> bool:
    values = str(getattr(image, "mode", getattr(image, "dtype", "")))
    return "I;16" in values or "int16" in values


def _kind(image: Any) -> str:
    """What an image is, in words."""
    if hasattr(image, "getbands"):
        return f"a PIL image of mode {image.mode}"
    name = "a tensor" if isinstance(image, Tensor) else "an array"
    return f"{name} {tuple(np.shape(image))} of {getattr(image, 'dtype', type(image).__name__)}"


def _size(image: Any) -> str:
    return _text(*image.shape)


def _text(channels: int, height: int, width: int) -> str:
    return f"{width}x{height} with {counted(channels, 'channel')}"


def _check_repeatable(dataset: Any, images: Tensor, labels: Tensor) -> None:
    """Check that images are the same when they are read again: a random transform would be frozen."""
    for index in sorted({*np.linspace(0, len(images) - 1, num=_READ_TWICE).astype(int).tolist()}):
        pixels, label = _converted(index, *_item(dataset, index))
        if pixels.shape != images.shape[1:] or label != labels[index] or (pixels != images[index].numpy()).any():
            hint = (
                "remove random transforms from the dataset, and augment with trial.data.augment instead: each image is "
                "read once, and would stay the same in all epochs"
            )
            raise Unclear(f"image {index} differs when it is read twice", hint)


def check_classes(labels: Tensor) -> None:
    """Check that the labels of the training set are 0 to n-1, each of several images."""
    if labels.max() >= _MOST_CLASSES:
        what = f"has the label {int(labels.max())}"
        raise Unclear(what, f"number the classes from 0 without gaps; there are at most {_MOST_CLASSES}")
    counts = torch.bincount(labels)
    if len(counts) == 1:
        raise Unclear("all its training images have the class 0", "a classification needs at least two classes")
    few = [index for index, count in enumerate(counts.tolist()) if count < 2]
    if few:
        named = ", ".join(f"class {index} has {int(counts[index])}" for index in few[:5])
        more = f", and {len(few) - 5} more have too few" if len(few) > 5 else ""
        what = f"its labels go to {len(counts) - 1}, but not every class has two images: {named}{more}"
        raise Unclear(what, "number the classes from 0 without gaps, and leave out those with fewer than two images")


def names(classes: Any, labels: Tensor) -> tuple[str, ...]:
    """The names of the classes by index, from the attribute of torchvision's datasets; empty if it is not a list."""
    is_listed = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    if not is_listed:
        return ()
    count = int(labels.max()) + 1
    if len(classes) != count:
        what = f"its attribute classes has {len(classes)} names, and its labels are 0 to {count - 1}"
        raise Unclear(what, "list a name for each class that has images, in the order of the labels")
    return tuple(classes)


def disagreement(target: str, train: ImageSet, test: ImageSet) -> Problem | None:
    """What is wrong with a test set for this training set."""
    shapes = [(each.image.channels, each.image.height, each.image.width) for each in (train, test)]
    if shapes[0] != shapes[1]:
        texts = [_text(*shape) for shape in shapes]
        message = f"{target}: the training images are {texts[0]}, and the test images {texts[1]}"
        return Problem(message, "target", hint="return images of one shape for train=True and train=False")
    unseen = test.labels >= train.label.size
    if unseen.any():
        index = int(unseen.nonzero()[0])
        message = f"{target}(train=False): image {index} has the class {int(test.labels[index])}"
        hint = "the training set has no such class: a model cannot learn it; give both sets the same classes"
        return Problem(message, "target", hint=hint)
    return None
