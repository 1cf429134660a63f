"""The base class of datasets of images in files, with boxes around what they show."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5
from typing import Any, Self, cast

from pydantic import model_validator

from tuner.data.decoding import Resize, Undecodable, decode, shown_size
from tuner.data.encoded.boxes.faults import OTHER_SIZE, Fault, problems_of, skipped
from tuner.data.encoded.boxes.headers import sizes_in
from tuner.data.encoded.boxes.listing import BoxListing, Reader, listing_of
from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.listing import Items
from tuner.data.encoded.measured import Size
from tuner.data.encoded.unchecked import annotations_are_checked
from tuner.data.loading.decoder import Decoder
from tuner.data.pixels import Bytes
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import Target, Targets
from tuner.user_code import imports_allowed

_COMPARED = 100
"""Most images whose sizes are compared with the annotations before anything starts, from the first to the last."""


class BoxedImages(EncodedImages):
    """Images in files, each with any number of boxes, the target ``boxes``. Boxes are resized with their images."""

    size: Size = 320
    """Side in pixels to which the images are resized; [height, width] for others than squares."""
    resize: Resize = "pad"
    """How images of another shape are resized: crop (the centre), squash, or pad (with black)."""
    skip_broken: bool = False
    """Whether broken annotations are left out, and images that are missing, of another size than their annotations say,
    or cannot be decoded, for which all are decoded once; else the dataset is refused, or a trial fails."""

    @property
    @abstractmethod
    def _reader(self) -> Reader:
        """Reads the annotations."""

    @property
    def _complete(self) -> BoxListing:
        return listing_of(self._reader)

    @property
    def _listing(self) -> BoxListing:
        return cast(BoxListing, super()._listing)

    @model_validator(mode="after")
    def _images_have_the_sizes_of_their_annotations(self) -> Self:
        if imports_allowed() and annotations_are_checked():
            self._refuse_faults()
            self._refuse(_compared(self._unsplit))
        return self

    def _refuse(self, faults: Sequence[Fault]) -> None:
        """Raise Mistakes if there are faults."""
        if faults:
            listing_of.cache_clear()  # they may be mended
            _compared.cache_clear()
            raise Mistakes(*problems_of(faults, self.source, self._key))

    def _refuse_faults(self) -> None:
        """Raise Mistakes if annotations are broken, unless these are not checked, or left out."""
        if annotations_are_checked() and not self.skip_broken:
            self._refuse(self._listing.faults)

    @property
    def targets(self) -> dict[str, Target]:
        classes, ids = self._listing.classes, self._listing.ids
        return {"boxes": Target(len(classes), classes=classes, boxes=True, ids=ids)}

    @property
    def ignored(self) -> tuple[str, ...]:
        return (*super().ignored, *(skipped(self._listing.faults) if self.skip_broken else ()))

    def captions(self, items: Items) -> list[str]:
        return ["images with boxes"] * len(items)

    def unread(self, names: list[str]) -> dict[str, str]:
        asked, found = set(names), list(self._of_other_sizes(names))
        if not self.skip_broken:
            found += self._listing.faults
        why: dict[str, list[str]] = {}
        for fault in found:
            if fault.name in asked:
                why.setdefault(fault.name, []).append(fault.reason)
        return {name: "; ".join(texts) for name, texts in why.items()}

    def absent(self) -> dict[str, str]:
        why: dict[str, list[str]] = {}
        for fault in () if self.skip_broken else self._listing.faults:
            if fault.name not in self._listing.row:
                why.setdefault(fault.name, []).append(fault.reason)
        return {name: "; ".join(texts) for name, texts in why.items()}

    @property
    def _decoder(self) -> "BoxDecoder":
        return BoxDecoder(self.encoded, self.form, self.only_grey, self._listing.size_of)

    def _targets_of(self, items: Items) -> Targets:
        return {"boxes": self._listing.placed(self.form).padded(self._listing.rows(items.names))}

    def _why_not_split(self) -> Problem | None:
        listing = self._listing
        self._refuse_faults()  # before sets are made of what is left
        sets = 3 - len({"validation", "test"} & set(listing.splits))
        count = len(listing.splits["train"])
        if count < sets:
            return Problem(
                f"{counted(count, 'image')} cannot be split into {sets} sets", hint=f"at least {sets} images"
            )
        if not listing.can_be_learnt:
            return Problem(f"no training image has a box{_why_none(listing)}", hint="there is nothing to learn")
        return None

    def _of_other_sizes(self, names: list[str]) -> list[Fault]:
        """The images, of some, whose files have another size than the annotations say."""
        encoded = self.encoded
        wanted = self._listing.sizes[self._listing.rows(names)].tolist()
        found = sizes_in(str(encoded(name)) for name in names)
        return [
            Fault(OTHER_SIZE, name, _difference(size, tuple(given)))
            for name, size, given in zip(names, found, wanted, strict=True)
            if not isinstance(size, str) and list(size) != given
        ]


@dataclass(frozen=True)
class BoxDecoder(Decoder):
    """Decodes images, and compares their sizes with those for which their boxes were written.

    Args:
        sizes: The width and the height of each image as it is shown, by name.
    """

    sizes: Mapping[str, tuple[int, int]]

    def _decoded(self, name: str) -> tuple[Bytes, bool]:
        seen: list[tuple[int, int]] = []
        found = decode(
            self.encoded(name),
            self.form,
            only_grey=self.only_grey,
            opened=lambda image: seen.append(shown_size(image)),
        )
        if seen[0] != self.sizes[name]:
            raise Undecodable(_difference(seen[0], self.sizes[name]))
        return found

    @property
    def settings(self) -> str:
        sizes = md5(repr(sorted(self.sizes.items())).encode(errors="surrogateescape"))
        return f"{super().settings} {sizes.hexdigest()}"


def _why_none(listing: BoxListing) -> str:
    """Where the boxes of the training images are, if they have none that are learnt from; empty if there were none."""
    others = {name for split, items in listing.splits.items() if split != "train" for name in items.names}
    why = [f"left out: {each}" for each in skipped(fault for fault in listing.faults if fault.name not in others)]
    if crowds := len(listing.boxes_of("train")):
        why.insert(0, f"{counted(crowds, 'box is a crowd', 'boxes are crowds')}, or difficult, and not learnt from")
    return f"; {'; '.join(why)}" if why else ""


def _difference(size: tuple[int, int], given: tuple[Any, ...]) -> str:
    turned = ", as EXIF data turn it" if size == given[::-1] and size[0] != size[1] else ""
    return f"it has {size[0]}x{size[1]} pixels{turned}, and the annotations say {given[0]}x{given[1]}"


@lru_cache(maxsize=8)
def _compared(data: BoxedImages) -> tuple[Fault, ...]:
    """The images, of some from the first to the last, whose files have another size than the annotations say."""
    every = list(data._listing.row)
    names = dict.fromkeys(every[number * len(every) // _COMPARED] for number in range(_COMPARED))
    return tuple(data._of_other_sizes(list(names)))
