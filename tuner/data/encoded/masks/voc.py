"""The semantic segmentation of Pascal VOC, as torchvision has its folders."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from tuner.data.encoded.dataset import Share
from tuner.data.encoded.masks.decoding import Codes
from tuner.data.encoded.masks.listing import MaskListing
from tuner.data.encoded.masks.masked import MaskedImages
from tuner.data.encoded.measured import Size
from tuner.data.encoded.published import PublishedImages
from tuner.data.encoded.voc_folder import OBJECTS, folder_of, listed
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import IGNORED

CLASSES = ("background", *OBJECTS)
_LAYOUT = "the folder has JPEGImages, SegmentationClass and ImageSets/Segmentation, as VOCdevkit/VOC2012 has them"


class VOCSegmentation(PublishedImages, MaskedImages):
    """The semantic segmentation of Pascal VOC: 20 classes and the background; objects have borders of no class.

    The masks of the real test set are not public: the images of val, on which results are published, are the test set,
    and the winner alone sees them. The validation set, which chooses the winner, is split off those of train.
    """

    kind: Literal["voc_segmentation"] = "voc_segmentation"
    root: str
    """The folder of JPEGImages, or one with VOCdevkit/VOC2012 in it, as torchvision writes it; relative to the YAML
    file."""
    size: Size = 256
    """Side in pixels to which the images are resized; [height, width] for others than squares."""
    validation: Share = 0.15
    """Share of the images of train that is held out as the validation set."""

    @property
    def _folder(self) -> str:
        return str(folder_of(Path(self.root), _LAYOUT))

    @property
    def _complete(self) -> MaskListing:
        return _listing_of(Path(self._folder))

    @property
    def _codes(self) -> Codes:
        return Codes(tuple(range(len(CLASSES))), (IGNORED,))


@lru_cache(maxsize=4)
def _listing_of(root: Path) -> MaskListing:
    """List the images that have masks, by the lists of the sets.

    Raises:
        Mistakes: A list, or an image or a mask that is in one, is missing.
    """
    every = {}
    for split, name in (("train", "train"), ("test", "val")):
        stems = listed(root, "Segmentation", name, _LAYOUT)
        pairs = {f"JPEGImages/{stem}.jpg": str(root / "SegmentationClass" / f"{stem}.png") for stem in stems}
        missing = [path for path in (*map(str, map(root.joinpath, pairs)), *pairs.values()) if not Path(path).is_file()]
        if missing:
            what = f"{name}.txt lists {counted(len(missing), 'file')} that cannot be found, such as {missing[0]}"
            raise Mistakes(Problem(f"{root}: {what}", "root", hint=_LAYOUT))
        every[split] = pairs
    return MaskListing.of(root, CLASSES, every)
