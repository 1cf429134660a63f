"""What a folder or a file of data is: a layout that a dataset of `tuner` reads."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tuner.data import COCO, CSVImages, ImageFolder, ImageMaskFolder, ParquetImages, YOLOFolder
from tuner.data.encoded.boxes.boxed import BoxedImages
from tuner.data.encoded.csv.listing import columns_of
from tuner.errors import Mistakes, Problem, UserError
from tuner.proposal.boxes import fields_of_coco_file, is_coco_file, is_yolo_file, kind_of_boxes
from tuner.proposal.layout import Broken, Given, Layout, NotThis, read
from tuner.proposal.masks import fields_of_masks

_CSV = (".csv", ".tsv")
_LISTS = (*_CSV, ".parquet")
"""Suffixes of files that list or hold images."""
_NOTHING: Given = MappingProxyType({})
_COLUMNS = {
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id"),
}
"""Fields of a CSV file, and the names of columns that mean them, in any case."""


def is_data(path: Path) -> bool:
    """Whether a path is one of data, and not of an experiment: a folder, or a file that lists or holds images."""
    return path.is_dir() or path.suffix.lower() in _LISTS or is_coco_file(path) or is_yolo_file(path)


def image_folder(path: Path, given: Given) -> Layout:
    """Recognize a folder of images, with a folder for each class.

    Raises:
        NotThis: It is not one.
    """
    if not path.is_dir():
        raise NotThis
    return read("a folder of images", {"kind": "image_folder", "root": str(path)}, ImageFolder, given)


def image_mask_folder(path: Path, given: Given) -> Layout:
    """Recognize a folder of images and of masks.

    Raises:
        NotThis: It is not one.
    """
    fields = fields_of_masks(path) if path.is_dir() else None
    if fields is None:
        raise NotThis
    fields = {"kind": "image_mask_folder", "root": str(path), **fields}
    try:
        return read("images with masks", fields, ImageMaskFolder, given)
    except NotThis as error:  # images have masks of their names, so that the folders are no classes
        raise NotThis(*error.problems, layout="images with masks") from None


def images_with_boxes(path: Path, given: Given) -> Layout:
    """Recognize a folder of images with boxes in files of COCO, YOLO or Pascal VOC, or such a file of the first two.

    Raises:
        NotThis: It is not one.
    """
    if is_coco_file(path):
        member: type[BoxedImages] = COCO
        fields = fields_of_coco_file(path)
    elif is_yolo_file(path):
        member, fields = YOLOFolder, {"root": str(path.parent), "yaml": path.name}
    elif path.is_dir() and (found := kind_of_boxes(path)) is not None:
        member, fields = found, {"root": str(path)}
    else:
        raise NotThis
    called = "images with boxes"
    try:
        return read(called, {"kind": member.model_fields["kind"].default, **fields}, member, given)
    except NotThis as error:
        raise NotThis(*error.problems, layout=called) from None


def csv_file(path: Path, given: Given) -> Layout:
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
            return _listed(file, given)
        except NotThis as error:
            problems += error.problems
    raise NotThis(*dict.fromkeys(problems))


def _listed(file: Path, given: Given) -> Layout:
    """What a CSV file lists. A column of groups is used in any case: else a model is measured on what it has learnt.

    Raises:
        NotThis: It is not fit for training.
    """
    columns = _usual_columns(file)
    split = columns.get("split")
    problems: list[Problem] = []
    for used in [columns] if split is None else [columns, {key: columns[key] for key in columns if key != "split"}]:
        try:
            layout = read("images that a CSV file lists", {"kind": "csv", "file": str(file)} | used, CSVImages, given)
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


def parquet(path: Path, given: Given) -> Layout:
    """Recognize Parquet files of images.

    Raises:
        NotThis: There are none.
    """
    is_one = path.is_file() and path.suffix.lower() == ".parquet"
    if not is_one and not (path.is_dir() and next(path.rglob("*.parquet"), None)):
        raise NotThis
    return read("Parquet files of images", {"kind": "parquet", "file": str(path)}, ParquetImages, given)


def _usual_columns(file: Path) -> dict[str, str]:
    """The fields of a CSV file's columns whose names say that they hold sets or groups."""
    try:
        names = columns_of(file)
    except Mistakes:  # reading all of it will say why
        return {}
    found = {key: next((name for name in names if name.lower() in usual), None) for key, usual in _COLUMNS.items()}
    return {key: name for key, name in found.items() if name is not None}


Detector = Callable[[Path, Given], Layout]
"""Returns what data at a path are, by what the user says beside; raises `NotThis`."""

DETECTORS: Mapping[str, Detector] = {
    "images with boxes": images_with_boxes,
    "images with masks": image_mask_folder,
    "a folder of images": image_folder,
    "a CSV file": csv_file,
    "Parquet files": parquet,
}
"""The layouts that are recognized, by what they are called, in the order in which they are tried."""


def layout_of(path: Path, given: Given = _NOTHING, none: str = "no experiment can be written for this") -> Layout:
    """Say what data are.

    Args:
        path: Their folder or file.
        given: Fields of the dataset that the user says.
        none: What cannot be done with data of no layout.

    Raises:
        UserError: They are of no layout that is known, or training would refuse them.
    """
    if not path.exists():
        raise UserError(Problem("does not exist", where=str(path), hint="give the folder that holds the images"))
    try:
        return detected(path, given)
    except (NotThis, Broken) as error:
        hint = f"tuner inspect {path} lists all that it holds"
        if isinstance(error, Broken):
            hint += "; --skip-broken leaves out what is broken"
        raise UserError(*error.problems, Problem(none, where=str(path), hint=hint)) from None


def detected(path: Path, given: Given = _NOTHING) -> Layout:
    """Say what data are, by the first of the layouts that they have.

    Args:
        path: Their folder or file.
        given: Fields of the dataset that the user says.

    Raises:
        Broken: Images cannot be decoded.
        NotThis: They have none of them, or training would refuse them.
        UserError: Their dataset has no field for what the user says.
    """
    problems: list[Problem] = []
    for name, detect in DETECTORS.items():
        try:
            return detect(path, given)
        except NotThis as error:
            problems += [replace(each, message=f"as {name}: {each.message}", key="") for each in error.problems]
            if error.layout:
                raise NotThis(*problems, layout=error.layout) from None
    raise NotThis(*problems)
