"""Datasets that the user's code reads."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor

from tuner.config_keys import check_unambiguous
from tuner.data.images import Description, ImageData, Images, Split
from tuner.data.in_memory import InMemoryImages
from tuner.data.pixels import Unclear
from tuner.data.splits import stratified
from tuner.data.user_dataset import ImageSet, check_classes, disagreement, names, read_pairs
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import ImageShape, Target
from tuner.target_name import TargetName
from tuner.user_code import folders, imports_allowed, in_experiment_folder, raised, resolve_factory


class ImportedData(InMemoryImages):
    """Your own dataset: a callable that takes ``train=True`` or ``False`` and returns a dataset of (image, class).

    Most datasets of torchvision have this form. An image is a PIL image of any mode, an array (H, W) or (H, W, C), or a
    tensor (H, W) or (C, H, W): bytes, 16-bit values (uint16), or floats in [0, 1]. All images have the same shape and
    are kept in memory. Classes are numbered from 0; the attribute ``classes`` may list their names.
    """

    kind: Literal["import"] = "import"
    target: TargetName
    """The class or function that returns the dataset, as ``pkg.module:name``: beside the YAML file, or installed."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the callable."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the training images that is held out as the validation set, stratified by class."""
    canvas: None = None
    """Not available for your own dataset."""

    @field_validator("args")
    @classmethod
    def _no_name_twice(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(args)
        return args

    @model_validator(mode="after")
    def _can_be_read(self) -> "ImportedData":
        if not imports_allowed():
            return self
        for train in (True, False):
            found = self._found(train)
            if isinstance(found, Problem):
                raise Mistakes(found)
        if problem := disagreement(self.target, self._set(True), self._set(False)):
            raise Mistakes(problem)
        classes = self.targets["label"].size  # a stratified split has each class in both sets
        count = len(self._set(True).labels)
        images = counted(count, "image")
        if self.folds is not None and self.folds.k > count:
            raise Mistakes(Problem(f"{self.folds.k} folds of {images}", "folds.k", hint="at most the images"))
        if self.folds is None and min(self.validation_size, count - self.validation_size) < classes:
            message = f"{self.validation:g} of {images} leaves fewer images than classes in one of the two sets"
            raise Mistakes(Problem(message, "validation"))
        return self

    @property
    def user_code(self) -> list[str]:
        return [self.target]

    @property
    def image(self) -> ImageShape:
        return self._set(True).image

    @property
    def targets(self) -> dict[str, Target]:
        return {"label": self._set(True).label}

    @property
    def validation_size(self) -> int:
        count = len(self._set(True).labels)
        return self._held_out_of(count, round(self.validation * count))

    def describe(self) -> Description:
        name = self.target.partition(":")[2]
        if not imports_allowed():
            return Description(name, "", self.target, {})
        digest = hashlib.md5(self._split_settings.encode())
        digest.update(self._set(True).digest)
        train = len(self._set(True).labels) - self.validation_size
        sizes = {"train": min(train, self.limit or train), "validation": self.validation_size}
        sizes["test"] = len(self._set(False).labels)
        return Description(name, digest.hexdigest()[:8], self.target, sizes)

    def prepare(self) -> tuple[ImageData, str]:
        return self, ""

    def location(self) -> str:
        return f"read by {self.target}"

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        found = self._set(split == "train")
        return found.images, found.labels

    def _both(self) -> tuple[Images, int]:
        found = self._set(True)
        order, train = stratified(found.labels, self.validation_size, self.seed, self.folds)
        return Images(found.ordered(order), {"label": found.labels[order]}), train

    def _set(self, train: bool) -> ImageSet:
        found = self._found(train)
        assert isinstance(found, ImageSet), found
        return found

    def _found(self, train: bool) -> ImageSet | Problem:
        args = json.dumps(self.args, sort_keys=True, default=str)
        return _read(self.target, args, train, _Args(self.args), folders()[0])

    def __hash__(self) -> int:
        return hash((self.target, self.seed, self.validation, self.folds))


class _Args(dict[str, Any]):
    """Keyword arguments that `lru_cache` ignores: their JSON text is part of the key instead."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@lru_cache(maxsize=4)  # the training and the test set of two datasets
def _read(target: str, args: str, train: bool, arguments: _Args, folder: Path) -> ImageSet | Problem:
    """Read all images and labels; return a Problem if that fails.

    `args`, the text of `arguments`, and `folder`, to which relative paths in them refer, are the key of the cache.
    """
    try:
        factory = resolve_factory(target)
    except Mistakes as mistakes:
        return mistakes.problems[0]
    call = f"{target}({', '.join([f'train={train}', *(f'{name}={value!r}' for name, value in arguments.items())])})"
    try:
        with in_experiment_folder():
            dataset = factory(train=train, **arguments)
            images, labels = read_pairs(dataset)
        if train:
            check_classes(labels)
        return ImageSet(images, labels, names(getattr(dataset, "classes", None), labels) if train else ())
    except Unclear as error:
        return Problem(f"{call}: {error.what}", "target", hint=error.hint)
    except (Exception, SystemExit) as error:
        message = f"{call} cannot be read as pairs of image and class: {raised(error)}"
        return Problem(
            message, "target", hint="return an object with len() and, by index, pairs of an image and its class"
        )
