"""COCO's files: the layouts in which they lie, against torchvision's reader, and what is wrong with a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_files import boxes_of, noise, problem_of, shape_of, write_coco

from tuner.data import COCO
from tuner.data.encoded.boxes.listing import listing_of
from tuner.data.encoded.listing import Items

pytestmark = pytest.mark.usefixtures("own_data_dir")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    listing_of.cache_clear()  # tests change files behind it


def boxes_in(data: COCO, name: str) -> list[tuple[float, ...]]:
    """The boxes of an image."""
    [rows] = data._targets_of(Items([name], np.zeros(1)))["boxes"].tolist()
    return sorted(tuple(row) for row in rows if row[4] >= 0)


def content_of(numbers: range) -> dict[str, Any]:
    """An annotation file of images of noise."""
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": shape_of(number)[1], "height": shape_of(number)[0]}
            for number in numbers
        ],
        "annotations": [
            {"id": 100 * number + each, "image_id": number, "category_id": box[4], "bbox": [*box[:2], 1, 1]}
            for number in numbers
            for each, box in enumerate(boxes_of(number))
            if box[0] < shape_of(number)[1] and box[1] < shape_of(number)[0]
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate("abc")],
    }


def write(file: Path, images: Path, numbers: range) -> None:
    """Write an annotation file and its images."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content_of(numbers)))
    for number in numbers:
        noise(number, shape_of(number)).save(images / f"{number}.png")


def test_torchvision_reads_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    from torchvision.datasets import CocoDetection

    root = write_coco(tmp_path, 30, 12)
    data = COCO(root=str(root), size=36, resize="squash")
    for split in ("train2017", "val2017"):
        theirs = CocoDetection(str(root / split), str(root / "annotations" / f"instances_{split}.json"))
        assert len(theirs) == {"train2017": 30, "val2017": 12}[split]
        for index, number in enumerate(theirs.ids):
            image, annotations = theirs[index]
            name = theirs.coco.loadImgs(number)[0]["file_name"]
            wanted = []
            for each in annotations:
                x, y, width, height = each["bbox"]
                right, down = 36 / image.width, 36 / image.height
                corners = (x * right, y * down, (x + width) * right, (y + height) * down)
                wanted.append((*corners, [1, 18, 90].index(each["category_id"]), each["iscrowd"]))
            assert boxes_in(data, f"{split}/{name}") == [pytest.approx(each, abs=1e-4) for each in sorted(wanted)]


@pytest.mark.parametrize(
    ("places", "fields", "sizes"),
    [
        ([("train/_annotations.coco.json", "train", 20), ("valid/_annotations.coco.json", "valid", 5)], {}, None),
        (
            [
                (f"{split}/_annotations.coco.json", split, count)
                for split, count in (("train", 9), ("valid", 4), ("test", 3))
            ],
            {},
            (9, 4, 3),
        ),
        (
            [
                (f"annotations/{split}.json", f"images/{split}", count)
                for split, count in (("train", 9), ("val", 4), ("test", 3))
            ],
            {},
            (9, 4, 3),
        ),
        (
            [("annotations/instances_train2014.json", "train2014", 9), ("annotations/captions_train2014.json", "x", 4)],
            {},
            None,
        ),
        ([("boxes.json", "images", 20)], {}, None),
        ([("boxes.json", ".", 20)], {}, None),
        ([("labels/all.json", "pictures", 20)], {"annotations": "labels/all.json", "images": "pictures"}, None),
        (
            [("a.json", "images", 20), ("b.json", "images", 6)],
            {"annotations": "a.json", "validation": "b.json"},
            (None, 6, None),
        ),
        (
            [("annotations/instances_train.json", "train", 9), ("annotations/instances_val.json", "val", 4)],
            {"validation": "annotations/instances_val.json"},
            (None, 4, None),
        ),
    ],
    ids=[
        "Roboflow",
        "Roboflow with a test set",
        "train, val and test",
        "2014",
        "one",
        "one beside",
        "named",
        "two",
        "val",
    ],
)
def test_layouts(
    tmp_path: Path, places: list[tuple[str, str, int]], fields: Any, sizes: tuple[int | None, ...] | None
) -> None:
    first = 0
    for file, images, count in places:
        write(tmp_path / file, tmp_path / images, range(first, first + count))
        first += count
    data = COCO(root=str(tmp_path), size=12, **fields)
    found = data.describe().sizes
    assert sum(found.values()) == (9 if "2014" in places[0][0] else first) and min(found.values()) > 0
    if sizes is not None:
        assert all(size in (None, each) for size, each in zip(sizes, found.values(), strict=True))
    train, validation = data.load()
    assert len(train) == found["train"] and len(validation) == found["validation"]


