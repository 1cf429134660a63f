"""A folder of images of the user's own, sorted into folders of classes."""

from pathlib import Path
from typing import Literal

from tuner.data.encoded.dataset import Name, Share
from tuner.data.encoded.folders.listing import FolderListing, listing_of
from tuner.data.encoded.labelled_files import LabelledFiles


class ImageFolder(LabelledFiles):
    """A folder of images: one folder a class, or train, val and test folders with these in each.

    Any format that Pillow reads, of any size; the images are resized to squares. A set that has no folder is
    split off the training images. Files whose names begin with a dot are hidden.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: str
    """The folder, relative to the YAML file. The names of its folders are the classes."""

    validation: Share | Name = 0.1
    """Share of the training images of each class that is the validation set if there is no folder val; or its folder.
    """
    test: Share | Name = 0.1
    """Share of the images of each class that is the test set if there is no folder test; or its folder."""

    @property
    def _complete(self) -> FolderListing:
        return listing_of(Path(self.root), **self._named)
