"""Images that a CSV file lists, with their labels."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from tuner.data.encoded.class_names import check_texts
from tuner.data.encoded.csv.listing import Columns, CSVListing, listing_of
from tuner.data.encoded.dataset import Name, Share
from tuner.data.encoded.labelled_files import LabelledFiles
from tuner.errors import Mistakes, Problem


class CSVImages(LabelledFiles):
    """Images that a CSV file lists: a column of their paths, and one of their classes, or several of 0 and 1.

    A sample that has several classes (`separator`, or several columns) needs the task multilabel. Without a column
    `split`, the validation and the test set are split off. Rows that repeat an image are used once.
    """

    kind: Literal["csv"] = "csv"
    file: str
    """The CSV file, relative to the YAML file; its first line names the columns."""
    root: str | None = None
    """Folder that the paths are relative to, itself relative to the YAML file; null for the folder of the CSV file."""
    paths: Name | None = None
    """Column of the paths; null for one named path, file, filename, file_name, filepath, image, image_path or img."""
    suffix: str = ""
    """Text that is appended to each path, such as .jpg."""
    labels: Name | tuple[Name, ...] | None = None
    """Column of the classes, or list of columns of 0 and 1, one for each class; null for a column named label, labels,
    class, target or category."""
    separator: Name | None = None
    """Text between the classes of an image in the column of the labels, such as a space; an empty cell is no class."""
    split: Name | None = None
    """Column of the words train, validation (val, valid, dev) and test, in any case; null for no such column."""
    group: Name | None = None
    """Column of a group, such as the patient, whose images are never in two sets; an empty cell is a group of its own.
    """
    validation: Share | Name = 0.1
    """Share that is held out as the validation set if there is none; or a column that is 1 for its images, else 0."""
    test: Share | Name = 0.1
    """Share that is held out as the test set if there is none; or a column that is 1 for its images, else 0."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """Character between the columns; null for that of comma, semicolon, tab and | which the first line has most of."""
    encoding: str = "utf-8"
    """Encoding of the CSV file, as Python names it: utf-8 (with or without a BOM), utf-16, latin-1, cp1252, ..."""

    _key: ClassVar[str] = "file"

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            hint = "such as utf-8, utf-16, latin-1 or cp1252"
            raise Mistakes(Problem(f"{encoding!r} is no encoding that Python knows", hint=hint)) from None
        return encoding

    @field_validator("labels", mode="before")
    @classmethod
    def _are_texts(cls, labels: Any) -> Any:
        if isinstance(labels, list | tuple):
            check_texts(labels)
        return labels

    @field_validator("labels")
    @classmethod
    def _are_several(cls, labels: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(labels, tuple) and (len(set(labels)) != len(labels) or len(labels) < 2):
            hint = "name one column of classes, or a column of 0 and 1 for each of two or more classes"
            raise Mistakes(Problem(f"{list(labels)} are not two or more different columns", hint=hint))
        return labels

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None, info: ValidationInfo) -> str | None:
        if separator is not None and isinstance(info.data.get("labels"), tuple):
            raise Mistakes(Problem(f"{separator!r} has no effect beside several columns", hint="leave it out"))
        return separator

    @property
    def _complete(self) -> CSVListing:
        columns = Columns(self.paths, self.labels, self.separator, self.split, self.group, **self._named)
        return listing_of(Path(self.file), Path(self._folder), self.suffix, columns, self.delimiter, self.encoding)

    @property
    def _folder(self) -> str:
        return str(Path(self.file).parent) if self.root is None else self.root
