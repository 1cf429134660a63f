"""The objects of Pascal VOC, as torchvision has its folders, and what is annotated as they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner.data.decoding import is_image
from tuner.data.encoded.boxes.boxed import BoxedImages
from tuner.data.encoded.boxes.listing import BoxListing
from tuner.data.encoded.boxes.voc.annotation_file import annotated, described
from tuner.data.encoded.class_names import ClassNames
from tuner.data.encoded.dataset import Share
from tuner.data.encoded.folders.listing import Lister
from tuner.data.encoded.published import PublishedImages
from tuner.data.encoded.voc_folder import OBJECTS, folder_of, listed
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted, some

LAYOUT = "the folder has JPEGImages, Annotations and ImageSets/Main, as VOCdevkit/VOC2012 has them"


class VOCDetection(PublishedImages, BoxedImages):
    """The objects of Pascal VOC in 20 classes, or others in its layout; difficult ones are not trained on or measured.

    The images of val, on which results are published, are the test set, and the winner alone sees them. The validation
    set, which chooses the winner, is split off those of train.
    """

    kind: Literal["voc_detection"] = "voc_detection"
    root: str
    """The folder of JPEGImages, or one with VOCdevkit/VOC2012 in it, as torchvision writes it; relative to the YAML
    file."""
    classes: ClassNames | None = None
    """The names of the classes; null for the 20 of VOC."""
    validation: Share = 0.15
    """Share of the images of train that is held out as the validation set."""

    @property
    def _folder(self) -> str:
        return str(folder_of(Path(self.root), LAYOUT))

    @property
    def _reader(self) -> "_Reader":
        return _Reader(Path(self._folder), self.classes)


@dataclass(frozen=True)
class _Reader:
    root: Path
    classes: tuple[str, ...] | None

    def listing(self) -> BoxListing:
        lister = Lister(self.root)
        images = {
            Path(entry.name).stem: entry.name
            for entry, is_folder in lister.entries(self.root / "JPEGImages")
            if not is_folder and is_image(entry.name)
        }
        stems = {
            split: listed(self.root, "Main", name, LAYOUT) for split, name in (("train", "train"), ("test", "val"))
        }
        files = {split: [f"Annotations/{stem}.xml" for stem in each] for split, each in stems.items()}
        found = {split: list(described(self.root / file for file in each)) for split, each in files.items()}
        classes = self.classes or OBJECTS
        if self.classes is None:
            names = sorted({name for each in found.values() for one in each for name in one.names})
            if others := [name for name in names if name not in OBJECTS]:
                what = f"its objects are of {counted(len(others), 'class', 'classes')} that VOC lacks: "
                what += some([escaped(name) for name in others])
                hint = f"name all of them: classes: [{', '.join(map(escaped, names))}]"
                raise Mistakes(Problem(f"{escaped(str(self.root))}: {what}", "classes", hint=hint))
        sets = {
            split: annotated(
                [f"JPEGImages/{images.get(stem, f'{stem}.jpg')}" for stem in stems[split]],
                files[split],
                found[split],
                classes,
            )
            for split in stems
        }
        return BoxListing.of(self.root, classes, sets, lister.ignored)
