"""Images with annotation files of COCO, as COCO itself and many tools write them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tuner.data.encoded.boxes.coco.annotation_file import COCOFile
from tuner.data.encoded.boxes.coco.categories import index_of_classes, left_out
from tuner.data.encoded.boxes.coco.layout import LAYOUT, files_in, folders_of
from tuner.data.encoded.boxes.listing import BoxListing
from tuner.data.encoded.boxes.outlined import OutlinedImages
from tuner.data.encoded.class_names import ClassNames
from tuner.data.encoded.dataset import Name, Share
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import some
from tuner.process.collection import without_collection


class COCO(OutlinedImages):
    """Images whose boxes stand in JSON files of COCO's format. Crowds are neither trained on nor measured.

    The boxes of COCO's real test set are not public: without a test set the images of val, on which results are
    published, are the test set, and the validation set, which chooses the winner, is split off those of train.
    """

    kind: Literal["coco"] = "coco"
    root: str
    """The folder of the images and annotations, relative to the YAML file."""
    annotations: Name | None = None
    """The JSON file of the training images, relative to root; null for annotations/instances_train2017.json (of any
    year, and of val beside it), for _annotations.coco.json in train, valid and test, or for the only one."""
    images: Name | None = None
    """The folder to which the names of the images are relative, itself relative to root; null for the one beside the
    annotations, or of their name, such as train2017, or images."""
    classes: ClassNames | None = None
    """The names of the categories that are used, in this order; null for all of them, in the order of their ids."""
    validation: Share | Name = 0.1
    """Share of the training images that is the validation set if the data have none; or its JSON file."""
    test: Share | Name = 0.1
    """Share of the images that is the test set if the data have none; or its JSON file."""

    @property
    def _reader(self) -> "_Reader":
        return _Reader(Path(self.root), self.annotations, self.images, self.classes, self.instances, **self._named)


@dataclass(frozen=True)
class _Reader:
    root: Path
    annotations: str | None
    images: str | None
    classes: tuple[str, ...] | None
    outlines: bool
    validation: str | None = None
    test: str | None = None

    def listing(self) -> BoxListing:
        with without_collection():
            return self._read()

    def _read(self) -> BoxListing:
        files = {
            split: COCOFile.read(path, key, outlines=self.outlines) for split, (path, key) in self._files().items()
        }
        names, index = index_of_classes(list(files.values()), self.classes)
        sets = {split: file.annotated(self._folder(file), index) for split, file in files.items()}
        found = BoxListing.of(self.root, names, sets, left_out(files, index))
        numbers = {label: number for number, label in index.items()}
        return replace(found, ids=tuple(numbers[label] for label in range(len(names))))

    def _files(self) -> dict[str, tuple[Path, str]]:
        """The annotation file of each split, the training set first, and the field that names it."""
        if self.root.is_file():
            name = escaped(self.root.name)
            hint = f"root is the folder, and annotations names the file in it: annotations: {name}"
            raise self._refusal("it is a file", hint)
        named = {
            split: (self.root / name, split)
            for split, name in (("validation", self.validation), ("test", self.test))
            if name is not None
        }
        if self.annotations is not None:
            return {"train": (self.root / self.annotations, "annotations"), **named}
        usual = files_in(self.root)
        if "train" not in usual:
            raise self._refusal("it has no annotation file of a training set", LAYOUT)
        for split in named:
            usual.pop(split, None)
        taken = {path for path, _ in named.values()}
        return {s: (path, "root") for s, path in usual.items() if s == "train" or path not in taken} | named

    def _folder(self, file: COCOFile) -> str:
        """The folder of a file's images, relative to the root."""
        candidates = [self.root / self.images] if self.images is not None else folders_of(self.root, file.path)
        for folder in dict.fromkeys(candidates):
            if any((folder / name).is_file() for name in file.first_names):
                return os.path.relpath(folder, self.root)
        where = some([os.path.relpath(folder, self.root) for folder in dict.fromkeys(candidates)])
        what = f"the images of {file.path.name}, such as {escaped(file.first_names[0])}, are not in {where}"
        raise self._refusal(what, "images names the folder that has them", "root" if self.images is None else "images")

    def _refusal(self, what: str, hint: str, key: str = "root") -> Mistakes:
        return Mistakes(Problem(f"{escaped(str(self.root))}: {what}", key, hint=hint))
