"""The boxes of each set, as inspection counts and prints them."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import tuner
from encoded_files import boxes_of, noise, write_coco, write_voc_boxes, write_yolo
from pydantic import TypeAdapter

from tuner.data import COCO, DataConfig, ImageFolder, MNISTScenes, VOCDetection, YOLOFolder
from tuner.data.encoded.boxes.boxed import BoxedImages
from tuner.inspection.box_counts import counts_of_boxes
from tuner.inspection.datasets import inspect_dataset

pytestmark = pytest.mark.usefixtures("own_data_dir")
NAMES = ("person", "dog", "cup")


def test_they_are_those_of_the_files(tmp_path: Path) -> None:
    data = COCO(root=str(write_coco(tmp_path, 40, 20)), size=36)
    found = inspect_dataset(data, lambda *_: None).boxes
    assert list(found) == ["train", "validation", "test"]
    for split, counts in found.items():
        numbers = [int(Path(name).stem) for name in data.names(split)]
        boxes = [box for number in numbers for box in boxes_of(number)]
        of_class = Counter(NAMES[label] for *_, label, _ in boxes)
        assert counts.images == len(numbers) and counts.boxes == len(boxes) > 0
        assert counts.by_class == {name: of_class[name] for name in NAMES}
        assert counts.without == sum(not boxes_of(number) for number in numbers)
        assert counts.ignored == sum(is_crowd for *_, is_crowd in boxes)
    assert sum(counts.without for counts in found.values()) == 6  # each tenth image
    limited = counts_of_boxes(COCO(root=str(tmp_path), size=36, limit=7))
    assert (limited["train"].images, limited["test"]) == (7, found["test"])


def yolo(root: Path) -> BoxedImages:
    return YOLOFolder(root=str(write_yolo(root, 20, 10, 5)))


def voc(root: Path) -> BoxedImages:
    return VOCDetection(root=str(write_voc_boxes(root, 20, 10, classes=NAMES)), classes=NAMES)


@pytest.mark.parametrize("write", [yolo, voc])
def test_other_formats_have_them_too(tmp_path: Path, write: Callable[[Path], BoxedImages]) -> None:
    data = write(tmp_path)
    found = counts_of_boxes(data)
    assert {split: counts.images for split, counts in found.items()} == data.describe().sizes
    assert sum(counts.boxes for counts in found.values()) == len(data._listing.boxes)


@pytest.mark.slow
def test_images_that_are_made_have_them_and_images_without_boxes_do_not(tmp_path: Path) -> None:
    scenes = MNISTScenes(size=64, source="digits", limit=30)
    found = counts_of_boxes(scenes)
    boxes = scenes.load()[1].targets["boxes"][..., 4]
    assert found["train"].images == 30 and found["validation"].boxes == int((boxes >= 0).sum()) > 0
    for number in range(12):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        noise(number).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    assert inspect_dataset(ImageFolder(root=str(tmp_path)), lambda *_: None).boxes == {}


@pytest.mark.parametrize(("kind", "place"), [("coco", "train2017"), ("voc_detection", "JPEGImages")])
def test_images_that_no_set_lists_are_counted(tmp_path: Path, kind: str, place: str) -> None:
    fields: dict[str, Any] = {"kind": kind, "root": str(tmp_path), "size": 12}
    if kind == "coco":
        write_coco(tmp_path, 20, 6)
    else:
        write_voc_boxes(tmp_path, 20, 10, classes=NAMES)
        fields["classes"] = NAMES
    [folder] = tmp_path.rglob(place)
    for name in ("notes.txt", ".hidden.png"):
        (folder / name).write_text("")
    for name in ("alone.png", "more.jpg"):
        noise(77).save(folder / name)
    data = TypeAdapter(DataConfig).validate_python(fields)
    assert data.ignored == (f"2 images that no set lists ({place}/alone.png, {place}/more.jpg)",)
    assert "ignored: 2 images that no set lists" in " ".join(inspect_dataset(data, lambda *_: None).notes)


def test_the_command_prints_them(tmp_path: Path) -> None:
    write_coco(tmp_path / "farm", 40, 20)
    status, said = tuner(tmp_path, "inspect", "farm")
    assert status == 0, said
    lines = [line.replace("│", " ").split() for line in said.splitlines()]
    status, text = tuner(tmp_path, "inspect", "farm", "--json")
    found = json.loads(text)["boxes"]
    assert status == 0 and set(found) == {"train", "validation", "test"}
    for row, key in (("all boxes", "boxes"), ("images without boxes", "without"), ("ignored ones of these", "ignored")):
        assert [*row.split(), *(str(each[key]) for each in found.values())] in lines
    assert ["dog", *(str(each["by_class"]["dog"]) for each in found.values())] in lines
