"""The base class of datasets of images in files of which each has a mask."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from hashlib import md5
from itertools import chain
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.listing import Items
from tuner.data.encoded.masks.decoding import Codes, MaskDecoder
from tuner.data.encoded.masks.listing import MaskListing
from tuner.data.encoded.unchecked import annotations_are_checked
from tuner.data.images import Description
from tuner.data.pixels import Bytes
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted, some
from tuner.interfaces import IGNORED, ClassCounts, Target, Targets
from tuner.user_code import imports_allowed

_CHECKED = 20
"""Most masks that are read before anything starts, from the first to the last."""


class MaskedImages(EncodedImages):
    """Images in files, each with a mask: a label picture that says the class of each pixel, the target ``mask``.

    Images and masks are resized alike.
    """

    @property
    @abstractmethod
    def _complete(self) -> MaskListing:
        """The images and their masks."""

    @property
    @abstractmethod
    def _codes(self) -> Codes:
        """What the pixels of the masks mean."""

    @model_validator(mode="after")
    def _masks_can_be_read(self) -> Self:
        if not imports_allowed() or not annotations_are_checked():  # the files may be missing on this machine
            return self
        every = sorted(name for items in self._listing.splits.values() for name in items.names)
        names = [every[number * len(every) // _CHECKED] for number in range(_CHECKED)]
        failures, found = _sampled(self._unsplit, tuple(dict.fromkeys(names)))
        if failures:
            _sampled.cache_clear()  # they may be mended
            items = tuple(f"{escaped(name)}: {why}" for name, why in failures.items())
            hint = "repair it, or say in classes and ignore what its pixels mean; tuner inspect looks at all of them"
            raise Mistakes(
                Problem(f"{self.source}: {some(items, separator='; ')}", self._masks_key, hint=hint, items=items)
            )
        if found <= {IGNORED}:
            message = f"{self.source}: all pixels of {counted(len(set(names)), 'mask')} are unknown"
            raise Mistakes(Problem(message, self._masks_key, hint="say in classes and ignore what they mean"))
        if found == {0, IGNORED} and IGNORED in self._codes.ignored:
            message = f"{self.source}: the masks have pixels of the first class, and else unknown ones alone"
            hint = f"if {IGNORED} is a class, write the value of each: classes: {{background: 0, object: {IGNORED}}}"
            raise Mistakes(Problem(message, self._masks_key, hint=hint))
        return self

    @property
    def _masks_key(self) -> str:
        """The field to which mistakes of masks belong."""
        return "classes" if "classes" in type(self).model_fields else self._key

    @property
    def targets(self) -> dict[str, Target]:
        classes = self._listing.classes
        return {"mask": Target(len(classes), classes=classes, per_pixel=True)}

    def describe(self) -> Description:
        found = super().describe()
        if not found.digest:
            return found
        return replace(found, digest=md5(f"{found.digest} {self._codes}".encode()).hexdigest()[:8])

    def class_counts(self) -> dict[str, ClassCounts]:
        names = self.files()["train"].first(self.limit).names
        return {"mask": _counted(self._unlimited, tuple(names))}

    def captions(self, items: Items) -> list[str]:
        return ["images with masks"] * len(items)

    def unread(self, names: list[str]) -> dict[str, str]:
        return self._decoder.each_mask(names, lambda *_: None).failures

    @property
    def _decoder(self) -> MaskDecoder:
        return MaskDecoder(self.encoded, self.form, self.only_grey, self._complete.masks, self._codes)

    def _paths(self) -> Iterable[str]:
        return chain(super()._paths(), self._complete.masks.values())

    def _targets_of(self, items: Items) -> Targets:
        return {}  # they are decoded with the images

    def _why_not_split(self) -> Problem | None:
        sets = 3 - len({"validation", "test"} & set(self._listing.splits))
        count = len(self._listing.splits["train"])
        if count >= sets:
            return None
        return Problem(f"{counted(count, 'image')} cannot be split into {sets} sets", hint=f"at least {sets} images")


@lru_cache(maxsize=8)
def _sampled(data: MaskedImages, names: tuple[str, ...]) -> tuple[dict[str, str], frozenset[int]]:
    """Why some masks cannot be read, by the names of their images; and the classes of the pixels of the others."""
    counts, failures = _counts(data, names)
    return failures, frozenset(np.flatnonzero(counts).tolist())


@lru_cache(maxsize=8)
def _counted(data: MaskedImages, names: tuple[str, ...]) -> ClassCounts:
    """How many pixels of training images each class has."""
    counts = _counts(data, names)[0][: len(data._listing.classes)].tolist()
    return ClassCounts(tuple(counts), sum(counts))


def _counts(data: MaskedImages, names: tuple[str, ...]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], dict[str, str]]:
    """How many pixels of images' masks each class has, and `IGNORED`; and why some masks cannot be read, by name."""
    counts = np.zeros((len(names), IGNORED + 1), dtype=np.int64)

    def take(index: int, mask: Bytes) -> None:
        counts[index] = np.bincount(mask.ravel(), minlength=IGNORED + 1)

    outcome = data._decoder.each_mask(list(names), take)
    return counts.sum(axis=0), outcome.failures
