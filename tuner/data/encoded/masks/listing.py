"""What a folder of images and masks holds: its splits, its pairs and its classes, known without opening an image."""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import md5
from pathlib import Path, PurePath
from typing import Self

import numpy as np

from tuner.data.decoding import is_image
from tuner.data.encoded.folders.listing import FolderListing, Lister
from tuner.data.encoded.listing import Items, stamps
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted, some

_LAYOUT = (
    "a folder has the folders images and masks with the same names in both, or with the folders train, val and test in "
    "both; or the folders train, val and test with images and masks in each"
)


@dataclass(frozen=True)
class MaskListing(FolderListing):
    """The images of a folder, named by their paths relative to it, and their masks.

    Args:
        masks: The path of each image's mask.
    """

    masks: dict[str, str]

    @classmethod
    def of(
        cls, root: Path, classes: Iterable[str], pairs: Mapping[str, Mapping[str, str]], ignored: Iterable[str] = ()
    ) -> Self:
        """List pairs.

        Args:
            root: The folder.
            classes: The names of the classes.
            pairs: For each split, the path of the mask of each image, by the image's path relative to the folder.
            ignored: What was ignored, in phrases for the user.
        """
        splits = {split: Items(list(each), np.zeros(len(each), dtype=np.int64)) for split, each in pairs.items()}
        masks = {name: mask for each in pairs.values() for name, mask in each.items()}
        return cls(tuple(classes), splits, tuple(dict.fromkeys(ignored)), root, masks)

    @cached_property
    def digest(self) -> str:
        found = md5(super().digest.encode())
        for stamp in stamps(self.masks.values()):
            found.update(b"%d\n" % (stamp[0] if stamp else -1))
        return found.hexdigest()


@lru_cache(maxsize=4)
def listing_of(
    root: Path,
    images: str,
    masks: str,
    suffix: str,
    classes: tuple[str, ...],
    validation: str | None = None,
    test: str | None = None,
) -> MaskListing:
    """List the images and masks of a folder.

    Args:
        root: The folder.
        images: The name of the folder of images.
        masks: The name of the folder of masks.
        suffix: What the name of a mask has behind that of its image.
        classes: The names of the classes.
        validation: The name of the folder of the validation set; None for the usual ones.
        test: The name of the folder of the test set; None for the usual ones.

    Raises:
        Mistakes: A folder cannot be read, or has no images, or an image has no mask, or two.
    """
    named = {name: split for name, split in ((validation, "validation"), (test, "test")) if name is not None}
    return _Pairs(Lister(root, named), images, masks, suffix).listing(classes)


@dataclass
class _Pairs:
    """Finds the mask of each image."""

    lister: Lister
    images: str
    masks: str
    suffix: str

    def listing(self, classes: tuple[str, ...]) -> MaskListing:
        pairs = {split: self._pairs(folder, beside) for split, (folder, beside) in self._folders().items()}
        if "train" not in pairs:
            self._refuse(f"it has the folder {', '.join(pairs)}, but no folder train", _LAYOUT)
        if self.lister.other:
            total = counted(self.lister.other.total(), "file")
            self.lister.ignored.insert(0, f"{total} without the suffix of an image")
        return MaskListing.of(self.lister.root, classes, pairs, self.lister.ignored)

    def _folders(self) -> dict[str, tuple[Path, Path]]:
        """The folders of the images and of the masks of each split."""
        root, split_of = self.lister.root, self.lister.split_of_folder
        inside = {entry.name: Path(entry.path) for entry, is_folder in self.lister.entries(root) if is_folder}
        if self.images in inside:
            entries = self.lister.entries(inside[self.images])
            folders = [
                (entry.name, Path(entry.path), root / self.masks / entry.name)
                for entry, is_folder in entries
                if is_folder
            ]
            if not any(split_of(name) for name, *_ in folders):
                return {"train": (inside[self.images], root / self.masks)}
            loose = [entry.name for entry, is_folder in self.lister.entries(inside[self.images]) if not is_folder]
            if loose:
                names = some(sorted(map(escaped, loose)))
                self.lister.ignored.append(f"{counted(len(loose), 'file')} beside the folders of the sets ({names})")
        else:
            folders = [(name, path / self.images, path / self.masks) for name, path in inside.items()]
            folders = [each for each in folders if each[1].is_dir()]
        found: dict[str, tuple[Path, Path]] = {}
        for name, images, masks in folders:
            split = split_of(name)
            if split in found:
                what = f"both {self._relative(found[split][0])} and {self._relative(images)} would be the {split} set"
                self._refuse(what, "delete or rename one of them")
            if split is not None:
                found[split] = images, masks
        if not found:
            self._refuse(f"it has no folder {self.images}", _LAYOUT)
        if others := sorted(name for name, *_ in folders if split_of(name) is None):
            self.lister.ignored.append(f"{counted(len(others), 'folder')} beside those of the sets ({some(others)})")
        return found

    def _pairs(self, folder: Path, beside: Path) -> dict[str, str]:
        """The path of the mask of each image in a folder."""
        if not beside.is_dir():
            self._refuse(f"it has no folder {self._relative(beside)}", _LAYOUT)
        images, masks = self._files(folder), self._files(beside)
        if not images:
            self._refuse(f"{self._relative(folder)} has no images", _LAYOUT)
        pairs, lacking = {}, []
        for stem, path in sorted(images.items()):
            mask = masks.pop(f"{stem}{self.suffix}", None)
            if mask is None:
                lacking.append(self._relative(path))
            else:
                pairs[self._relative(path)] = str(mask)
        if lacking:
            names = some([escaped(name) for name in lacking])
            what = f"{counted(len(lacking), 'image has', 'images have')} no mask in {self._relative(beside)}: {names}"
            hint = "a mask has the name of its image; mask_suffix: _mask is for cat_mask.png beside cat.jpg"
            self._refuse(what, hint)
        if masks:
            names = some([escaped(self._relative(path)) for path in sorted(masks.values())])
            self.lister.ignored.append(f"{counted(len(masks), 'mask')} without an image ({names})")
        return pairs

    def _files(self, folder: Path) -> dict[str, Path]:
        """The image files of a folder and those in it, by their relative paths without suffix."""
        found: dict[str, Path] = {}
        waiting = [folder]
        while waiting:
            for entry, is_folder in self.lister.entries(waiting.pop()):
                path = Path(entry.path)
                if is_folder:
                    waiting.append(path)
                elif is_image(entry.name):
                    # Two systems may write the same name with different characters.
                    stem = unicodedata.normalize("NFC", str(PurePath(os.path.relpath(path, folder)).with_suffix("")))
                    if stem in found:
                        names = f"{self._relative(found[stem])} and {self._relative(path)}"
                        self._refuse(
                            f"{escaped(names)} have the same name", "it is unclear which belongs to which mask"
                        )
                    found[stem] = path
                else:
                    self.lister.other[escaped(path.suffix.lower())] += 1
        return found

    def _relative(self, path: Path) -> str:
        return str(path).removeprefix(f"{self.lister.root}{os.sep}")

    def _refuse(self, what: str, hint: str) -> None:
        raise Mistakes(Problem(f"{escaped(str(self.lister.root))}: {what}", "root", hint=hint))
