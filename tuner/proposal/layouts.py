"""What a folder or a file of data is: a layout that a dataset of `tuner` reads."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from tuner.data import CSVImages, ImageFolder, ImageMaskFolder, ParquetImages
from tuner.data.decoding import Undecodable, quiet
from tuner.data.encoded.csv.listing import columns_of
from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.measured import UNOPENED
from tuner.data.encoded.unchecked import unchecked
from tuner.errors import Mistakes, Problem, UserError, mistakes_in
from tuner.formatting import counted
from tuner.inspection.examine import size_of
from tuner.interfaces import TargetKind
from tuner.proposal.boxes import kind_of_boxes
from tuner.proposal.masks import fields_of_masks

_SAMPLE = 300
"""Most images whose sizes are looked at."""
_CSV = (".csv", ".tsv")
LISTS = (*_CSV, ".parquet")
"""Suffixes of files that list or hold images."""
_COLUMNS = {
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id"),
}
"""Fields of a CSV file, and the names of columns that mean them, in any case."""


class NotThis(Exception):
    """Data are not of a layout, or of it and not fit for training; the problems say why.

    Args:
        problems: Why.
        layout: The layout that the data certainly have; empty if they may be of another one.
    """

    def __init__(self, *problems: Problem, layout: str = "") -> None:
        self.problems = problems
        self.layout = layout


class Broken(Exception):
    """Data are of a layout, and images of theirs cannot be decoded.

    Args:
        what: A phrase for the user.
        data: The dataset, of which no image is opened yet.
        problems: Which images, and why.
    """

    def __init__(self, what: str, data: EncodedImages, problems: list[Problem]) -> None:
        self.what = what
        self.data = data
        self.problems = problems


@dataclass(frozen=True)
class Layout:
    """What data are.

    Args:
        what: A phrase for the user.
        fields: The fields of ``trial.data`` that name the data.
        data: The dataset, with the defaults of its other fields.
        training_images: The number of training images.
        counts: The number of training images of each class, the largest first; none if not images have classes,
            but their pixels or boxes.
        side: The median of the shorter sides of the images, in pixels.
        notes: What else was recognized, used or not, in sentences.
    """

    what: str
    fields: dict[str, Any]
    data: EncodedImages
    training_images: int
    counts: tuple[int, ...]
    side: int
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> TargetKind:
        """The kind of the target."""
        [target] = self.data.targets.values()
        return target.kind

    @property
    def imbalance(self) -> float:
        """How many times as many training images as the smallest class the largest one has."""
        return self.counts[0] / max(self.counts[-1], 1) if self.counts else 1.0


def image_folder(path: Path) -> Layout:
    """Recognize a folder of images, with a folder for each class.

    Raises:
        NotThis: It is not one.
    """
    if not path.is_dir():
        raise NotThis
    return _layout("a folder of images", {"kind": "image_folder", "root": str(path)}, ImageFolder)


def image_mask_folder(path: Path) -> Layout:
    """Recognize a folder of images and of masks.

    Raises:
        NotThis: It is not one.
    """
    fields = fields_of_masks(path) if path.is_dir() else None
    if fields is None:
        raise NotThis
    fields = {"kind": "image_mask_folder", "root": str(path), **fields}
    try:
        return _layout("images with masks", fields, ImageMaskFolder)
    except NotThis as error:  # images have masks of their names, so that the folders are no classes
        raise NotThis(*error.problems, layout="images with masks") from None


def images_with_boxes(path: Path) -> Layout:
    """Recognize a folder of images whose boxes stand in files of COCO, YOLO or Pascal VOC.

    Raises:
        NotThis: It is not one.
    """
    member = kind_of_boxes(path) if path.is_dir() else None
    if member is None:
        raise NotThis
    called = "images with boxes"
    try:
        return _layout(called, {"kind": member.model_fields["kind"].default, "root": str(path)}, member)
    except NotThis as error:
        raise NotThis(*error.problems, layout=called) from None


def csv_file(path: Path) -> Layout:
    """Recognize a CSV file that lists images, or a folder with one.

    Raises:
        NotThis: It is not one.
    """
    files = [path] if path.is_file() and path.suffix.lower() in _CSV else []
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in _CSV and not each.name.startswith("."))
    problems: list[Problem] = []
    for file in files:
        try:
            return _listed(file)
        except NotThis as error:
            problems += error.problems
    raise NotThis(*dict.fromkeys(problems))


def _listed(file: Path) -> Layout:
    """What a CSV file lists. A column of groups is used in any case: else a model is measured on what it has learnt.

    Raises:
        NotThis: It is not fit for training.
    """
    columns = _usual_columns(file)
    split = columns.get("split")
    problems: list[Problem] = []
    for used in [columns] if split is None else [columns, {key: columns[key] for key in columns if key != "split"}]:
        try:
            layout = _layout("images that a CSV file lists", {"kind": "csv", "file": str(file)} | used, CSVImages)
        except NotThis as error:  # not where images are broken: with other columns they might be in the test set
            problems += error.problems
            continue
        notes = [f"The column {split} says which set an image is in."] if "split" in used else []
        if split is not None and not notes:
            why = "; ".join(problem.message.removeprefix(f"{file}: ") for problem in problems)
            notes = [f"The column {split} is not used, though it seems to say which set an image is in: {why}."]
        if group := used.get("group"):
            notes.append(f"Images with the same value in the column {group} are never in two sets.")
        return replace(layout, notes=tuple(notes))
    raise NotThis(*problems)


def parquet(path: Path) -> Layout:
    """Recognize Parquet files of images.

    Raises:
        NotThis: There are none.
    """
    is_one = path.is_file() and path.suffix.lower() == ".parquet"
    if not is_one and not (path.is_dir() and next(path.rglob("*.parquet"), None)):
        raise NotThis
    return _layout("Parquet files of images", {"kind": "parquet", "file": str(path)}, ParquetImages)


def _usual_columns(file: Path) -> dict[str, str]:
    """The fields of a CSV file's columns whose names say that they hold sets or groups."""
    try:
        names = columns_of(file)
    except Mistakes:  # reading all of it will say why
        return {}
    found = {key: next((name for name in names if name.lower() in usual), None) for key, usual in _COLUMNS.items()}
    return {key: name for key, name in found.items() if name is not None}


