"""Pascal VOC's objects, against torchvision's reader, and what is wrong with its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_files import problem_of, write_voc_boxes

from tuner.data import VOCDetection
from tuner.data.encoded.boxes.listing import listing_of
from tuner.data.encoded.listing import Items
from tuner.data.encoded.voc_folder import OBJECTS

INSIDE = Path("VOCdevkit/VOC2012")


pytestmark = pytest.mark.usefixtures("own_data_dir")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    listing_of.cache_clear()  # tests change files behind it


def boxes_in(data: VOCDetection, name: str) -> list[tuple[float, ...]]:
    """The boxes of an image."""
    [rows] = data._targets_of(Items([name], np.zeros(1)))["boxes"].tolist()
    return sorted(tuple(round(value, 2) for value in row) for row in rows if row[4] >= 0)


def test_torchvision_reads_the_same(tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection as Theirs

    write_voc_boxes(tmp_path, 40, 12)
    for root in (tmp_path, tmp_path / INSIDE):
        data = VOCDetection(root=str(root), size=36, resize="squash")
        assert sum(data.describe().sizes.values()) == 52 and data.describe().sizes["test"] == 12
    assert data.targets["boxes"].classes == OBJECTS
    for image_set in ("train", "val"):
        theirs = Theirs(str(tmp_path), year="2012", image_set=image_set)
        assert len(theirs) == {"train": 40, "val": 12}[image_set]
        for index, path in enumerate(theirs.images):
            image, target = theirs[index]
            right, down = 36 / image.width, 36 / image.height
            wanted = []
            for each in target["annotation"]["object"]:
                # Pixels are counted from 1, and the last one belongs to the object.
                left, top, end, bottom = (float(each["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))
                corners = ((left - 1) * right, (top - 1) * down, end * right, bottom * down)
                wanted.append((*corners, OBJECTS.index(each["name"]), int(each["difficult"])))
            found = boxes_in(data, f"JPEGImages/{Path(path).name}")
            assert found == [pytest.approx(box, abs=0.011) for box in sorted(wanted)]


def test_other_objects_in_its_layout_are_named(tmp_path: Path) -> None:
    root = write_voc_boxes(tmp_path, 30, 12, classes=("helmet", "head"))
    problem = problem_of(VOCDetection, root=str(root), size=12)
    assert "its objects are of 2 classes that VOC lacks: head, helmet" in problem.message and problem.key == "classes"
    assert "classes: [head, helmet]" in problem.hint
    data = VOCDetection(root=str(root), size=12, classes=("helmet", "head"))
    assert data.targets["boxes"].classes == ("helmet", "head")
    problem = problem_of(VOCDetection, root=str(root), size=12, classes=("helmet",))
    assert "are of unknown classes: JPEGImages/2008_0000" in problem.message
    assert "is 'head'; classes: helmet" in problem.message


def replaced(old: str, new: str) -> Callable[[Path], None]:
    """Change the annotations of the third image."""

    def spoil(root: Path) -> None:
        path = root / INSIDE / "Annotations" / "2008_000002.xml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return spoil


def missing(name: str) -> Callable[[Path], None]:
    return lambda root: (root / INSIDE / name).unlink()


NAME = "JPEGImages/2008_000002.jpg: Annotations/2008_000002.xml: "


@pytest.mark.parametrize(
    ("spoil", "said", "is_image"),
    [
        (replaced("<xmin>", "<xmin>9"), "1 box", False),
        (replaced("<xmax>", "<xmax>-"), f"1 box has no area: {NAME}object 1 (bird) with xmin ", False),
        (replaced("<xmin>", "<xmin>x"), f"1 annotation is malformed: {NAME}object 1 (bird) has xmin x", False),
        (replaced("<xmin>", "<left>"), f"1 annotation file cannot be read: {NAME}it is no XML: mismatched tag", True),
        (replaced("bndbox>", "b>"), "it is no XML: ", True),
        (replaced("<name>bird</name>", ""), f"1 annotation is malformed: {NAME}object 1 has no name", False),
        (replaced("</annotation>", ""), "it is no XML: no element found", True),
        (missing("Annotations/2008_000002.xml"), f"1 annotation file cannot be read: {NAME}there is no such", True),
        (missing("JPEGImages/2008_000002.jpg"), "1 image is not there: JPEGImages/2008_000002.jpg: ", True),
    ],
)
def test_what_is_broken_is_told_or_left_out(
    tmp_path: Path, spoil: Callable[[Path], None], said: str, is_image: bool
) -> None:
    root = write_voc_boxes(tmp_path, 30, 12)
    before = VOCDetection(root=str(root), size=12)._listing
    listing_of.cache_clear()
    spoil(root)
    problem = problem_of(VOCDetection, root=str(root), size=12)
    assert said in problem.message and problem.key == "root" and len(problem.items) == 1
    after = VOCDetection(root=str(root), size=12, skip_broken=True)._listing
    assert len(after.row) == len(before.row) - is_image
    if not is_image:
        assert len(after.boxes) == len(before.boxes) - 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing("ImageSets/Main/val.txt"), "val.txt cannot be read: No such file"),
        (lambda root: (root / INSIDE / "ImageSets/Main/train.txt").write_text(""), "train.txt is empty"),
        (lambda root: (root / INSIDE / "JPEGImages").rename(root / "images"), "it has no folder JPEGImages"),
        (
            lambda root: (root / INSIDE / "Annotations").rename(root / "xml"),
            "none of the 30 images of train can be used",
        ),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, spoil: Any, said: str) -> None:
    root = write_voc_boxes(tmp_path, 30, 12)
    spoil(root)
    assert said in problem_of(VOCDetection, root=str(root), size=12).message


def test_a_folder_that_is_not_there_and_classes_that_are_no_list_are_told(tmp_path: Path) -> None:
    problem = problem_of(VOCDetection, root=str(tmp_path / "x"))
    assert problem.message.endswith("x: there is no such folder") and problem.key == "root"
    (tmp_path / "x").write_text("")
    assert "x: it is a file, and no folder" in problem_of(VOCDetection, root=str(tmp_path / "x")).message
    assert problem_of(VOCDetection, root=str(tmp_path), classes="bird").hint == "write [bird]"


def test_files_without_sizes_are_enough(tmp_path: Path) -> None:
    root = write_voc_boxes(tmp_path, 30, 12)
    wanted = VOCDetection(root=str(root), size=12).load_test().targets["boxes"]
    for path in (root / INSIDE / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<size>", "<other>").replace("</size>", "</other>"))
    listing_of.cache_clear()
    assert VOCDetection(root=str(root), size=12).load_test().targets["boxes"].equal(wanted)
