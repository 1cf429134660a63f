"""What all datasets of boxes have in common, shown with COCO's: resizing, broken annotations, sets, caches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_files import boxes_of, noise, shape_of, write_coco, write_voc_boxes, write_yolo
from PIL import Image
from pydantic import ValidationError

from tuner.data import COCO
from tuner.data.decoding import Form, fitted
from tuner.data.encoded import dataset
from tuner.data.encoded.boxes import boxed
from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.listing import listing_of
from tuner.data.encoded.boxes.placing import placed
from tuner.data.encoded.listing import Items
from tuner.data.encoded.unchecked import unchecked
from tuner.data.loading.source import ALONE
from tuner.errors import Problem, UserError, mistakes_in
from tuner.inspection.datasets import inspect_dataset
from tuner.interfaces import NO_BOX
from tuner.objectives import Objective
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

Content = dict[str, Any]


pytestmark = pytest.mark.usefixtures("own_data_dir")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    listing_of.cache_clear()  # tests change files behind it


def real(rows: torch.Tensor) -> list[tuple[float, ...]]:
    """The rows of a target that stand for boxes."""
    return [tuple(row) for row in rows.tolist() if row[4] >= 0]


def problems_of(**fields: Any) -> list[Problem]:
    with pytest.raises(ValidationError) as error:
        COCO(**fields)
    return mistakes_in(error.value)


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(60, 90), (90, 61), (31, 31), (200, 40), (40, 40)], ids=str)
def test_boxes_are_resized_as_their_images(resize: Any, size: tuple[int, int]) -> None:
    """A painted rectangle and its box stay on one another."""
    height, width = size
    form = Form(1, 40, 40, resize)
    rng = np.random.default_rng(0)
    for _ in range(40):
        (x1, x2), (y1, y2) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (width, height))
        pixels = np.zeros(size, dtype=np.uint8)
        pixels[y1:y2, x1:x2] = 255
        seen = np.asarray(fitted(Image.fromarray(pixels), form, Image.Resampling.BOX)) / 255
        corners = np.array([[x1, y1, x2, y2]], dtype=np.float64)
        box = Boxes(np.array([0]), corners, np.array([3]), np.array([True]))
        rows = placed(box, np.array([[width, height]]), form).rows
        if not len(rows):
            assert resize == "crop" and seen.sum() < 0.25 * pixels.sum() / 255 * (40 / min(size)) ** 2 + 1
            continue
        left, top, right, bottom, label, ignored = rows[0].tolist()
        assert 0 <= left < right <= 40 and 0 <= top < bottom <= 40 and (label, ignored) == (3, 1)
        # Pixels that the rectangle covers in part are grey: their sums are its sides.
        across, down = seen.max(axis=0), seen.max(axis=1)
        columns, rows_of = np.flatnonzero(across > 0.01), np.flatnonzero(down > 0.01)
        assert abs(left - columns[0]) <= 1.01 and abs(right - columns[-1] - 1) <= 1.01
        assert abs(top - rows_of[0]) <= 1.01 and abs(bottom - rows_of[-1] - 1) <= 1.01
        if across.max() > 0.99 and down.max() > 0.99:
            off = 0.6 if min(size) >= 40 else 1.01  # a pixel of a small image becomes several
            assert across.sum() == pytest.approx(right - left, abs=off)
            assert down.sum() == pytest.approx(bottom - top, abs=off)


def test_a_box_of_which_a_crop_leaves_a_sliver_is_left_out() -> None:
    corners = np.array([[0, 0, 21, 40], [0, 0, 30, 40], [0, 0, 80, 40]], dtype=np.float64)
    boxes = Boxes(np.zeros(3, np.int64), corners, np.arange(3), np.zeros(3, bool))
    rows = placed(boxes, np.array([[80, 40]]), Form(1, 40, 40, "crop")).rows
    assert rows[:, :5].tolist() == [[0, 0, 10, 40, 1], [0, 0, 40, 40, 2]]


@pytest.mark.parametrize("size", [36, (24, 60)], ids=str)
def test_images_have_their_own_boxes_in_every_set(tmp_path: Path, size: Any) -> None:
    tall, wide = (size, size) if isinstance(size, int) else size
    data = COCO(root=str(write_coco(tmp_path, 40, 6)), size=size)
    assert data.describe().sizes == {"train": 35, "validation": 5, "test": 6}
    assert data.targets["boxes"].classes == ("person", "dog", "cup")
    train, validation = data.load()
    most = train.targets["boxes"].shape[1]
    for split, images in (("train", train), ("validation", validation), ("test", data.load_test())):
        assert images.targets["boxes"].shape == (len(images), most, 6)
        assert images.targets["boxes"].dtype == torch.float32
        for name, rows in zip(data.names(split), images.targets["boxes"], strict=True):
            number = int(Path(name).stem)
            height, width = shape_of(number)
            scale = min(tall / height, wide / width)
            x, y = (wide - round(width * scale)) // 2, (tall - round(height * scale)) // 2
            wanted = sorted(
                (x1 * scale + x, y1 * scale + y, x2 * scale + x, y2 * scale + y, float(label), float(crowd))
                for x1, y1, x2, y2, label, crowd in boxes_of(number)
            )
            assert sorted(real(rows)) == [pytest.approx(box, abs=1e-4) for box in wanted]
            assert all(tuple(row) == NO_BOX for row in rows.tolist() if row[4] < 0)
    [counts] = data.class_counts().values()
    assert counts.samples == sum(len(boxes_of(int(Path(name).stem))) for name in data.names("train"))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_images_and_boxes_of_a_batch_belong_together_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "cache"))
    data = COCO(root=str(write_coco(tmp_path / "data", 24, 6)), size=36, cache=cache)
    alone = {
        (image.numpy().tobytes(), rows.numpy().tobytes())
        for images in data.load()
        for image, rows in zip(images.images, images.targets["boxes"], strict=True)
    }
    with data.opened(torch.device("cpu"), ALONE) as sets:
        found = {
            ((image * 255).round().to(torch.uint8).numpy().tobytes(), rows.numpy().tobytes())
            for source in sets
            for batch in source.batches(8, 1)
            for image, rows in zip(batch.inputs, batch.targets["boxes"], strict=True)
        }
    assert found == alone and len(found) == 24


def test_changed_boxes_have_another_digest_and_another_target(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    before = COCO(root=str(root), size=12)
    digest, target = before.describe().digest, before.load_test().targets["boxes"]
    change(root, lambda content: content["annotations"][0]["bbox"].__setitem__(2, 1.5), "val2017")
    listing_of.cache_clear()
    after = COCO(root=str(root), size=12)
    assert after.describe().digest != digest
    assert not torch.equal(after.load_test().targets["boxes"], target)


def test_the_rarest_classes_are_in_every_set(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 200, 12)

    def make_rare(content: Content) -> None:
        content["categories"].append({"id": 99, "name": "zebra"})
        images = sorted(image["id"] for image in content["images"])[:20]
        content["annotations"] += [
            {"id": 1000 + image, "image_id": image, "category_id": 99, "bbox": [1, 2, 3, 4]} for image in images
        ]

    change(root, make_rare)
    change(root, lambda content: content["categories"].append({"id": 99, "name": "zebra"}), "val2017")
    data = COCO(root=str(root), size=12)
    assert [(data.load()[set].targets["boxes"][..., 4] == 3).any(1).sum().item() for set in (0, 1)] == [18, 2]


def test_a_camera_s_rotation_is_honoured(tmp_path: Path) -> None:
    """Boxes are those of the image as it is shown, whose width and height the file has."""
    root = write_coco(tmp_path, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (root / "train2017").iterdir():
        Image.open(path).rotate(90, expand=True).save(path, exif=exif)
    data = COCO(root=str(root), size=36)
    data.load()
    for path in (root / "train2017").iterdir():
        Image.open(path).save(path)  # without EXIF data
    boxed._compared.cache_clear()  # as in another process
    [problem] = problems_of(root=str(root), size=36)
    assert "8 images are of other sizes than their annotations say" in problem.message
    assert "it has 24x36 pixels, as EXIF data turn it, and the annotations say 36x24" in problem.message
    with unchecked(), pytest.raises(UserError, match="the annotations say 36x24"):
        COCO(root=str(root), size=35).load()


def change(root: Path, how: Callable[[Content], object], which: str = "train2017") -> None:
    """Change an annotation file."""
    path = root / "annotations" / f"instances_{which}.json"
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def box_of(*box: Any) -> Callable[[Content], object]:
    """Give the annotation with the id 1 another box."""
    return lambda content: content["annotations"][-1].__setitem__("bbox", list(box))


def annotation(**values: Any) -> Callable[[Content], object]:
    """Change the annotation with the id 1."""
    return lambda content: content["annotations"][-1].update(values)


def drop(key: str) -> Callable[[Content], object]:
    return lambda content: content["annotations"][-1].pop(key)


FIRST = "train2017/000000000000.jpg: instances_train2017.json: "
"""The image with the first annotation is 36 pixels wide and 24 high."""


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (box_of(36, 3, 4, 4), "1 box lies outside of its image: train2017"),
        (box_of(3, -9, 4, 8), f"{FIRST}annotation 1 with the box [3, -9, 4, 8], and the image has 36x24 pixels"),
        (box_of(30, 3, 7.5, 4), "1 box ends beyond its image: "),
        (box_of(-1.5, 3, 7.5, 4), "1 box ends beyond its image: "),
        (box_of(3, 3, 0, 4), "1 box has no area: "),
        (box_of(9, 9, -3, 4), "1 box has no area: "),
        (box_of(9, 9, float("nan"), 4), "1 box has a value that is no number: "),
        (box_of(9, 9, 10**400, 4), "1 box ends beyond its image: "),
        (box_of(1e308, 1e308, 1e308, 1e308), "1 box lies outside of its image: "),
        (box_of(1e20, 9, 5, 4), "1 box lies outside of its image: "),
        (box_of(9, 9, 4), f"{FIRST}annotations[%d] has the box [9, 9, 4]; a box is [x, y, width, height]"),
        (box_of(9, 9, None, 4), "annotations[%d] has the box [9, 9, None, 4]"),
        (drop("bbox"), "annotations[%d] has no bbox"),
        (drop("image_id"), "1 annotation is malformed: instances_train2017.json: annotations[%d] has no image_id"),
        (annotation(category_id=[1]), "annotations[%d] has the category_id [1]"),
        (annotation(category_id=2), "is of category 2; its categories: 1, 18, 90"),
        (annotation(image_id=1), "1 annotation is of an unknown image: instances_train2017.json: instances_train2017"),
        (annotation(image_id=1), "is of image 1, which its images lack"),
        (annotation(id=2), "1 annotation repeats an id: "),
        (annotation(iscrowd="yes"), f"{FIRST}annotations[%d] has the iscrowd 'yes'; it is 0, or 1 for a crowd"),
        (annotation(iscrowd=2), "1 annotation is malformed: "),
        (annotation(iscrowd=[1]), "annotations[%d] has the iscrowd [1]"),
        (annotation(iscrowd=None), "annotations[%d] has the iscrowd None"),
    ],
)
def test_broken_annotations_are_told_or_left_out(tmp_path: Path, how: Callable[[Content], object], said: str) -> None:
    root = write_coco(tmp_path, 20, 4)
    whole = COCO(root=str(root), size=12)
    count = len(whole._listing.boxes)
    change(root, how)
    listing_of.cache_clear()
    last = len(json.loads((root / "annotations" / "instances_train2017.json").read_text())["annotations"]) - 1
    [problem] = problems_of(root=str(root), size=12)
    assert (said % last if "%d" in said else said) in problem.message and problem.key == "root"
    assert "skip_broken: true leaves it out" in problem.hint and len(problem.items) == 1
    skipping = COCO(root=str(root), size=12, skip_broken=True)
    assert len(skipping._listing.boxes) == count - 1
    assert skipping._listing.row == whole._listing.row
    [ignored] = skipping.ignored
    assert ignored.startswith("1 ") and " that " in ignored


@pytest.mark.parametrize("crowd", [True, False])
def test_a_crowd_may_be_told_by_true(tmp_path: Path, crowd: bool) -> None:
    root = write_coco(tmp_path, 20, 4)
    change(root, annotation(iscrowd=int(crowd)))
    wanted = COCO(root=str(root), size=12)._listing.boxes.ignored
    change(root, annotation(iscrowd=crowd))
    listing_of.cache_clear()
    assert COCO(root=str(root), size=12)._listing.boxes.ignored.tolist() == wanted.tolist()


def test_a_box_that_ends_a_pixel_beyond_its_image_is_clipped(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    change(root, box_of(-1, 3, 38, 4))
    data = COCO(root=str(root), size=36)
    [rows] = data._targets_of(Items([FIRST.split(":")[0]], np.zeros(1)))["boxes"]
    assert (0.0, 9.0, 36.0, 13.0) in [row[:4] for row in real(rows)]


def test_a_missing_image_is_told_or_left_out(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    (root / "train2017" / "000000000003.jpg").unlink()
    [problem] = problems_of(root=str(root), size=12)
    assert "1 image is not there: train2017/000000000003.jpg: there is no such file" in problem.message
    noise(3, shape_of(3)).save(root / "train2017" / "000000000003.jpg")
    assert sum(COCO(root=str(root), size=12).describe().sizes.values()) == 24  # it was there again
    listing_of.cache_clear()
    (root / "train2017" / "000000000003.jpg").unlink()
    data = COCO(root=str(root), size=12, skip_broken=True)
    assert sum(data.describe().sizes.values()) == 23
    assert data.ignored == ("1 image that is not there (train2017/000000000003.jpg)",)
    images = {name for split in data.files() for name in data.names(split)}
    for name in images:
        (root / name).unlink()
    listing_of.cache_clear()
    dataset._usable.cache_clear()
    [problem] = problems_of(root=str(root), size=12, skip_broken=True)
    assert "such as 000000000000.jpg, are not in annotations, train2017, train, images/train2017" in problem.message


def test_all_kinds_of_faults_are_told_at_once_and_inspection_shows_each(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)

    def spoil(content: Content) -> None:
        annotations = content["annotations"]
        for number in range(4):
            annotations[number]["bbox"] = [90, 90, 5, 5]
        annotations[-1]["category_id"] = 5
        annotations[-2]["image_id"] = 5

    change(root, spoil)
    (root / "val2017" / "000000000021.jpg").unlink()
    problems = problems_of(root=str(root), size=12)
    assert len(problems) == 4 and {len(problem.items) for problem in problems} == {1, 4}
    assert "and 1 more" in next(problem.message for problem in problems if len(problem.items) == 4)
    with unchecked():
        data = COCO(root=str(root), size=12)
    findings = inspect_dataset(data, lambda *_: None)
    assert findings.is_broken and "val2017/000000000021.jpg" in findings.broken
    assert "is of image 5" in findings.broken["instances_train2017.json"]
    assert sum("[90, 90, 5, 5]" in why for why in findings.broken.values()) >= 1
    reasons = "\n".join(findings.broken.values())
    assert "the box lies outside of its image: instances_train2017.json: annotation " in reasons
    assert "the box is of an unknown class: instances_train2017.json: annotation 1 with" in reasons
    assert "the annotation is of an unknown image: " in findings.broken["instances_train2017.json"]
    assert findings.broken["val2017/000000000021.jpg"] == "the image is not there: there is no such file"
    data = COCO(root=str(root), size=12, skip_broken=True)
    findings = inspect_dataset(data, lambda *_: None)
    assert not findings.is_broken
    assert sum(note.startswith("ignored: ") for note in findings.notes) == 4
    [note] = [note for note in findings.notes if "by the boxes" in note]
    assert "person " in note and "cup " in note
    assert findings.counts["test"] == {"images with boxes": 3} and findings.imbalance is None


def test_images_without_sizes_are_opened(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    wanted = COCO(root=str(root), size=12).load()[0].targets["boxes"]
    for which in ("train2017", "val2017"):
        change(root, lambda content: [image.pop("width") for image in content["images"]], which)
    listing_of.cache_clear()
    assert COCO(root=str(root), size=12).load()[0].targets["boxes"].equal(wanted)
    noise(1).save(root / "train2017" / "noise.png")
    (root / "train2017" / "000000000003.jpg").write_bytes(b"nothing")
    listing_of.cache_clear()
    [problem] = problems_of(root=str(root), size=12)
    assert "1 image cannot be opened: train2017/000000000003.jpg: it is not an image" in problem.message
    assert len(COCO(root=str(root), size=12, skip_broken=True)._listing.row) == 23


def test_no_box_at_all_is_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    change(root, lambda content: content["annotations"].clear())
    [problem] = problems_of(root=str(root), size=12)
    assert problem.message.endswith("no training image has a box")


def test_why_no_box_is_left_is_told(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)

    def spoil(content: Content) -> None:
        for each in content["annotations"]:
            each.update({"bbox": [90, 90, 5, 5]} if each["id"] > 3 else {"iscrowd": 1})

    change(root, spoil)
    change(root, lambda content: content["annotations"][0].update(bbox=[1, 1, 0, 0]), "val2017")
    count = len(json.loads((root / "annotations" / "instances_train2017.json").read_text())["annotations"])
    [problem] = problems_of(root=str(root), size=12, skip_broken=True)
    wanted = "no training image has a box; 3 boxes are crowds, or difficult, and not learnt from; left out: "
    assert f"{wanted}{count - 3} boxes that lie outside of their images (train2017/" in problem.message
    assert "no area" not in problem.message and problem.hint == "there is nothing to learn"


@pytest.mark.parametrize(
    ("write", "kind"), [(write_coco, "coco"), (write_yolo, "yolo"), (write_voc_boxes, "voc_detection")]
)
def test_a_trial_trains_on_them(tmp_path: Path, write: Callable[[Path, int, int], Path], kind: str) -> None:
    root = write(tmp_path, 24, 12)
    trial = TrialConfig.model_validate(
        {
            "task": {"kind": "detection"},
            "data": {"kind": kind, "root": str(root), "size": 32, "augment": {"flip": True, "zoom": 1.5}},
            "model": {"kind": "yolo", "width": 8},
            "epochs": 1,
            "seed": 0,
        }
    )
    reports: list[dict[str, Any]] = []
    objective = Objective(metric="val_map", mode="max")
    fit(trial, objective, lambda metrics, save: reports.append(metrics), device=torch.device("cpu"))
    [report] = reports
    assert report["train_loss"] > 0 and 0 <= report["val_map"] <= 1
