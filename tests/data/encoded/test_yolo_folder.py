"""Folders of YOLO's: where images and labels may lie, what a line may say, and what is wrong with files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_files import boxes_of, noise, outline_of, problem_of, shape_of, write_yolo, yolo_lines
from PIL import Image

from tuner.data import COCO, YOLOFolder
from tuner.data.encoded.boxes.listing import listing_of
from tuner.data.encoded.listing import Items

pytestmark = pytest.mark.usefixtures("own_data_dir")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    listing_of.cache_clear()  # tests change files behind it


def boxes_in(data: YOLOFolder, name: str) -> list[tuple[float, ...]]:
    """The boxes of an image."""
    [rows] = data._targets_of(Items([name], np.zeros(1)))["boxes"].tolist()
    return sorted(tuple(round(value, 2) for value in row) for row in rows if row[4] >= 0)


def wanted(number: int, size: int) -> list[Any]:
    """The boxes of an image that is squashed."""
    height, width = shape_of(number)
    boxes = (
        (x1 * size / width, y1 * size / height, x2 * size / width, y2 * size / height, label, 0)
        for x1, y1, x2, y2, label, _ in boxes_of(number)
    )
    return [pytest.approx(box, abs=0.011) for box in sorted(boxes)]


def fill(images: Path, labels: Path, numbers: range) -> None:
    """Write images and their labels."""
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        noise(number, shape_of(number)).save(images / f"{number}.jpg")
        (labels / f"{number}.txt").write_text("\n".join(yolo_lines(number)))


def test_images_have_the_boxes_of_their_label_files(tmp_path: Path) -> None:
    data = YOLOFolder(root=str(write_yolo(tmp_path, 20, 10, 5)), size=36, resize="squash")
    assert data.describe().sizes == {"train": 20, "validation": 10, "test": 5}
    assert data.targets["boxes"].classes == ("person", "dog", "cup")
    for split in data.files():
        for name in data.names(split):
            assert boxes_in(data, name) == wanted(int(Path(name).stem), 36)
    assert not (tmp_path / "labels" / "train" / "9.txt").exists() and boxes_in(data, "images/train/9.jpg") == []


def test_outlines_and_key_points_have_boxes(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    label = root / "labels" / "train" / "2.txt"  # of a square image
    label.write_text("1 0.5 0.25 0.75 0.5 0.5 1.0 0.25 0.5\n\n1.0 .5 .5 .5 1\n1.0 .5 .5 .5 1\n")
    data = YOLOFolder(root=str(root), size=24, resize="squash")
    assert boxes_in(data, "images/train/2.jpg") == [(6, 0, 18, 24, 1, 0), (6, 6, 18, 24, 1, 0)]
    text = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(f"{text}kpt_shape: [2, 3]\n")
    listing_of.cache_clear()
    data = YOLOFolder(root=str(root), size=24, resize="squash")
    assert boxes_in(data, "images/train/2.jpg") == [(3, 0, 21, 12, 1, 0), (6, 0, 18, 24, 1, 0)]


def test_outlines_are_masks_as_cocos_polygons_are(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "yolo", 12, 10, 5)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(12):
        height, width = shape_of(number)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": width, "height": height})
        lines = []
        for x1, y1, x2, y2, label, _ in boxes_of(number):
            [polygon] = outline_of((x1, y1, x2, y2), (height, width), 0)
            shares = np.array(polygon).reshape(-1, 2) / (width, height)
            lines.append(" ".join([str(label), *map(repr, shares.flatten().tolist())]))
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [polygon], "category_id": label, "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": number, **box})
        (root / "labels" / "train" / f"{number}.txt").write_text("\n".join(lines))
    assert annotations
    for split in ("val", "test"):
        for file in (root / "labels" / split).glob("*.txt"):
            file.unlink()
    categories = [{"id": number, "name": name} for number, name in enumerate(("person", "dog", "cup"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    own = YOLOFolder(root=str(root), size=36, instances=True)
    coco = COCO(root=str(tmp_path), annotations="coco.json", images="yolo/images/train", size=36, instances=True)
    assert own.targets["instances"].classes == coco.targets["instances"].classes
    found, wanted = (
        {
            Path(name).name: codes
            for split, opened in zip(("train", "validation"), data.load(), strict=True)
            for name, codes in zip(data.names(split), opened.targets["instances"], strict=True)
        }
        for data in (own, coco)
    )
    seen = [name for name in wanted if name in found]
    assert len(seen) > 5 and any(found[name].any() for name in seen)
    assert all(torch.equal(found[name], wanted[name]) for name in seen)


def test_a_box_among_outlines_has_no_mask(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    problem = problem_of(YOLOFolder, root=str(root), size=24, instances=True)
    assert "have no masks: images/train/0.jpg: labels/train/0.txt, line 1" in str(problem)
    assert "class, x1, y1, x2, y2, ... in YOLO's" in str(problem.hint)


def test_boxes_are_those_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    before = boxes_in(YOLOFolder(root=str(root), size=36), "images/train/3.jpg")
    exif = Image.Exif()
    exif[0x0112] = 8
    path = root / "images" / "train" / "3.jpg"
    Image.open(path).rotate(-90, expand=True).save(path, exif=exif)
    listing_of.cache_clear()
    assert boxes_in(YOLOFolder(root=str(root), size=36), "images/train/3.jpg") == before and before


@pytest.mark.parametrize(
    ("places", "text", "fields"),
    [
        (["train/images", "valid/images", "test/images"], "train: ../train/images\nval: ../valid/images\n", {}),
        (["images/a", "images/b"], "path: /nowhere\ntrain: images/a\nval: [images/b]\nnc: 3\n", {}),
        (["images/a", "images/b", "images/c"], "path: .\ntrain: [images/a, images/b]\nval: images/c\ntest:\n", {}),
        (["deep/images/a"], "path: deep\ntrain: images/a\ntest: images/none\n", {}),
        (["train", "val"], "train: train\nval: val\n", {}),
        (["images/train", "images/val"], None, {}),
        (["train/images", "val/images", "test/images"], None, {}),
        (["images"], None, {}),
        (["images/one/two"], None, {}),
        (["images/train", "images/held"], None, {"validation": "images/held"}),
        (["images/train"], "train: list.txt\n", {}),
        (["train/images"], "train: train\n", {"yaml": "data.yaml"}),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_layouts(tmp_path: Path, places: list[str], text: str | None, fields: dict[str, Any]) -> None:
    for number, place in enumerate(places):
        labels = tmp_path / place.replace("images", "labels")
        fill(tmp_path / place, labels, range(10 * number, 10 * number + 10))
    lines = [f"./{path.relative_to(tmp_path)}\n" for path in tmp_path.rglob("*.jpg")]
    (tmp_path / "list.txt").write_text("".join(lines))
    if text is None:
        fields = {"classes": ("a", "b", "c"), **fields}
    else:
        (tmp_path / "data.yaml").write_text(f"{text}names: [a, b, c]\n")
    data = YOLOFolder(root=str(tmp_path), size=36, resize="squash", **fields)
    used = 20 if "path: /nowhere" in (text or "") or "../train" in (text or "") else 10 * len(places)
    sizes = data.describe().sizes
    assert sum(sizes.values()) == used and min(sizes.values()) > 0
    for split in data.files():
        for name in data.names(split):
            assert boxes_in(data, name) == wanted(int(Path(name).stem), 36)
    assert any("images/none, which is not there" in each for each in data.ignored) == ("images/none" in (text or ""))


@pytest.mark.parametrize("names", ["[no, yes, on]", "{0: no, 1: yes, 2: on}", "{'0': no, '1': yes, '2': on}"])
def test_names_that_other_readers_take_for_truth_values_are_as_they_are_written(tmp_path: Path, names: str) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    text = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(re.sub(r"(?s)names:.*?(?=\n\w|$)", f"names: {names}", text))
    assert YOLOFolder(root=str(root), size=12).targets["boxes"].classes == ("no", "yes", "on")


def test_what_is_beside_the_labels_is_told(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    (root / "labels" / "train" / "alone.txt").write_text("")
    (root / "labels" / "train" / "classes.txt").write_text("a")
    (root / "images" / "train" / "notes.md").write_text("")
    data = YOLOFolder(root=str(root), size=12)
    assert data.ignored == ("1 file without the suffix of an image", "1 label file without an image")


FIRST = "images/train/2.jpg: labels/train/2.txt, line 2: "


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 0.5 0.5 0.2", f"1 annotation is malformed: {FIRST}1 0.5 0.5 0.2: it has 4 values; a line is class"),
        ("1 0.5 0.5 0.2 0.2 0.9", "it has 6 values"),
        ("1 0.5 0.5 0.2 0.2 0.1 0.1 0.1", "it has 8 values"),
        ("dog 0.5 0.5 0.2 0.2", f"1 box has a value that is no number: {FIRST}dog"),
        ("1 0.5 nan 0.2 0.2", "1 box has a value that is no number: "),
        ("3 0.5 0.5 0.2 0.2", f"1 box is of an unknown class: {FIRST}3 0.5 0.5 0.2 0.2: classes are 0 to 2"),
        ("-1 0.5 0.5 0.2 0.2", "1 box is of an unknown class: "),
        ("0.5 0.5 0.5 0.2 0.2", "1 box is of an unknown class: "),
        ("1 12 12 5 5", "1 box is not given in shares of its image: "),
        ("1 0.5 0.5 -0.2 0.2", f"1 box has no area: {FIRST}1 0.5 0.5 -0.2 0.2: its width is negative"),
        ("1 0.5 0.5 0.2 -1e-5", f"1 box has no area: {FIRST}1 0.5 0.5 0.2 -1e-5: its height is negative"),
        ("1 -0.5 0.5 0.2 0.2", "1 box is not given in shares of its image: "),
        ("1 0.5 0.5 0 0.2", f"1 box has no area: {FIRST}1 0.5 0.5 0 0.2, and the image has 24x24 pixels"),
        ("1 0.9 0.5 0.4 0.2", f"1 box ends beyond its image: {FIRST}1 0.9 0.5 0.4 0.2, and"),
    ],
)
def test_broken_lines_are_told_or_left_out(tmp_path: Path, line: str, said: str) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    (root / "labels" / "train" / "2.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n2 0.5 0.5 0.25 0.25\n")
    problem = problem_of(YOLOFolder, root=str(root), size=12)
    assert said in problem.message and problem.key == "root" and len(problem.items) == 1
    data = YOLOFolder(root=str(root), size=24, skip_broken=True)
    assert boxes_in(data, "images/train/2.jpg") == [(6, 6, 18, 18, 0, 0), (9, 9, 15, 15, 2, 0)]
    assert len(data.ignored) == 1 and data.ignored[0].startswith("1 ")


def test_what_cannot_be_opened_is_told_or_left_out(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    (root / "images" / "train" / "3.jpg").write_bytes(b"nothing")
    problem = problem_of(YOLOFolder, root=str(root), size=12)
    assert "1 image cannot be opened: images/train/3.jpg: it is not an image" in problem.message
    (root / "labels" / "train" / "2.txt").write_bytes(b"\xff\xfe1 2 3")
    data = YOLOFolder(root=str(root), size=12, skip_broken=True)
    assert data.describe().sizes["train"] == 18 and len(data.ignored) == 2  # its boxes are unknown
    assert "1 annotation file that cannot be read (images/train/2.jpg)" in data.ignored


Spoil = Callable[[Path], object]


def yaml_is(text: str) -> Spoil:
    return lambda root: (root / "data.yaml").write_text(text)


def no_labels(root: Path) -> None:
    for path in (root / "labels").rglob("*.txt"):
        path.unlink()


def no_training_images(root: Path) -> None:
    for path in (root / "images" / "train").iterdir():
        path.unlink()


def nothing(root: Path) -> None:
    """Change nothing."""


@pytest.mark.parametrize(
    ("spoil", "fields", "said", "key"),
    [
        (yaml_is("names: [a\ntrain: x"), {}, "data.yaml: it is no YAML: ", "root"),
        (yaml_is("- a"), {}, "data.yaml: it holds no keys", "root"),
        (yaml_is("train: images/train"), {}, "data.yaml: it has no names", "root"),
        (yaml_is("names: [a, b, c]"), {}, "data.yaml: it has no train", "root"),
        (yaml_is("train: images/train\nnames: [a, a]"), {}, "names has a twice", "root"),
        (yaml_is("train: images/train\nnames: {0: a, 2: b}"), {}, "names has the keys 0, 2", "root"),
        (yaml_is("train: images/train\nnames: {a: b}"), {}, "names has the keys a", "root"),
        (yaml_is("train: images/train\nnames: [a, null]"), {}, "names: null is no name of a class", "root"),
        (yaml_is("train: images/train\nnames: [false, true]"), {}, "names: false is no name of a class", "root"),
        (yaml_is("train: images/train\nnames: [a, '']"), {}, "names has an empty one", "root"),
        (yaml_is("train: images/train\nnames: cat"), {}, "names is 'cat'", "root"),
        (yaml_is("train: images/train\nnames: [a, b, c]\nnc: 4"), {}, "nc is 4, and names has 3 names", "root"),
        (yaml_is("train: images/x\nnames: [a]"), {}, "train names images/x, which is not there", "root"),
        (yaml_is("train: images/train\nval: x\nnames: [a]"), {}, "val names x, which is not there", "root"),
        (yaml_is("train: 3\nnames: [a]"), {}, "train is 3", "root"),
        (nothing, {"yaml": "other.yaml"}, "other.yaml: it cannot be read: No such file", "yaml"),
        (nothing, {"classes": ("a", "b")}, "['a', 'b'] are not the names in", "classes"),
        (nothing, {"validation": "images/x"}, "has no folder images/x", "validation"),
        (lambda root: (root / "data.yaml").unlink(), {}, "the names of the classes are unknown", "classes"),
        (no_labels, {}, "its 35 images have no labels: labels/train/0.txt is not there", "root"),
        (no_training_images, {}, "train has no images", "root"),
        (
            yaml_is("train: images/train\nval: images/train\nnames: [a, b, c]"),
            {},
            "20 images are in validation and",
            "root",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, spoil: Spoil, fields: dict[str, Any], said: str, key: str
) -> None:
    root = write_yolo(tmp_path, 20, 10, 5)
    spoil(root)
    problem = problem_of(YOLOFolder, root=str(root), size=12, **fields)
    assert said in problem.message and problem.key == key


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    assert "no folder of training images" in problem_of(YOLOFolder, root=str(tmp_path)).message
    root = write_yolo(tmp_path / "yolo", 20, 10, 5)
    assert problem_of(YOLOFolder, root=str(root), classes="cat").hint == "write [cat]"
    for fields in ({}, {"yaml": "data.yaml"}):
        problem = problem_of(YOLOFolder, root=str(root / "data.yaml"), **fields)
        assert problem.message.endswith("data.yaml: it is a file") and problem.key == "root"
        assert problem.hint == "root is the folder, and yaml names the file in it: yaml: data.yaml"
    assert "cannot be read: No such file" in problem_of(YOLOFolder, root=str(tmp_path / "x")).message
