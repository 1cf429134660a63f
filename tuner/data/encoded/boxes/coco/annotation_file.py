"""Annotation files of COCO: what they say of images, categories and boxes."""

import codecs
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydantic_core import from_json

from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.faults import MALFORMED, NO_CLASS, NO_IMAGE, TWICE, Fault
from tuner.data.encoded.boxes.listing import Annotated
from tuner.data.encoded.listing import Array, is_special
from tuner.error_text import escaped, one_line
from tuner.errors import Mistakes, Problem
from tuner.formatting import some

_OUTLINES = re.compile(rb'("segmentation"\s*:\s*)\[[\[\]0-9.,eE+\s-]*\]')
"""Outlines of objects, which are read on request: they are most of a file, and a Python object for each number."""
_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class COCOFile:
    """An annotation file, whose lists are there and have objects in them.

    Args:
        path: The file.
        key: The field that names it.
        images: Its images.
        annotations: Its annotations.
        categories: The name of each category, by its id, in the order of the ids; several may have the same name.
        has_outlines: Whether the outlines of the objects have been read.
    """

    path: Path
    key: str
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]
    has_outlines: bool = False

    @classmethod
    def read(cls, path: Path, key: str, *, outlines: bool = False) -> "COCOFile":
        """Read a file, and on request the outlines of its objects.

        Raises:
            Mistakes: It cannot be read, is no JSON, or is not built as COCO's files are.
        """
        content = _loaded(path, key, outlines)
        if not isinstance(content, dict):
            refuse(path, key, f"it holds {_type_of(content)}, and no object", _LAYOUT)
        for name in _LISTS:
            if not isinstance(content.get(name), list):
                what = f"its {name} are no list" if name in content else f"it has no list {name}"
                refuse(path, key, what, _LAYOUT)
            strange = next((number for number, each in enumerate(content[name]) if not isinstance(each, dict)), None)
            if strange is not None:
                what = f"{name}[{strange}] is {_type_of(content[name][strange])}, and no object"
                refuse(path, key, what, _LAYOUT)
        categories = _categories(path, key, content["categories"])
        _check_images(path, key, content["images"])
        return cls(path, key, content["images"], content["annotations"], categories, outlines)

    @property
    def first_names(self) -> list[str]:
        """The names of some images, as the file has them."""
        return [each["file_name"] for each in self.images[:20]]

    def annotated(self, folder: str, classes: dict[int, int]) -> Annotated:
        """Take over what it says.

        Args:
            folder: What precedes the names of its images in the dataset, such as ``train2017``.
            classes: The index of each class, by the category's id; -1 for one that is not asked for.
        """
        names = [os.path.normpath(os.path.join(folder, each["file_name"])) for each in self.images]  # noqa: PTH118
        sizes = np.array([(_side(each, "width"), _side(each, "height")) for each in self.images], dtype=np.int64)
        row = {each["id"]: number for number, each in enumerate(self.images)}
        annotations, faults = self._sound(names, row)
        boxes = _numbers([each["bbox"] for each in annotations])
        images = np.array([row[each["image_id"]] for each in annotations], dtype=np.int64)
        labels = np.array([classes[each["category_id"]] for each in annotations], dtype=np.int64)
        crowds = np.array([bool(each.get("iscrowd")) for each in annotations], dtype=bool)
        boxes[:, 2:] += boxes[:, :2]
        asked = np.flatnonzero(labels >= 0)
        found = Boxes(images, boxes, labels, crowds).chosen(asked)

        def text(index: int) -> str:
            return self._text(annotations[asked[index]])

        outlines = [annotations[index].get("segmentation") for index in asked] if self.has_outlines else None
        return Annotated(names, sizes.reshape(-1, 2), found, text, faults=faults, outlines=outlines)

    def _sound(self, names: list[str], row: dict[Any, int]) -> tuple[list[dict[str, Any]], list[Fault]]:
        """The annotations that are complete, and what is wrong with the others."""
        try:
            ids = [each["id"] for each in self.annotations]
            is_sound = (
                len(set(ids)) == len(ids)
                and row.keys() >= {each["image_id"] for each in self.annotations}
                and self.categories.keys() >= {each["category_id"] for each in self.annotations}
                and {each.get("iscrowd", 0) for each in self.annotations} <= _CROWDS
                and all(map(_is_box, (each["bbox"] for each in self.annotations)))
            )
        except (KeyError, TypeError):
            is_sound = False
        if is_sound:
            return self.annotations, []
        sound, faults, seen = [], [], set()
        for number, each in enumerate(self.annotations):
            fault = self._fault(number, each, names, row)
            if fault is None and each.get("id", number) in seen:
                fault = Fault(TWICE, names[row[each["image_id"]]], f"{self._text(each)}: its id is there before")
            if fault is None:
                seen.add(each.get("id", number))
                sound.append(each)
            else:
                faults.append(fault)
        return sound, faults

    def _fault(self, number: int, each: dict[str, Any], names: list[str], row: dict[Any, int]) -> Fault | None:
        where = f"annotations[{number}]"
        for key in ("image_id", "category_id", "id"):
            if key == "id" and key not in each:
                continue
            if not isinstance(each.get(key), int | str):
                what = f"has no {key}" if key not in each else f"has the {key} {one_line(repr(each[key]))}"
                return Fault(MALFORMED, self.path.name, f"{where} {what}")
        image = row.get(each["image_id"])
        if image is None:
            text = f"{self._text(each)} is of image {each['image_id']!r}, which its images lack"
            return Fault(NO_IMAGE, self.path.name, text)
        if each["category_id"] not in self.categories:
            known = some([str(each) for each in self.categories])
            text = f"{self._text(each)} is of category {each['category_id']!r}; its categories: {known}"
            return Fault(NO_CLASS, names[image], text)
        if not _is_box(each.get("bbox")):
            what = f"has the box {one_line(repr(each['bbox']))}" if "bbox" in each else "has no bbox"
            return Fault(MALFORMED, names[image], f"{self.path.name}: {where} {what}; a box is [x, y, width, height]")
        if not isinstance(crowd := each.get("iscrowd", 0), int | float) or crowd not in _CROWDS:
            text = f"{self.path.name}: {where} has the iscrowd {one_line(repr(crowd))}; it is 0, or 1 for a crowd"
            return Fault(MALFORMED, names[image], text)
        return None

    def _text(self, annotation: dict[str, Any]) -> str:
        """Which annotation one is, and its box."""
        box = annotation.get("bbox")
        return f"{self.path.name}: annotation {annotation.get('id', 'without an id')} with the box {box}"


