"""Images in Parquet files, as Hugging Face keeps them."""

from collections.abc import Iterable
from functools import partial
from typing import ClassVar, Literal

from tuner.data.decoding import Encoded
from tuner.data.encoded.dataset import Name, Share
from tuner.data.encoded.labelled_files import LabelledFiles
from tuner.data.encoded.parquet.listing import ParquetListing, listing_of
from tuner.data.encoded.parquet.rows import image_of


class ParquetImages(LabelledFiles):
    """Images in one or several Parquet files: a column of their bytes, and one of their labels.

    Files named train-..., validation-... and test-..., or in folders of these names, are the sets; else the validation
    and the test set are split off. A label is a number, whose name is taken from the file, or a text, or a list of
    these, which needs the task multilabel.
    """

    kind: Literal["parquet"] = "parquet"
    file: str
    """The file, a folder of files, or a pattern such as photos/train-*.parquet, relative to the YAML file."""
    images: Name | None = None
    """Column of the images: bytes, or a struct of bytes and path; null for the only one, or one named image or img."""
    labels: Name | None = None
    """Column of the labels; null for one named label, labels, fine_label, class, target or category."""
    validation: Share | Name = 0.1
    """Share that is held out as the validation set if no file is; or a pattern of file names, such as val*."""
    test: Share | Name = 0.1
    """Share that is held out as the test set if no file is; or a pattern of file names, such as heldout*."""

    _key: ClassVar[str] = "file"
    has_files: ClassVar[bool] = False

    @property
    def _complete(self) -> ParquetListing:
        return listing_of(self.file, self.images, self.labels, **self._named)

    @property
    def _origin(self) -> str:
        return f"{self.file}\0{self._complete.column}"

    @property
    def encoded(self) -> Encoded:
        return partial(image_of, self._complete.shards, self._complete.column)

    def _paths(self) -> Iterable[str]:
        return [str(shard.path) for shard in self._complete.shards.values()]