def test_val_is_the_test_set_of_coco_and_the_validation_set_is_split_off(tmp_path: Path) -> None:
    data = COCO(root=str(write_coco(tmp_path, 30, 12)), size=12)
    assert all(name.startswith("val2017/") for name in data.names("test"))
    assert all(name.startswith("train2017/") for name in data.names("validation"))


def test_classes_are_those_that_are_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 30, 12)
    data = COCO(root=str(root), size=12, classes=("cup", "person"))
    assert data.targets["boxes"].classes == ("cup", "person")
    wanted = [0, 0]
    for number in range(42):
        for box in boxes_of(number):
            if box[4] != 1:
                wanted[0 if box[4] == 2 else 1] += 1
    assert np.bincount(data._listing.boxes.classes).tolist() == wanted
    total = sum(len(boxes_of(number)) for number in range(42))
    assert data.ignored == (f"{total - sum(wanted)} boxes of 1 other class",)
    problem = problem_of(COCO, root=str(root), classes=("cup", "persn"))
    assert "'persn' is no category of instances_train2017.json" in problem.message and problem.key == "classes"
    assert "did you mean person?" in problem.hint
    assert "'cup' is there twice" in problem_of(COCO, root=str(root), classes=("cup", "cup")).message


@pytest.mark.parametrize(("name", "text"), [(True, "true"), (7, "7"), (1.5, "1.5"), (None, "null")])
def test_a_name_of_a_class_that_yaml_reads_as_something_else_needs_quotes(tmp_path: Path, name: Any, text: str) -> None:
    problem = problem_of(COCO, root=str(tmp_path), classes=["cup", name])
    assert (problem.message, problem.hint) == (
        f"{text} is no name of a class",
        f'a name is a text: in quotes, "{text}"',
    )


def test_names_may_be_absolute(tmp_path: Path) -> None:
    write(tmp_path / "a" / "boxes.json", tmp_path / "b", range(12))
    content = content_of(range(12))
    for each in content["images"]:
        each["file_name"] = str(tmp_path / "b" / each["file_name"])
    (tmp_path / "a" / "boxes.json").write_text(json.dumps(content))
    assert sum(COCO(root=str(tmp_path / "a"), size=12).describe().sizes.values()) == 12


