"""A folder of images and of label pictures that say the class of each pixel."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from tuner.data.encoded.dataset import Name, Share
from tuner.data.encoded.masks.classes import Classes, as_classes, as_code, classes_in, codes_of
from tuner.data.encoded.masks.decoding import Code, Codes
from tuner.data.encoded.masks.listing import MaskListing, listing_of
from tuner.data.encoded.masks.masked import MaskedImages
from tuner.errors import Mistakes, Problem
from tuner.user_code import folders


class ImageMaskFolder(MaskedImages):
    """A folder of images, and a folder of masks: label pictures of the same names whose pixels say their class.

    A mask is a picture with a palette, whose indices are the classes, one of grey values, or one of colours. The target
    ``mask`` has the class of each pixel.
    """

    kind: Literal["image_mask_folder"] = "image_mask_folder"
    root: str
    """The folder of the folders of images and masks, or of train, val and test with these in each; relative to the
    YAML file."""
    images: Name = "images"
    """Name of the folder of the images."""
    masks: Name = "masks"
    """Name of the folder of the masks."""
    mask_suffix: str = ""
    """What the name of a mask has behind that of its image, such as _mask for cat_mask.png beside cat.jpg."""
    classes: tuple[Name, ...] | dict[Name, Code] | str | None = None
    """Names of the classes, for the values 0, 1, ...; or the value, or colour [red, green, blue], of each; or the path
    of a JSON file with one of these; null for classes.json or classes.txt, a name a line, in the folder."""
    ignore: tuple[Code, ...] = (255,)
    """Values, or colours, of pixels whose class is unknown: they are neither trained on nor measured."""
    validation: Share | Name = 0.1
    """Share of the training images that is the validation set if there is no folder val; or its folder."""
    test: Share | Name = 0.1
    """Share of the images that is the test set if there is no folder test; or its folder."""

    @field_validator("classes", mode="before")
    @classmethod
    def _name_classes(cls, classes: Any) -> Any:
        return classes if classes is None or isinstance(classes, str) else as_classes(classes)

    @field_validator("ignore", mode="before")
    @classmethod
    def _are_codes(cls, ignore: Any) -> Any:
        if isinstance(ignore, int):
            raise Mistakes(Problem(f"{ignore} is no list", hint=f"write [{ignore}]"))
        return tuple(map(as_code, ignore)) if isinstance(ignore, list | tuple) else ignore

    @property
    def _classes(self) -> Classes:
        if isinstance(self.classes, str):
            return _classes_in(Path(self.root), str(folders()[0] / Path(self.classes).expanduser()))
        return _classes_in(Path(self.root), None) if self.classes is None else self.classes

    @property
    def _complete(self) -> MaskListing:
        root, names = Path(self.root), tuple(self._classes)
        return listing_of(root, self.images, self.masks, self.mask_suffix, names, **self._named)

    @property
    def _codes(self) -> Codes:
        return codes_of(self._classes, self.ignore)

    def __hash__(self) -> int:
        return hash((self.root, self.size, self.seed, self.limit))  # `classes` may be a dict


_classes_in = lru_cache(maxsize=8)(classes_in)
