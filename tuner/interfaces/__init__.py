"""The types that datasets, tasks and models share: batches, targets and outputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tuner.formatting import counted
from tuner.interfaces import instances

Outputs = Tensor | dict[str, Tensor]
"""What a model returns: one tensor, or one tensor for each head. The first dimension is the sample."""

Targets = dict[str, Tensor]
"""The targets of a batch by name. The first dimension of each tensor is the sample."""


@dataclass(frozen=True)
class WithAuxiliary:
    """What a model with auxiliary outputs, which are those of inner layers, returns in training mode.

    Args:
        outputs: Its outputs.
        auxiliary: Its auxiliary outputs, each of the form of `outputs`.
        weight: Weight of the loss of each auxiliary output; that of the outputs has weight 1.
    """

    outputs: Outputs
    auxiliary: tuple[Outputs, ...]
    weight: float


Model = Callable[..., Outputs | WithAuxiliary]
"""A model, or a function that computes its outputs for inputs (N, ...); auxiliary ones in training mode only.

A model that computes the loss of a head itself gets a second argument in training mode: the targets of these heads, by
head.
"""


@dataclass(frozen=True)
class Mixed:
    """The other samples of a batch whose images are blended, as mixup does.

    Args:
        targets: Their targets.
        share: Share of the batch's own targets in the loss, in [0, 1]; that of these targets is the rest. A scalar on
            the device.
    """

    targets: Targets
    share: Tensor


@dataclass(frozen=True)
class Batch:
    """Samples that are computed together.

    Args:
        inputs: The images, float32 (N, C, H, W) in [0, 1].
        targets: Their targets, on the same device.
        mixed: What is blended into the images; None for nothing.
    """

    inputs: Tensor
    targets: Targets
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def joined(self, other: "Batch") -> "Batch":
        """Append another batch; neither is blended."""
        targets = {name: torch.cat([target, other.targets[name]]) for name, target in self.targets.items()}
        inputs = torch.cat([self.inputs, other.inputs]).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, targets)

    def micro_batches(self, size: int) -> "Iterator[Batch]":
        """Split the batch into batches of `size` samples and the rest; one sample that is left joins the batch before.

        Batch normalization cannot be trained on one sample.
        """
        sizes = micro_batch_sizes(len(self), size)
        own = _split(self.targets, sizes)
        other = _split(self.mixed.targets, sizes) if self.mixed else []
        for number, inputs in enumerate(torch.split(self.inputs, sizes)):
            yield Batch(inputs, own[number], Mixed(other[number], self.mixed.share) if self.mixed else None)

    def rows(self, places: Sequence[slice]) -> "Batch":
        """Some of the samples, by their places in the batch."""

        def of(values: Tensor) -> Tensor:
            return values[places[0]] if len(places) == 1 else torch.cat([values[each] for each in places])

        own = {name: of(target) for name, target in self.targets.items()}
        mixed = self.mixed and Mixed({name: of(each) for name, each in self.mixed.targets.items()}, self.mixed.share)
        return Batch(of(self.inputs).contiguous(memory_format=torch.channels_last), own, mixed)


def micro_batch_sizes(count: int, size: int) -> list[int]:
    """The sizes of the micro-batches of a batch of `count` samples; see `Batch.micro_batches`."""
    full, rest = divmod(count, size)
    sizes = [size] * full + [rest] * (rest > 0)
    if rest == 1 and full and size > 1:
        sizes[-2:] = [size + 1]
    return sizes


def _split(targets: Targets, sizes: list[int]) -> list[Targets]:
    by_name = {name: torch.split(target, sizes) for name, target in targets.items()}
    return [{name: each[number] for name, each in by_name.items()} for number in range(len(sizes))]


IGNORED = 255
"""In a mask, the class of a pixel whose class is unknown: it is neither trained on nor measured."""

NO_BOX = (0.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""The row of a target of boxes that stands for no box: images have different numbers of them."""

TargetKind = Literal["class", "multilabel", "mask", "boxes", "instances", "values"]
"""What a target is, and the tensor that holds it for N samples.

- ``class``: one of the classes; int64 (N,), their indices.
- ``multilabel``: any number of the classes; float32 (N, classes), 1 for each class that the sample has, else 0.
- ``mask``: one of the classes for each pixel; uint8 (N, H, W), their indices or `IGNORED`.
- ``boxes``: any number of objects, each with one of the classes; float32 (N, M, 6), a row for each: left, top, right
  and bottom edge in pixels of the image, the index of the class, and 1 if the object is neither trained on nor measured
  (a crowd), else 0. The rest of the rows are `NO_BOX`.
- ``instances``: any number of objects, each with one of the classes and a mask; int16 or int32 (N, H, W), for each
  pixel which object it belongs to, as `tuner.interfaces.instances` codes that.
- ``values``: numbers in a unit; float32 (N, values).
"""