@pytest.mark.parametrize("spare", [[0], [7], [0, 9]], ids=str)
@pytest.mark.parametrize("classes", [None, ("c", "b")])
def test_a_category_without_boxes_may_have_the_name_of_another(
    tmp_path: Path, spare: list[int], classes: tuple[str, ...] | None
) -> None:
    """As the name of a project of Roboflow that is that of its only class."""
    for name, numbers in (("train", range(12)), ("val", range(12, 16))):
        write(tmp_path / "annotations" / f"{name}.json", tmp_path / "images", numbers)
        content = content_of(numbers)
        for each in (*content["categories"], *content["annotations"]):
            key = "id" if "name" in each else "category_id"
            each[key] += 1
        content["categories"] += [{"id": number, "name": "c", "supercategory": "none"} for number in spare]
        if name == "val":  # which has boxes of another class alone
            content["annotations"] = [each for each in content["annotations"] if each["category_id"] == 1]
        (tmp_path / "annotations" / f"{name}.json").write_text(json.dumps(content))
    data = COCO(root=str(tmp_path), size=12, classes=classes)
    assert data.targets["boxes"].classes == (classes or ("a", "b", "c"))
    assert set(data._listing.boxes.classes.tolist()) == set(range(len(data.targets["boxes"].classes)))
    what = "1 category" if len(spare) == 1 else "2 categories"
    listed = ", ".join(f"{number} c" for number in spare)
    assert data.ignored[-1] == f"{what} without boxes, of the name of another one ({listed})"
    assert len(data.ignored) == (1 if classes is None else 2)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda content: content.pop("annotations"), "it has no list annotations"),
        (lambda content: content.update(categories={}), "its categories are no list"),
        (lambda content: content["images"].append(7), "images[12] is a number, and no object"),
        (lambda content: content["annotations"].insert(0, None), "annotations[0] is null, and no object"),
        (lambda content: content["images"].clear(), "it has no images"),
        (lambda content: content["categories"].clear(), "it has no categories"),
        (lambda content: content["categories"][1].update(id="x"), "categories[1] has the id 'x'"),
        (lambda content: content["categories"][1].update(name=" "), "category 1 has the name ' '"),
        (lambda content: content["categories"][1].update(id=2), "the categories b and c have the same id, 2"),
        (lambda content: content["categories"][0].update(name="b"), "the categories 0 and 1 have the same name, b"),
        (lambda content: content["images"][1].update(id=2), "the images 1.png and 2.png have the same id, 2"),
        (lambda content: content["images"][1].update(file_name="2.png"), "the image 2.png is there twice"),
        (lambda content: content["images"][1].update(file_name="./2.png"), "images/2.png is there twice in train"),
        (lambda content: content["images"][1].pop("file_name"), "images[1] has the file_name None"),
        (lambda content: content["images"][1].update(id=1.5), "the image 1.png has the id 1.5"),
        (
            lambda content: [each.update(file_name=f"x{each['id']}") for each in content["images"]],
            "are not in ., boxes",
        ),
    ],
)
def test_files_that_are_built_otherwise_are_refused(tmp_path: Path, how: Change, said: str) -> None:
    write(tmp_path / "boxes.json", tmp_path / "images", range(12))
    content = content_of(range(12))
    how(content)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    for skip in (False, True):
        problem = problem_of(COCO, root=str(tmp_path), size=12, skip_broken=skip)
        assert said in problem.message and problem.key == "root"
        assert "boxes.json" in problem.message or "in train" in problem.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(content_of(range(12)))[:-300], "it is cut short: EOF while parsing"),
        ("", "it is cut short: EOF"),
        ("image,x,y\n", "it is no JSON: "),
        ("[]", "it holds a list, and no object"),
        ("null", "it holds null, and no object"),
        ("[" * 5000, "it is no JSON: recursion limit exceeded"),
    ],
    ids=["cut", "empty", "CSV", "list", "null", "deep"],
)
def test_what_is_no_annotation_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "boxes.json").write_text(text)
    problem = problem_of(COCO, root=str(tmp_path), annotations="boxes.json")
    assert f"boxes.json: {said}" in problem.message and problem.key == "annotations"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    assert "it has no annotation file of a training set" in problem_of(COCO, root=str(tmp_path)).message
    assert "cannot be read: No such file" in problem_of(COCO, root=str(tmp_path / "x")).message
    problem = problem_of(COCO, root=str(tmp_path), annotations="x.json")
    assert "x.json: it cannot be read: No such file" in problem.message and problem.key == "annotations"
    root = write_coco(tmp_path / "coco", 12, 4)
    problem = problem_of(COCO, root=str(root), images="pictures")
    assert "are not in pictures" in problem.message and problem.key == "images"
    problem = problem_of(COCO, root=str(root), test="annotations/instances_train2017.json")
    assert "12 images are in test and in another set: train2017/" in problem.message
    file = "instances_train2017.json"
    problem = problem_of(COCO, root=str(root / "annotations" / file))
    assert problem.message.endswith(f"{file}: it is a file") and problem.key == "root"
    assert problem.hint == f"root is the folder, and annotations names the file in it: annotations: {file}"
    problem = problem_of(COCO, root=str(root), classes="cup")
    assert (problem.message, problem.hint) == ("cup is no list", "write [cup]")
    (root / "annotations" / "instances_train2014.json").write_text("{}")
    problem = problem_of(COCO, root=str(root))
    assert "instances_train2014.json and instances_train2017.json would both be the train set" in problem.message
    assert problem.key == "annotations"


def test_an_image_in_two_sets_and_other_categories_are_refused(tmp_path: Path) -> None:
    for name, numbers in (("train", range(12)), ("val", range(8, 16))):
        write(tmp_path / "annotations" / f"{name}.json", tmp_path / "images", numbers)
    assert "4 images are in test and in another set: images/10.png" in problem_of(COCO, root=str(tmp_path)).message
    content = content_of(range(12, 16))
    content["categories"][2]["id"] = 5
    (tmp_path / "annotations" / "val.json").write_text(json.dumps(content))
    assert "category 2 is c in train.json and None here" in problem_of(COCO, root=str(tmp_path)).message


def test_outlines_are_not_read_and_change_nothing(tmp_path: Path) -> None:
    write(tmp_path / "boxes.json", tmp_path / "images", range(12))
    wanted = COCO(root=str(tmp_path), size=12)._listing.boxes
    content = content_of(range(12))
    for number, each in enumerate(content["annotations"]):
        each["segmentation"] = [[[1.5, 2, -3e-5, 4]], [], {"counts": [1, 2], "size": [3, 4]}, "[1]"][number % 4]
        each["note"] = 'it says "segmentation": [1, 2]'
    for indent in (None, 2):
        (tmp_path / "boxes.json").write_text(json.dumps(content, indent=indent))
        listing_of.cache_clear()
        found = COCO(root=str(tmp_path), size=12)._listing.boxes
        assert all(np.array_equal(*each) for each in zip(found.columns, wanted.columns, strict=True))
