"""Where the decoded images of a dataset lie while trials train on them: the field `cache`."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import lru_cache
from hashlib import md5
from pathlib import Path
from typing import Self

import torch

from tuner.data.decoding import Encoded, Form, Outcome
from tuner.data.encoded.listing import Items, Listing, stamps
from tuner.data.images import ImageData, Images, OnceRead
from tuner.data.loading.choice import Cache, Choice, choose
from tuner.data.loading.decoder import Decoder
from tuner.data.loading.disk_cache import file_of
from tuner.data.loading.failures import Failures, failures_of
from tuner.data.loading.fetched import EncodedSet
from tuner.data.loading.opening import on_disk, streamed
from tuner.data.loading.source import LoaderResources, Source
from tuner.interfaces import Targets


class CachedImages(ImageData):
    """Images that are decoded once, or in each epoch. All places give the same numbers."""

    cache: Cache = "auto"
    """Where decoded images lie: memory, of each worker; disk, a file beside the downloaded datasets that all trials
    share; none, where each trial decodes them in each epoch with resources.cpu - 1 processes; auto chooses the first of
    these that has room."""

    @property
    @abstractmethod
    def encoded(self) -> Encoded:
        """Returns the path of an image, or the content of its file, by its name in the listing.

        Several threads may call it, and other processes, to which it is sent: it holds what it needs, and no more. It
        raises Undecodable if an image cannot be read.
        """

    @abstractmethod
    def files(self) -> dict[str, Items]:
        """The images of the ``train``, ``validation`` and ``test`` set, those of the training set in random order."""

    @property
    @abstractmethod
    def _listing(self) -> Listing:
        """All images, before sets are split off."""

    @property
    @abstractmethod
    def _test(self) -> Items:
        """The images of the test set."""

    @property
    @abstractmethod
    def _unsplit(self) -> Self:
        """A copy that is the same whatever is held out of the training images as the validation set."""

    @property
    @abstractmethod
    def form(self) -> Form:
        """The form to which the images are decoded."""

    @property
    @abstractmethod
    def only_grey(self) -> bool:
        """Whether an image in colour is a mistake."""

    @abstractmethod
    def _check(self, outcome: Outcome) -> None:
        """Raise UserError if images could not be decoded, and print which have several frames."""

    @property
    @abstractmethod
    def _origin(self) -> str:
        """What tells its images from those of the same names, sizes and times elsewhere."""

    def _paths(self) -> Iterable[str]:
        """The files that hold the images. A dataset whose files hold several images says which these are."""
        return map(str, map(self.encoded, _names(self._unsplit)))

    @contextmanager
    def opened(self, device: torch.device, resources: LoaderResources) -> Iterator[tuple[Source, Source]]:
        choice = self._choice(device, resources)
        if self.cache in ("auto", "none"):
            print(f"cache: {choice.explain(resources.processes)}")
        if choice.place == "memory":
            with super().opened(device, resources) as in_memory:
                yield in_memory
            return
        files = self.files()
        shown = self._encoded_set(files["train"].first(self.limit))
        sets = [replace(shown, draws=self.draws(shown.targets)), self._encoded_set(files["validation"])]
        if choice.place == "disk":
            with self._mapped(sets, device, resources) as (train, validation):
                yield train, validation
        else:
            with streamed(sets, self._check, device, resources) as (train, validation):
                yield train, validation

    @contextmanager
    def opened_once(self, split: OnceRead, device: torch.device, resources: LoaderResources) -> Iterator[Source]:
        """Open a set that is read once: from the file of decoded images if it exists."""
        sets = [self._encoded_set(self.files()[split].first(self.limit if split == "train" else None))]
        if self.cache in ("auto", "disk") and _file(self._unsplit).exists():
            with self._mapped(sets, device, resources) as (images,):
                yield images
        else:
            with streamed(sets, self._check, device, resources) as (images,):
                yield images

    def _mapped(
        self, sets: list[EncodedSet], device: torch.device, resources: LoaderResources
    ) -> AbstractContextManager[list[Source]]:
        file, names = _file(self._unsplit), _names(self._unsplit)
        return on_disk(sets, self._check, device, resources, file=file, names=names)

    def plan(self, device: torch.device, resources: LoaderResources | None) -> str:
        if resources is None:
            return "memory, disk or none: each node chooses by what it has free" if self.cache == "auto" else self.cache
        return self._choice(device, resources).explain(resources.processes)

    def stays_in_memory(self, device: torch.device, resources: LoaderResources) -> bool:
        return self._choice(device, resources).place == "memory"

    def _choice(self, device: torch.device, resources: LoaderResources) -> Choice:
        if self.cache != "auto":
            return Choice(self.cache, "as the file says")
        return _automatic(self._unsplit, device, resources)

    def targets_in(self, split: str) -> Targets:
        return self._targets_of(self.files()[split].first(self.limit if split == "train" else None))

    def _encoded_set(self, items: Items) -> EncodedSet:
        return EncodedSet(items.names, self._targets_of(items), self._decoder)

    @abstractmethod
    def _targets_of(self, items: Items) -> Targets:
        """The targets of items that are known without decoding them."""

    def _images_of(self, items: Items) -> tuple[Images, Outcome]:
        """Decode the images of items, and what of their targets lies in files."""
        decoded, outcome = self._decoder.all(items.names)
        images, targets = self._decoder.parts(decoded)
        return Images(images, self._targets_of(items) | targets), outcome

    @property
    def _decoder(self) -> Decoder:
        return Decoder(self.encoded, self.form, self.only_grey)

    def _failures(self) -> Failures:
        """Why images, of whichever set, cannot be decoded, by their names. All are decoded, unless that was done."""
        return failures_of(_file(self).with_suffix(".json"), _names(self), self._decoder, self._origin)


@lru_cache(maxsize=4)
def _names(data: CachedImages) -> list[str]:
    """The names of all images, whichever set they are in."""
    return sorted({name for items in data._listing.splits.values() for name in items.names})


@lru_cache(maxsize=4)
def _file(data: CachedImages) -> Path:
    """The file of the decoded images."""
    digest = md5(data._origin.encode(errors="surrogateescape") + b"\0")
    for name in _names(data):
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    for stamp in stamps(data._paths()):
        digest.update(b"%d %d\n" % (stamp or (-1, -1)))  # deleted since: reading it fails with its name
    return file_of(digest.hexdigest(), data._decoder)


@lru_cache(maxsize=16)  # what is free changes once the images lie there, and a worker runs many trials
def _automatic(data: CachedImages, device: torch.device, resources: LoaderResources) -> Choice:
    image, total = data._decoder.image_bytes, sum(map(len, data._listing.splits.values()))
    return choose((total - len(data._test)) * image, total * image, lambda: _file(data), device, resources)
