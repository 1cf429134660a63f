"""The semantic segmentation of Cityscapes, with its fine annotations."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from hashlib import md5
from itertools import chain
from pathlib import Path
from typing import Literal

from tuner.data.decoding import Resize
from tuner.data.encoded.dataset import Share
from tuner.data.encoded.folders.listing import Lister
from tuner.data.encoded.masks.decoding import Codes, MaskDecoder
from tuner.data.encoded.masks.instances import InstanceMaskDecoder
from tuner.data.encoded.masks.listing import MaskListing
from tuner.data.encoded.masks.masked import MaskedImages
from tuner.data.encoded.measured import Size
from tuner.data.encoded.published import PublishedImages
from tuner.data.images import Description
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import ClassCounts, Target

CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The classes on which results are published, and their label IDs."""
OBJECTS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
"""Those whose objects are told apart."""
_LABELS = (*range(34), 255)
"""All label IDs; 255 is that of license plates, -1, as a byte."""
_IMAGE, _MASK, _OBJECTS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"
_LAYOUT = "the folder has leftImg8bit and gtFine, each with train and val, and in these a folder for each city"


class Cityscapes(PublishedImages, MaskedImages):
    """The semantic segmentation of Cityscapes: streets in 19 classes; what is of other classes is not measured.

    The masks of the real test set are not public: the images of val, on which results are published, are the test set,
    and the winner alone sees them. The validation set, which chooses the winner, is split off those of train.
    The objects of eight classes are the target ``instances`` on request; groups that nobody took apart are crowds.
    """

    kind: Literal["cityscapes"] = "cityscapes"
    root: str
    """The folder of leftImg8bit and gtFine, relative to the YAML file."""
    size: Size = 512
    """Side in pixels to which the images are resized; [height, width] for others than squares: they have 1024x2048."""
    resize: Resize = "squash"
    """How images of another shape are resized: crop (the centre), squash, or pad (with black)."""
    validation: Share = 0.1
    """Share of the images of train that is held out as the validation set."""
    instances: bool = False
    """Whether the objects of eight classes, from person to bicycle, are read, too, for instance_segmentation: the
    target ``instances``. Decoding them takes time, and they take 2 bytes a pixel."""

    @property
    def targets(self) -> dict[str, Target]:
        objects = {"instances": Target(len(OBJECTS), classes=OBJECTS, instances=True)}
        return super().targets | (objects if self.instances else {})

    def class_counts(self) -> dict[str, ClassCounts]:
        names = tuple(self.files()["train"].first(self.limit).names)
        return super().class_counts() | ({"instances": _counted(self._unlimited, names)} if self.instances else {})

    def describe(self) -> Description:
        found = super().describe()
        if not (found.digest and self.instances):
            return found
        return replace(found, digest=md5(f"{found.digest} {self._pictures.digest}".encode()).hexdigest()[:8])

    @property
    def _complete(self) -> MaskListing:
        return _listing_of(Path(self.root), _MASK)

    @property
    def _pictures(self) -> MaskListing:
        """The images, and the pictures that tell their objects apart."""
        return _listing_of(Path(self.root), _OBJECTS)

    @property
    def _decoder(self) -> MaskDecoder:
        return self._object_decoder if self.instances else super()._decoder

    @property
    def _object_decoder(self) -> InstanceMaskDecoder:
        plain = super()._decoder
        labels = tuple(CLASSES[name] for name in OBJECTS)
        others = tuple(each for each in _LABELS if each not in labels)
        given = (plain.encoded, plain.form, plain.only_grey, plain.masks, plain.codes)
        return InstanceMaskDecoder(*given, self._pictures.masks, labels, others)

    def _paths(self) -> Iterable[str]:
        return chain(super()._paths(), self._pictures.masks.values() if self.instances else ())

    @property
    def _codes(self) -> Codes:
        return Codes(tuple(CLASSES.values()), tuple(each for each in _LABELS if each not in CLASSES.values()))


@lru_cache(maxsize=4)
def _counted(data: Cityscapes, names: tuple[str, ...]) -> ClassCounts:
    """How many objects of each class training images have."""
    counts = data._object_decoder.counts(list(names))
    return ClassCounts(counts, sum(counts))


@lru_cache(maxsize=4)
def _listing_of(root: Path, suffix: str) -> MaskListing:
    """List the images and their masks, whose names end in `suffix`.

    Raises:
        Mistakes: A folder is missing or empty, or an image has no mask.
    """
    lister = Lister(root)
    every = {}
    for split, name in (("train", "train"), ("test", "val")):
        pairs = {}
        if not (root / "leftImg8bit" / name).is_dir():
            raise Mistakes(Problem(f"{root}: it has no folder leftImg8bit/{name}", "root", hint=_LAYOUT))
        cities = [entry.name for entry, is_folder in lister.entries(root / "leftImg8bit" / name) if is_folder]
        for city in cities:
            for entry, is_folder in lister.entries(root / "leftImg8bit" / name / city):
                if not is_folder and entry.name.endswith(_IMAGE):
                    mask = root / "gtFine" / name / city / f"{entry.name.removesuffix(_IMAGE)}{suffix}"
                    pairs[f"leftImg8bit/{name}/{city}/{entry.name}"] = str(mask)
        missing = [mask for mask in pairs.values() if not Path(mask).is_file()]
        if missing:
            what = f"{counted(len(missing), 'image has', 'images have')} no mask, such as {missing[0]}"
            raise Mistakes(Problem(f"{root}: {what}", "root", hint="unpack gtFine_trainvaltest.zip there"))
        if not pairs:
            raise Mistakes(Problem(f"{root}: leftImg8bit/{name} has no images", "root", hint=_LAYOUT))
        every[split] = pairs
    return MaskListing.of(root, CLASSES, every, lister.ignored)