Detector = Callable[[Path], Layout]
"""Returns what data at a path are; raises `NotThis`."""

DETECTORS: Mapping[str, Detector] = {
    "images with boxes": images_with_boxes,
    "images with masks": image_mask_folder,
    "a folder of images": image_folder,
    "a CSV file": csv_file,
    "Parquet files": parquet,
}
"""The layouts that are recognized, by what they are called, in the order in which they are tried."""


def layout_of(path: Path) -> Layout:
    """Say what data are.

    Raises:
        UserError: They are of no layout that is known, or training would refuse them.
    """
    if not path.exists():
        raise UserError(Problem("does not exist", where=str(path), hint="give the folder that holds the images"))
    try:
        return detected(path)
    except (NotThis, Broken) as error:
        hint = f"tuner inspect {path} lists all that it holds"
        none = Problem("no experiment can be written for this", where=str(path), hint=hint)
        raise UserError(*error.problems, none) from None


def detected(path: Path) -> Layout:
    """Say what data are, by the first of the layouts that they have.

    Raises:
        Broken: Images cannot be decoded.
        NotThis: They have none of them, or training would refuse them.
    """
    problems: list[Problem] = []
    for name, detect in DETECTORS.items():
        try:
            return detect(path)
        except NotThis as error:
            problems += [replace(each, message=f"as {name}: {each.message}", key="") for each in error.problems]
            if error.layout:
                raise NotThis(*problems, layout=error.layout) from None
    raise NotThis(*problems)


def _layout(called: str, fields: dict[str, Any], member: type[EncodedImages]) -> Layout:
    """Read a dataset with the defaults of its other fields.

    Raises:
        NotThis: It cannot be read.
    """
    given = {name: value for name, value in fields.items() if name != "kind"}
    try:
        data = member.model_validate(given)
        files = data.files()
    except ValidationError as error:
        problems = mistakes_in(error) or [Problem(str(error))]
        if all(problem.items for problem in problems):
            with unchecked():
                try:
                    unread = member.model_validate(given | UNOPENED)
                except ValidationError as further:  # of what is left without what is broken
                    raise NotThis(*problems, *mistakes_in(further)) from None
            raise Broken(called, unread, problems) from None
        raise NotThis(*problems) from None
    except Mistakes as mistakes:
        raise NotThis(*mistakes.problems) from None
    sides = list(map(min, _sizes(data, files["train"].names[:_SAMPLE])))
    if not sides:
        raise NotThis(Problem(f"the first images of {data.source} cannot be read"))
    [target] = data.targets.values()
    sizes = ", ".join(f"{len(items):,} {split}" for split, items in files.items())
    side = round(median(sides))
    what = f"{called}, {counted(target.size, 'class', 'classes')}, {sizes} images"
    what += f", the shorter side {side} pixels in the median"
    of_images = target.kind in ("class", "multilabel")
    counts = [] if not of_images else sorted(files["train"].counts(target.size).tolist(), reverse=True)
    return Layout(what, fields, data, len(files["train"]), tuple(counts), side)


def _sizes(data: EncodedImages, names: list[str]) -> Iterator[tuple[int, int]]:
    """The sizes of images in pixels, by their headers; those that cannot be read are left out."""
    with quiet():
        for name in names:
            with contextlib.suppress(Undecodable):
                if (size := size_of(data.encoded(name))) is not None:
                    yield size