@dataclass(frozen=True)
class Target:
    """A target that a dataset provides.

    Args:
        size: Number of classes, or of values.
        unit: Unit of the values; None for classes.
        classes: Names of the classes, by index; empty if they are unknown.
        multilabel: Whether a sample may have any number of the classes, and not just one.
        per_pixel: Whether each pixel of a sample has a class, and not the sample.
        boxes: Whether the objects of a sample have classes and boxes, and not the sample.
        instances: Whether the objects of a sample have classes and masks, and not the sample.
        ids: The number that the files have for each class, by its index; empty if they have none.
    """

    size: int
    unit: str | None = None
    classes: tuple[str, ...] = ()
    multilabel: bool = False
    per_pixel: bool = False
    boxes: bool = False
    instances: bool = False
    ids: tuple[int, ...] = ()

    @property
    def kind(self) -> TargetKind:
        """What the target is."""
        if self.unit is not None:
            return "values"
        if self.per_pixel:
            return "mask"
        if self.boxes:
            return "boxes"
        if self.instances:
            return "instances"
        return "multilabel" if self.multilabel else "class"

    def names(self, value: Tensor) -> list[str]:
        """The names of the classes that one sample has, by the sample's value; their indices if they have no names."""
        indices: list[int] = []
        if self.kind == "class":
            indices = [int(value)]
        elif self.kind == "multilabel":
            indices = value.nonzero().flatten().tolist()
        elif self.kind == "mask":
            indices = sorted({*value.flatten().tolist()} - {IGNORED})
        elif self.kind == "boxes":
            indices = sorted({int(number) for number in value[:, 4].tolist() if number >= 0})
        elif self.kind == "instances":
            indices = sorted({*instances.classes_of(value).flatten().tolist()} - {-1})
        return [self.name(index) for index in indices]

    def name(self, index: int) -> str:
        """The name of a class; its index if it has none."""
        return self.classes[index] if index < len(self.classes) else str(index)

    def __str__(self) -> str:
        classes = counted(self.size, "class", "classes")
        texts = {
            "class": f"one of {classes}",
            "multilabel": f"any number of {classes}",
            "mask": f"one of {classes} for each pixel",
            "boxes": f"any number of boxes of {classes}",
            "instances": f"any number of objects with masks of {classes}",
            "values": f"{counted(self.size, 'value')} in {self.unit}",
        }
        return texts[self.kind]


@dataclass(frozen=True)
class ClassCounts:
    """How often the classes of a target occur in a training set.

    Args:
        counts: Number of samples that have each class, by index; of a mask, of pixels; of boxes, of boxes.
        samples: Number of samples; of a mask, of pixels whose class is known; of boxes, of boxes.
    """

    counts: tuple[int, ...]
    samples: int

    @classmethod
    def of(cls, target: Target, values: Tensor) -> "ClassCounts | None":
        """Count them in the values of a target, as `TargetKind` describes these; None if it has no classes."""
        if target.kind == "values":
            return None
        if target.kind == "multilabel":
            return cls(tuple(map(int, values.sum(dim=0).tolist())), len(values))
        if target.kind == "mask":
            values = values[values != IGNORED]
        elif target.kind == "instances":
            values = instances.boxes_of(values, instances.NUMBERS - 1)[0][..., 4]
        elif target.kind == "boxes":
            values = values[..., 4]
        known = values[values >= 0].long()
        return cls(tuple(known.bincount(minlength=target.size).tolist()), len(known))


@dataclass(frozen=True)
class Output:
    """An output that a task needs from a model.

    Args:
        size: Number of values per sample, or per pixel.
        hidden: Width of the hidden layer before the output; 0 for none, None to leave it to the model.
        log_probabilities: Whether the output ends in a log-softmax, which negative log likelihood needs.
        per_pixel: Whether the output has values for each pixel, (N, size, H, W), and not for each sample, (N, size).
        boxes: Whether the output is the objects that are found, (N, K, 6), the surest first: left, top, right and
            bottom edge in pixels, score in [0, 1] and index of the class, which is -1 in the rows that are left. In
            training mode it is the terms of the loss, (N, T), whose sum is the loss of a sample.
        masks: Whether each of these objects has a mask, too, behind its other values: probabilities, row by row, of the
            sides that `tuner.interfaces.instances.mask_sides` returns.
        classes: The names of the classes of these objects, by index; empty if they are unknown.
    """

    size: int
    hidden: int | None = None
    log_probabilities: bool = False
    per_pixel: bool = False
    boxes: bool = False
    masks: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageShape:
    """The shape of the images, and the statistics with which a model normalizes them.

    Args:
        channels: Number of channels.
        height: In pixels.
        width: In pixels.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
