"""Images with label files of YOLO, in the folders of Ultralytics."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from tuner.data.encoded.boxes.listing import Annotated, BoxListing
from tuner.data.encoded.boxes.outlined import OutlinedImages
from tuner.data.encoded.boxes.yolo.label_files import Labels
from tuner.data.encoded.boxes.yolo.layout import images_of, layout_of, source_of
from tuner.data.encoded.class_names import ClassNames
from tuner.data.encoded.dataset import Name, Share
from tuner.data.encoded.folders.listing import Lister
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted


class YOLOFolder(OutlinedImages):
    """Images whose boxes stand in label files of YOLO: labels/train/cat.txt for images/train/cat.jpg.

    A line has a class and the centre, width and height of a box, in shares of the image; or an outline, whose box is
    taken, and with `instances` the mask. An image without a file has no boxes.
    """

    kind: Literal["yolo"] = "yolo"
    root: str
    """The folder of data.yaml, or of images and labels, relative to the YAML file."""
    yaml: Name | None = None
    """The file in root that names the classes and the folders; null for data.yaml or the only one, if there is one."""
    classes: ClassNames | None = None
    """The names of the classes 0, 1, ..., where no data.yaml has them; else null, or the same."""
    validation: Share | Name = 0.1
    """Share of the training images that is the validation set if the data have none; or its folder of images."""
    test: Share | Name = 0.1
    """Share of the images that is the test set if the data have none; or its folder of images."""

    @property
    def _reader(self) -> "_Reader":
        return _Reader(Path(self.root), self.yaml, self.classes, self.instances, **self._named)


@dataclass(frozen=True)
class _Reader:
    root: Path
    yaml: str | None
    classes: tuple[str, ...] | None
    outlines: bool
    validation: str | None = None
    test: str | None = None

    def listing(self) -> BoxListing:
        layout = layout_of(self.root, self.yaml)
        classes = layout.names or self.classes
        if classes is None:
            hint = "write classes: [cat, dog], or a data.yaml with names"
            raise Mistakes(Problem(f"{self.root}: the names of the classes are unknown", "classes", hint=hint))
        if self.classes is not None and classes != self.classes:
            message = f"{list(self.classes)} are not the names in {layout.path}: {list(classes)}"
            raise Mistakes(Problem(message, "classes", hint="leave classes out, or make them agree"))
        sources = dict(layout.sources)
        for split, name in (("validation", self.validation), ("test", self.test)):
            if name is not None:
                folder = source_of(self.root, name)
                if folder is None:
                    message = f"{self.root} has no folder {escaped(name)}"
                    raise Mistakes(Problem(message, split, hint="name a folder of images in root"))
                sources[split] = [folder]
        lister, labels = Lister(self.root), Labels(len(classes), layout.has_keypoints, self.outlines)
        images = {split: images_of(lister, each, layout.folder) for split, each in sources.items()}
        sets = {split: self._annotated(labels, paths) for split, paths in images.items()}
        if not any(len(each.boxes) or each.faults for each in sets.values()):
            file = label_file_of(self._relative(images["train"][0])) if images["train"] else "labels"
            what = (
                f"its {counted(sum(map(len, images.values())), 'image')} have no labels: {escaped(file)} is not there"
            )
            hint = "labels/train/cat.txt has the boxes of images/train/cat.jpg"
            raise Mistakes(Problem(f"{escaped(str(self.root))}: {what}", "root", hint=hint))
        ignored = [*layout.ignored, *lister.ignored]
        if lister.other:
            ignored.append(f"{counted(lister.other.total(), 'file')} without the suffix of an image")
        if alone := self._without_images(images):
            ignored.append(f"{counted(alone, 'label file')} without an image")
        return BoxListing.of(self.root, classes, sets, ignored)

    def _annotated(self, labels: Labels, paths: list[str]) -> Annotated:
        names = [self._relative(path) for path in paths]
        return labels.annotated(names, list(map(label_file_of, names)), self.root)

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self.root}{os.sep}")

    def _without_images(self, images: dict[str, list[str]]) -> int:
        """The number of label files in the folders of labels whose image is not there."""
        used = {self.root / label_file_of(self._relative(path)) for paths in images.values() for path in paths}
        folders = {file.parent for file in used if "labels" in file.parts}
        files = (file for folder in folders if folder.is_dir() for file in folder.glob("*.txt"))
        return sum(file not in used and file.name != "classes.txt" for file in files)


def label_file_of(image: str) -> str:
    """The label file of an image: in labels where the image is in images, else beside it."""
    parts = list(PurePath(image).with_suffix(".txt").parts)
    place = next((number for number in range(len(parts) - 2, -1, -1) if parts[number] == "images"), None)
    if place is not None:
        parts[place] = "labels"
    return str(PurePath(*parts))
