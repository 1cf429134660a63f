"""All files of a folder of images, whatever is wrong with it: what its listing as a dataset refuses is noted."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tuner.data.decoding import is_image
from tuner.data.encoded.folders.listing import kind_of
from tuner.data.encoded.listing import split_of

_DEEPEST = 64
"""Folders within folders that are entered: more of them are links that lead back on a way that is not seen."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image file of a folder.

    Args:
        name: Its path, relative to the folder.
        split: ``train``, ``validation`` or ``test``; empty if the folder is not split.
        label: The name of its class: that of its folder; empty if it lies outside of these.
        size: In bytes; -1 if unknown.
    """

    name: str
    split: str
    label: str
    size: int


@dataclass
class Tree:
    """What a folder holds.

    Args:
        root: The folder.
    """

    root: Path
    files: list[Found] = field(default_factory=list)
    """The files with the suffix of an image."""
    folders: dict[tuple[str, str], int] = field(default_factory=dict)
    """The number of image files by split and class; 0 for a folder without any."""
    others: Counter[str] = field(default_factory=Counter)
    """The number of files without the suffix of an image, by suffix."""
    other_names: list[str] = field(default_factory=list)
    """Their names."""
    deep: list[str] = field(default_factory=list)
    """Image files in folders within a class's folder."""
    loose: list[str] = field(default_factory=list)
    """Image files outside of the classes' folders."""
    links: list[str] = field(default_factory=list)
    """Links that lead nowhere, or in a circle."""
    special: list[str] = field(default_factory=list)
    """Pipes, sockets and devices."""
    within: list[str] = field(default_factory=list)
    """Folders within a class's folder that have no images."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Folders that cannot be read, and why."""
    beside: list[str] = field(default_factory=list)
    """Folders beside those of the splits, which no set has."""
    not_utf8: list[str] = field(default_factory=list)
    """Folders of classes whose names are not UTF-8."""

    @property
    def splits(self) -> list[str]:
        """The splits that have folders; none if the folder is not split."""
        found = {split for split, _ in self.folders}
        return [split for split in ("train", "validation", "test") if split in found]


def walk(root: Path) -> Tree:
    """List all files of a folder. Names that begin with a dot are hidden."""
    tree = Tree(root)
    _Walker(tree).walk()
    return tree


@dataclass
class _Walker:
    tree: Tree

    def walk(self) -> None:
        entries = list(self._entries(str(self.tree.root), ()))
        is_split = any(is_folder and split_of(entry.name) for entry, is_folder in entries)
        if not is_split:
            self._classes("", str(self.tree.root), entries)
            return
        for entry, is_folder in entries:
            split = split_of(entry.name) if is_folder else None
            if split:
                self._classes(split, entry.path, list(self._entries(entry.path, ())))
            elif is_folder:
                self.tree.beside.append(entry.name)
            else:
                self._file(entry, "", "")

    def _classes(self, split: str, folder: str, entries: list[tuple[os.DirEntry[str], bool]]) -> None:
        for entry, is_folder in entries:
            if not is_folder:
                self._file(entry, split, "")
                continue
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                self.tree.not_utf8.append(self._relative(entry.path))
            label = unicodedata.normalize("NFC", entry.name)
            self.tree.folders.setdefault((split, label), 0)
            self._files(entry.path, split, label, (os.path.realpath(folder),))

    def _files(self, folder: str, split: str, label: str, above: tuple[str, ...]) -> None:
        """Find the image files of a class, at any depth below its folder."""
        inside = (*above, os.path.realpath(folder))
        for entry, is_folder in self._entries(folder, above):
            if is_folder:
                before = len(self.tree.files)
                self._files(entry.path, split, label, inside)
                if len(self.tree.files) == before:
                    self.tree.within.append(self._relative(entry.path))
            else:
                self._file(entry, split, label, is_deep=len(above) > 1)

    def _file(self, entry: os.DirEntry[str], split: str, label: str, *, is_deep: bool = False) -> None:
        name = self._relative(entry.path)
        if not is_image(entry.name):
            self.tree.others[Path(entry.name).suffix.lower()] += 1
            self.tree.other_names.append(name)
            return
        try:
            size = entry.stat().st_size
        except OSError:
            size = -1
        self.tree.files.append(Found(name, split, label, size))
        if is_deep:
            self.tree.deep.append(name)
        if label:
            self.tree.folders[split, label] += 1
        else:
            self.tree.loose.append(name)

    def _entries(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[os.DirEntry[str], bool]]:
        """The files and folders in a folder by name, and whether each one is a folder.

        Args:
            folder: The folder.
            above: The real paths of the folders that contain it.
        """
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.tree.unreadable[self._relative(folder)] = error.strerror or str(error)
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            kind = kind_of(entry)
            if kind is None or (kind and self._leads_back(entry, folder, above)):
                is_link = kind is not None or entry.is_symlink()
                (self.tree.links if is_link else self.tree.special).append(self._relative(entry.path))
                continue
            yield entry, kind

    def _leads_back(self, entry: os.DirEntry[str], folder: str, above: tuple[str, ...]) -> bool:
        """Whether a folder is a link to one that contains it."""
        if not entry.is_symlink():
            return len(above) > _DEEPEST
        here, there = os.path.realpath(folder), os.path.realpath(entry.path)
        return there in above or Path(here).is_relative_to(there)

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self.tree.root}{os.sep}")