_LAYOUT = "an annotation file of COCO is an object with the lists images, annotations and categories"


def _loaded(path: Path, key: str, outlines: bool) -> Any:
    try:
        if is_special(path):
            refuse(path, key, "it is no file", "name a JSON file")
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        hint = "a path is relative to the folder of the dataset"
        refuse(path, key, f"it cannot be read: {error.strerror or error}", hint)
    try:
        return from_json(content if outlines else _OUTLINES.sub(rb"\1null", content))
    except ValueError:
        pass  # the places in its message are those of the shortened text
    try:
        return from_json(content)
    except ValueError as error:
        is_short = "EOF" in str(error)
        what = "it is cut short" if is_short else "it is no JSON"
        hint = "get it again, or write it again: its end is missing" if is_short else "a JSON file in UTF-8"
        refuse(path, key, f"{what}: {one_line(str(error))}", hint)


def _categories(path: Path, key: str, categories: list[dict[str, Any]]) -> dict[int, str]:
    """The name of each category by its id, in the order of the ids."""
    found: dict[int, str] = {}
    for number, each in enumerate(categories):
        if type(each.get("id")) is not int:
            refuse(path, key, f"categories[{number}] has the id {each.get('id')!r}", "ids are integers")
        if not isinstance(each.get("name"), str) or not each["name"].strip():
            refuse(path, key, f"category {each['id']} has the name {each.get('name')!r}", "names are texts")
        if each["id"] in found:
            what = f"the categories {found[each['id']]} and {each['name']} have the same id, {each['id']}"
            refuse(path, key, escaped(what), "give each category an id of its own")
        found[each["id"]] = each["name"]
    if not found:
        refuse(path, key, "it has no categories", "declare the classes of the boxes")
    return dict(sorted(found.items()))


def _check_images(path: Path, key: str, images: list[dict[str, Any]]) -> None:
    if not images:
        refuse(path, key, "it has no images", "list the images, whether they have boxes or not")
    seen: dict[Any, str] = {}
    names: set[str] = set()
    for number, each in enumerate(images):
        name = each.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            refuse(path, key, f"images[{number}] has the file_name {name!r}", "each image has the name of its file")
        if not isinstance(each.get("id"), int | str):
            refuse(path, key, f"the image {escaped(name)} has the id {each.get('id')!r}", "each image has an id")
        if (other := seen.setdefault(each["id"], name)) is not name:
            what = f"the images {other} and {name} have the same id, {each['id']!r}"
            refuse(path, key, escaped(what), "it is unclear which of them the boxes are of: give each its own")
        if name in names:
            refuse(path, key, f"the image {escaped(name)} is there twice", "list each image once, with all its boxes")
        names.add(name)


def _side(image: dict[str, Any], key: str) -> int:
    value = image.get(key)
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and _NUMBERS.issuperset(map(type, value))


_NUMBERS = {int, float}
_CROWDS = {0, 1}
"""What iscrowd may be; true and false equal them."""
_FAR = 1e12
"""Beyond every image, in pixels; and so near that a box's width and height are not lost by rounding."""


def _numbers(boxes: list[list[float]]) -> Array:
    """Boxes as float64 (B, 4). A number that is beyond every image is set to one that can be added to others."""
    try:
        found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    except OverflowError:  # an integer of hundreds of digits
        found = np.array([[float(str(value)) for value in box] for box in boxes], dtype=np.float64)
    return np.clip(found, -_FAR, _FAR)


def _type_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def refuse(path: Path, key: str, what: str, hint: str) -> NoReturn:
    """Raise the mistake that a file is not as it has to be."""
    raise Mistakes(Problem(f"{escaped(str(path))}: {what}", key, hint=hint))
