"""What a folder of images holds: its splits, its classes and their files, known without opening an image."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import md5
from pathlib import Path

import numpy as np

from tuner.data.decoding import is_image
from tuner.data.encoded.listing import Items, Listing, split_of, stamps
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted

_LAYOUT = (
    "a folder has one folder of images for each class, or the folders train, val (optional) and test (optional) with "
    "these in each"
)


@dataclass(frozen=True)
class FolderListing(Listing):
    """The image files of a folder, named by their paths relative to it, and sorted by class and name.

    Args:
        root: The folder.
    """

    root: Path

    @cached_property
    def digest(self) -> str:
        """A digest of the names and sizes of all files, the same for a copy of the folder."""
        found = md5()
        for split, files in sorted(self.splits.items()):
            found.update(f"{split} {len(files.names)}\n".encode())
            paths = (os.path.join(self.root, name) for name in files.names)  # noqa: PTH118 - once for each image
            for name, stamp in zip(files.names, stamps(paths), strict=True):
                size = stamp[0] if stamp else -1  # deleted since: reading it fails with its name
                found.update(os.fsencode(name) + b"\0%d\n" % size)
        return found.hexdigest()


@lru_cache(maxsize=4)
def listing_of(root: Path, validation: str | None = None, test: str | None = None) -> FolderListing:
    """List the image files of a folder.

    Args:
        root: The folder.
        validation: The name of the folder of the validation set; None for the usual ones.
        test: The name of the folder of the test set; None for the usual ones.

    Raises:
        Mistakes: It cannot be read, or has no images, or they are not sorted into folders of classes.
    """
    named = {name: split for name, split in ((validation, "validation"), (test, "test")) if name is not None}
    return Lister(root, named).listing()


@dataclass
class Lister:
    """Reads folders, and remembers what it ignores."""

    root: Path
    named: dict[str, str] = field(default_factory=dict)
    """The splits of folders by their names; those of other folders follow from the usual names."""
    other: Counter[str] = field(default_factory=Counter)
    """Files that are not images, by suffix."""
    ignored: list[str] = field(default_factory=list)

    def listing(self) -> FolderListing:
        folders = self._folders_of_splits()
        by_split = {split: self.classes_in(folder) for split, folder in folders.items()}
        classes = tuple(sorted(by_split["train"]))
        self._check_classes(by_split, folders)
        splits = {}
        for split, found in by_split.items():
            names = [(label, name) for label, each in enumerate(classes) for name in sorted(found.get(each, []))]
            splits[split] = Items([name for _, name in names], np.array([label for label, _ in names], dtype=np.int64))
        for split, files in splits.items():
            if not files.names:
                self._refuse(f"{folders[split].name} has no images", _LAYOUT)
        if self.other:
            kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in self.other.most_common(8))
            total = self.other.total()
            self.ignored.insert(0, f"{counted(total, 'file')} without the suffix of an image ({kinds})")
        return FolderListing(classes, splits, tuple(dict.fromkeys(self.ignored)), self.root)  # the root is read twice

    def _folders_of_splits(self) -> dict[str, Path]:
        """The folder of each split; the root if the images are not split."""
        folders: dict[str, Path] = {}
        others = []
        for entry, is_folder in self.entries(self.root):
            split = self.split_of_folder(entry.name)
            if is_folder and split is not None:
                if split in folders:
                    what = f"both {folders[split].name} and {entry.name} would be the {split} set"
                    self._refuse(what, "delete or rename one of them")
                folders[split] = Path(entry.path)
            elif is_folder:
                others.append(entry.name)
        if unknown := sorted(name for name in self.named if name not in {each.name for each in folders.values()}):
            self._refuse(f"it has no folder {unknown[0]}", "name a folder beside train", key=self.named[unknown[0]])
        if "train" in folders:
            if others:
                names = ", ".join(map(escaped, sorted(others)[:5]))
                self.ignored.append(f"{counted(len(others), 'folder')} beside {folders['train'].name} ({names})")
            return folders
        if folders:
            for name, split in self.named.items():
                if split_of(name) == "train":
                    self._refuse(
                        f"{name} would be the {split} set, and there is no other one to train on", _LAYOUT, split
                    )
            names = ", ".join(sorted(folder.name for folder in folders.values()))
            self._refuse(f"it has the folder {names}, but no folder train", _LAYOUT)
        return {"train": self.root}

    def split_of_folder(self, folder: str) -> str | None:
        """The split that a folder is, by its name; None if it is none."""
        usual = split_of(folder)
        return self.named.get(folder) or (usual if usual not in self.named.values() else None)

    def classes_in(self, folder: Path) -> dict[str, list[str]]:
        """The image files of each class, relative to the root."""
        found: dict[str, list[str]] = {}
        loose = 0
        for entry, is_folder in self.entries(folder):
            if is_folder:
                files = self._images_in(Path(entry.path))
                found.setdefault(self._class_of(entry), []).extend(files)
            elif is_image(entry.name):
                loose += 1
            else:
                self._ignore(entry)
        if loose and not found:
            where = "it" if folder == self.root else folder.name
            what = f"{where} has {counted(loose, 'image')}, but no folders of classes"
            self._refuse(what, _LAYOUT)
        if loose:
            self.ignored.append(f"{counted(loose, 'image')} in {escaped(folder.name)}, outside of the classes' folders")
        return found

    def _class_of(self, entry: os.DirEntry[str]) -> str:
        """The name of a class. Two systems may write the same name with different characters."""
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            self._refuse(f"the name of the folder {escaped(entry.path)} is not UTF-8", "rename it")
        return unicodedata.normalize("NFC", entry.name)

    def _images_in(self, folder: Path) -> list[str]:
        names = []
        for entry, is_folder in self.entries(folder):
            if is_folder:
                inner = self._first_image_in(Path(entry.path))
                if inner is not None:
                    name = escaped(inner.removeprefix(f"{self.root}{os.sep}"))
                    what = f"{name} lies too deep: it is unclear which of its folders is its class"
                    hint = f"{_LAYOUT}; name as root the folder that holds the classes' folders, or move the images up"
                    self._refuse(what, hint)
                self.ignored.append(f"the folder {escaped(self._relative(entry))}")
            elif is_image(entry.name):
                names.append(self._relative(entry))
            else:
                self._ignore(entry)
        return names

    def _first_image_in(self, folder: Path) -> str | None:
        """An image in a folder or, one level deeper, in a folder in it; links may form a circle."""
        inner = []
        for entry, is_folder in self.entries(folder):
            if is_folder:
                inner.append(Path(entry.path))
            elif is_image(entry.name):
                return entry.path
        for deeper in inner:
            for entry, is_folder in self.entries(deeper):
                if not is_folder and is_image(entry.name):
                    return entry.path
        return None

    def _ignore(self, file: os.DirEntry[str]) -> None:
        self.other[escaped(Path(file.name).suffix.lower())] += 1

    def _relative(self, entry: os.DirEntry[str]) -> str:
        return entry.path.removeprefix(f"{self.root}{os.sep}")

    def entries(self, folder: Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
        """The files and folders in a folder by name, and whether each one is a folder.

        Names with a dot first are hidden.
        """
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                kind = kind_of(entry)
                if kind is None or (kind and is_circle(entry, folder)):
                    what = "link" if entry.is_symlink() else "special file"
                    self.ignored.append(f"the {what} {escaped(self._relative(entry))}")
                    continue
                yield entry, kind
        except (OSError, ValueError) as error:  # ValueError: a null character
            why = getattr(error, "strerror", None) or str(error)
            message = f"{escaped(str(folder))} cannot be read: {why}"
            raise Mistakes(Problem(message, "root", hint="a path is relative to the folder of the YAML file")) from None

    def _check_classes(self, by_split: dict[str, dict[str, list[str]]], folders: dict[str, Path]) -> None:
        train = by_split["train"]
        where = folders["train"].name if folders["train"] != self.root else "it"
        if not any(train.values()):
            ignored = f"; its files: {dict(self.other.most_common(5))}" if self.other else ""
            self._refuse(f"{where} has no images{ignored}", _LAYOUT)
        if empty := sorted(name for name, files in train.items() if not files):
            names = ", ".join(map(escaped, empty[:10]))
            self._refuse(
                f"{where} has no images of {counted(len(empty), 'class', 'classes')}: {names}",
                "delete these folders, or add images",
            )
        if len(train) == 1:
            self._refuse(f"{where} has one class, {escaped(next(iter(train)))}", f"{_LAYOUT}; at least two classes")
        for split in ("validation", "test"):
            unseen = sorted(name for name, files in by_split.get(split, {}).items() if files and name not in train)
            if unseen:
                names = ", ".join(map(escaped, unseen[:10]))
                what = f"{folders[split].name} has classes that {folders['train'].name} lacks: {names}"
                self._refuse(what, "a model cannot learn them: add training images, or delete these folders")

    def _refuse(self, what: str, hint: str, key: str = "root") -> None:
        raise Mistakes(Problem(f"{escaped(str(self.root))}: {what}", key, hint=hint))


def kind_of(entry: os.DirEntry[str]) -> bool | None:
    """Whether an entry is a folder; None if it is neither a file nor a folder, such as a link to nothing, or a pipe."""
    try:
        return False if entry.is_file() else entry.is_dir() or None
    except OSError:  # a link to itself
        return None


def is_circle(entry: os.DirEntry[str], folder: Path) -> bool:
    """Whether an entry of a folder is a link to that folder or to one that contains it."""
    return entry.is_symlink() and folder.resolve().is_relative_to(Path(entry.path).resolve())
