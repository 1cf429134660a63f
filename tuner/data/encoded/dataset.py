"""The base class of datasets whose images lie encoded in files."""

import os
from abc import abstractmethod
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import md5
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import psutil
from pydantic import Field, field_validator, model_validator

from tuner.data.decoding import Encoded, Outcome
from tuner.data.encoded.broken import broken, tell_animated
from tuner.data.encoded.listing import Items, Listing
from tuner.data.encoded.measured import UNOPENED, MeasuredImages
from tuner.data.encoded.splitting import sets_of, why_not_named, without_test
from tuner.data.encoded.undivided import sets_are_split_off
from tuner.data.images import Description, ImageData, Images
from tuner.data.splits import Folds
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem, UserError
from tuner.formatting import byte_size, counted, some
from tuner.user_code import folders, imports_allowed

_SAMPLE = 500
"""Most images of which the mean and the standard deviation are measured."""

_SMALL = 16
"""Side in pixels to which images are decoded to find the broken ones: a large JPEG is then decoded at an eighth of its
size, which reads all of it."""
_SHOWN = 3
"""Most broken images that are named."""

Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


class EncodedImages(MeasuredImages):
    """Images that lie encoded in files, of any format that Pillow reads and of any size.

    A member says what its images and their targets are (`_complete`), and how one is found if its name is no path
    (`encoded`). The sets that it lacks are split off its training images.
    """

    validation: Share | Name = 0.1
    """Share of the training images that is held out as the validation set if the data have none."""
    test: Share | Name | None = 0.1
    """Share of the images that is held out as the test set if the data have none."""

    skip_broken: bool = False
    """Whether images that cannot be decoded are left out of their sets, for which all are decoded once, before anything
    starts; else they fail a trial."""

    _key: ClassVar[str] = "root"
    """The field that says where the images are."""
    has_files: ClassVar[bool] = True
    """Whether each image is a file, and not a part of one."""

    @field_validator("root", "file", check_fields=False)
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        """A path as it is on every node; one that is relative is relative to the folder of the YAML file."""
        if path is None:
            return None
        if "://" in path:
            raise Mistakes(Problem(f"{path} is a URI", hint="a folder that every node sees at the same path"))
        try:
            return str((folders()[0] / Path(path).expanduser()).absolute())
        except RuntimeError as error:  # an unknown user's home
            raise Mistakes(Problem(f"{path!r} is not a folder: {error}")) from None

    @property
    def source(self) -> str:
        """The folder or file that holds the images or lists them: an absolute path."""
        return str(getattr(self, self._key))

    @property
    def _named(self) -> dict[str, str]:
        """What the user has written for the ``validation`` and the ``test`` set, if that is no share."""
        written = {"validation": self.validation, "test": self.test}
        return {split: name for split, name in written.items() if isinstance(name, str)}

    @property
    def _folder(self) -> str:
        """The folder that the names of the images are relative to."""
        return self.source

    @property
    def encoded(self) -> Encoded:
        return partial(os.path.join, self._folder)

    @property
    @abstractmethod
    def _complete(self) -> Listing:
        """What the dataset holds, whether it can be decoded or not.

        Raises:
            Mistakes: It cannot be read, or holds nothing to learn.
        """

    @property
    def files_digest(self) -> str:
        return self._complete.digest if imports_allowed() else ""

    @property
    def _listing(self) -> Listing:
        """What the dataset holds, without what `skip_broken` leaves out.

        Raises:
            Mistakes: It cannot be read, or holds nothing to learn.
        """
        return _usable(self._whole) if self.skip_broken else self._complete

    @property
    def _whole(self) -> Self:
        """A copy that leaves nothing out, the same for all that would leave out the same: all decode to it."""
        decoded = {"size": _SMALL, "resize": "squash", **UNOPENED}
        return self._unsplit.model_copy(update={"skip_broken": False, **decoded})

    @property
    def _origin(self) -> str:
        return self._folder

    @model_validator(mode="after")
    def _can_be_split(self) -> "EncodedImages":
        if not imports_allowed():  # the files may be missing on this machine
            return self
        problem = why_not_named(self._listing, self._named)
        if problem is None and sets_are_split_off():
            problem = self._why_not_split()
        if problem is not None:
            message = problem.message if problem.key else f"{self.source}: {problem.message}"
            raise Mistakes(Problem(message, problem.key or self._key, hint=problem.hint))
        self._check_channels()
        return self

    @abstractmethod
    def _why_not_split(self) -> Problem | None:
        """Why the missing sets cannot be split off, or cannot be learnt from; None if they can."""

    @property
    def _folds(self) -> Folds | None:
        """The folds of which one is the validation set."""
        return None

    @property
    def needs_files(self) -> bool:
        return True

    @property
    def _split_settings(self) -> str:
        """The settings that decide the validation set, for the digest."""
        return f"{self.seed} {self.validation}"

    def describe(self) -> Description:
        name = Path(self.source).name
        if not imports_allowed():
            return Description(name, "", self.source, {})
        settings = f"{self.size} {self.resize} {self.channels} {self._split_settings} {self.test}"
        digest = md5(f"{self._listing.digest} {settings}".encode()).hexdigest()[:8]
        sizes = {split: len(self._split(split)) for split in ("train", "validation", "test")}
        sizes["train"] = min(sizes["train"], self.limit or sizes["train"])
        return Description(name, digest, self.source, sizes, self.ignored)

    def prepare(self) -> tuple[ImageData, str]:
        count = sum(map(len, self._listing.splits.values()))
        memory = psutil.virtual_memory().total
        needed = count * self._decoder.image_bytes
        if self.cache == "memory" and needed > memory:
            height, width = self._sides
            message = f"{counted(count, 'image')} of {height}x{width} pixels take {byte_size(needed)} of memory"
            hint = f"this machine has {byte_size(memory)}: write cache: auto, or a smaller size"
            raise UserError(Problem(message, "trial.data.size", hint=hint))
        ignored = self.ignored
        return self, f"{self.source}: ignored {some(ignored)}" if ignored else ""

    def location(self) -> str:
        sizes = ", ".join(f"{size:,} {split}" for split, size in self.describe().sizes.items())
        return f"{self.source}, {counted(len(self._listing.classes), 'class', 'classes')}, {sizes} images"

    def load_test(self) -> Images:
        images, outcome = self._images_of(self._split("test"))
        self._check(outcome)
        return images

    def first(self, count: int) -> Images:
        items = self._split("train").first(min(count, self.limit or count))
        images, outcome = self._images_of(items)
        if outcome.failures:
            raise self._refusal(outcome.failures)
        return images

    def captions(self, items: Items) -> list[str]:
        """The names of each item's classes, for a person; empty where they are not known without decoding it."""
        return [""] * len(items)

    def unread(self, names: list[str]) -> dict[str, str]:
        """Why images cannot be used although they can be decoded, by their names: what belongs to them is broken."""
        return {}

    def absent(self) -> dict[str, str]:
        """Why what is in none of the sets is broken, by its name: images that are missing, annotations of no image."""
        return {}

    def names(self, split: str) -> list[str]:
        return self._split(split).names

    @property
    def ignored(self) -> tuple[str, ...]:
        return self._listing.ignored

    def _both(self) -> tuple[Images, int]:
        train = self._split("train")
        both = train.followed_by(self._split("validation"))
        images, outcome = self._images_of(both)
        of_test = _of_test(self._unsplit)
        if of_test.failures:
            _of_test.cache_clear()  # they may be mended
        self._check(Outcome(outcome.failures | of_test.failures, outcome.animated + of_test.animated))
        return images, len(train)

    def _check(self, outcome: Outcome) -> None:
        if outcome.failures:
            raise self._refusal(outcome.failures)
        tell_animated(outcome.animated)

    def _broken(self, failures: dict[str, str]) -> Problem:
        return broken(self.source, self._key, failures)

    def _refusal(self, failures: dict[str, str]) -> UserError:
        """The error that images cannot be decoded while a trial runs."""
        return UserError(replace(self._broken(failures), key=f"trial.data.{self._key}"))

    @property
    def _unsplit(self) -> Self:
        """A copy that is the same whatever is held out of the training images as the validation set."""
        share = self.validation if isinstance(self.validation, str) else 0.5
        return self._unlimited.model_copy(update={"seed": 0, "validation": share})

    def files(self) -> dict[str, Items]:
        return _sets(self._unlimited) if sets_are_split_off() else dict(self._listing.splits)

    @property
    def _test(self) -> Items:
        return without_test(self._listing, self.test)[1]

    def _split(self, split: str) -> Items:
        return self.files()[split]

    def _sample(self) -> list[str]:
        """Up to 500 images that are not in the test set, the same for each seed."""
        names = without_test(self._listing, self.test)[0].names
        index = np.random.default_rng(0).permutation(len(names))[:_SAMPLE]
        return [names[each] for each in np.sort(index)]


@lru_cache(maxsize=8)
def _usable(data: EncodedImages) -> Listing:
    """What a dataset holds, without the images that cannot be decoded.

    Raises:
        Mistakes: None is left of a set.
    """
    complete, failures = data._complete, data._failures()
    if not failures:
        return complete
    items = [f"{escaped(name)}: {why}" for name, why in failures.items()]
    phrase = f"{counted(len(items), 'image')} that cannot be used ({some(items, separator='; ', count=_SHOWN)})"
    found = complete.without(failures, phrase)
    for split, left in found.splits.items():
        if not len(left):
            message = f"{data.source}: {split} has no images left: ignored {phrase}"
            raise Mistakes(Problem(message, data._key, hint="repair them: skip_broken leaves them out"))
    return found


@lru_cache(maxsize=4)
def _of_test(data: EncodedImages) -> Outcome:
    """Decode the test images without keeping them: else a broken one would show when the job is over."""
    return data._decoder.each(data._test.names, lambda *_: None)


@lru_cache(maxsize=4)
def _sets(data: EncodedImages) -> dict[str, Items]:
    return sets_of(data._listing, data.validation, data.test, data.seed, data._folds)
