"""Masks of objects of COCO and Cityscapes: the target `instances`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
import torch
from encoded_files import problem_of, write_cityscapes, write_coco
from PIL import Image
from pydantic import ValidationError

from tuner.data import COCO, Cityscapes
from tuner.data.decoding import Form, fitted
from tuner.data.encoded.boxes.listing import listing_of
from tuner.data.encoded.masks import cityscapes
from tuner.data.encoded.objects.drawing import Object, drawn
from tuner.data.encoded.objects.planes import Planes
from tuner.data.encoded.objects.runs import lengths_of, pixels_of
from tuner.data.encoded.unchecked import unchecked
from tuner.data.loading.source import ALONE
from tuner.errors import Problem, UserError, mistakes_in
from tuner.inspection.augmented import contact_sheet
from tuner.inspection.datasets import inspect_dataset
from tuner.interfaces.instances import NUMBERS, boxes_of
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
Content = dict[str, Any]
LABELS = {1: 0, 18: 1, 90: 2}


pytestmark = pytest.mark.usefixtures("own_data_dir")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    listing_of.cache_clear()  # tests change files behind them
    cityscapes._listing_of.cache_clear()


def content_of(root: Path, which: str) -> Content:
    found: Content = json.loads((root / "annotations" / f"instances_{which}.json").read_text())
    return found


def change(root: Path, how: Callable[[Content], object], which: str = "train2017") -> None:
    content = content_of(root, which)
    how(content)
    (root / "annotations" / f"instances_{which}.json").write_text(json.dumps(content))


def read_by_pycocotools(outline: Any, height: int, width: int) -> Any:
    if isinstance(outline, dict):
        runs = outline
        if isinstance(outline["counts"], list):
            runs = pycocotools.mask.frPyObjects(outline, height, width)
    else:
        runs = pycocotools.mask.merge(pycocotools.mask.frPyObjects(outline, height, width))
    return pycocotools.mask.decode(runs).astype(bool)


def expected(content: Content, name: str) -> Any:
    """The codes of an image: from the largest object on, crowds behind all of them, with the last numbers."""
    image = next(each for each in content["images"] if each["file_name"] == Path(name).name)
    height, width = image["height"], image["width"]
    of_image = [each for each in content["annotations"] if each["image_id"] == image["id"]]
    masks = [read_by_pycocotools(each["segmentation"], height, width) for each in of_image]
    order = np.lexsort(([-mask.sum() for mask in masks], [each["iscrowd"] for each in of_image])).tolist()
    codes = np.zeros((height, width), np.int32)
    for crowds in (1, 0):
        for number, index in enumerate(order, start=1):
            if of_image[index]["iscrowd"] == crowds:
                code = LABELS[of_image[index]["category_id"]] * NUMBERS + number
                codes[masks[index]] = -code if crowds else code
    return codes


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_masks_are_those_of_pycocotools_and_resized_with_their_images(tmp_path: Path, resize: Any) -> None:
    root = write_coco(tmp_path, 40, 20)
    data = COCO(root=str(root), size=21, resize=resize, instances=True)
    assert data.targets["instances"].kind == "instances"
    assert data.targets["instances"].classes == ("person", "dog", "cup")
    plain = COCO(root=str(root), size=21, resize=resize)
    assert set(plain.targets) == {"boxes"} and plain._decoder.shape == (3, 21, 21)
    signs = set()
    for split, images, which in (
        ("train", data.load()[0], "train2017"),
        ("validation", data.load()[1], "train2017"),
        ("test", data.load_test(), "val2017"),
    ):
        content = content_of(root, which)
        assert images.targets["instances"].dtype == torch.int16
        for name, codes in zip(data.names(split), images.targets["instances"], strict=True):
            whole = Image.fromarray(expected(content, name))
            wanted = np.asarray(fitted(whole, Form(3, 21, 21, resize), Image.Resampling.NEAREST))
            assert np.array_equal(codes.numpy(), wanted), name
            signs |= set(np.sign(wanted).ravel().tolist())
    assert signs == {-1, 0, 1}
    assert torch.equal(data.load()[0].images, plain.load()[0].images)
    assert torch.equal(data.load()[0].targets["boxes"], plain.load()[0].targets["boxes"])


def identities(inputs: torch.Tensor, targets: dict[str, torch.Tensor]) -> set[tuple[bytes, ...]]:
    pixels = inputs if inputs.dtype == torch.uint8 else (inputs * 255).round().to(torch.uint8)
    others = [targets[name] for name in sorted(targets)]
    return {tuple(each.numpy().tobytes() for each in row) for row in zip(pixels.contiguous(), *others, strict=True)}


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
@pytest.mark.parametrize("size", [36, 31, (20, 36)], ids=str)
@pytest.mark.parametrize("kind", [COCO, Cityscapes])
def test_every_cache_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, size: Any, kind: Any
) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "cache"))
    root = {COCO: write_coco, Cityscapes: write_cityscapes}[kind](tmp_path / "data", 24, 6)
    data = kind(root=str(root), size=size, cache=cache, instances=True)
    alone = {each for images in data.load() for each in identities(images.images, images.targets)}
    with data.opened(torch.device("cpu"), ALONE) as sets:
        batches = [batch for source in sets for batch in source.batches(7, 1)]
        assert all(set(batch.targets) == set(data.targets) for batch in batches)
        found = {each for batch in batches for each in identities(batch.inputs, batch.targets)}
    assert found == alone and len(found) == 24


def test_a_camera_s_rotation_is_honoured(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 12, 3)
    before = COCO(root=str(root), size=36, instances=True).load()[0].targets["instances"]
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (root / "train2017").iterdir():
        Image.open(path).rotate(90, expand=True).save(path, exif=exif)
    listing_of.cache_clear()
    assert torch.equal(COCO(root=str(root), size=36, instances=True).load()[0].targets["instances"], before)


def outline(value: Any) -> Callable[[Content], object]:
    """Change the mask of the annotation with the id 1, of an image of 36x24 pixels."""
    return lambda content: content["annotations"][-1].__setitem__("segmentation", value)


FIRST = "train2017/000000000000.jpg: instances_train2017.json: annotation 1 with the box"
RUNS = {"size": [24, 36]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], "1 annotation has a broken mask: "),
        ([[1, 2, 3, 4, 5, 6, 7]], "polygon 0 has an odd number of values, 7"),
        ([[9, 9, 9, 9, 9, 9], [1, 2, 3, 4]], "polygon 1 has 4 values, and 3 points have 6"),
        ([[1, 2, 3, 4, 5, None]], "polygon 0 is no list of numbers: [1, 2, 3, 4, 5, None]"),
        ([1, 2, 3, 4, 5, 6], "polygon 0 is no list of numbers: 1"),
        ([[1, 2, 3, 4, 5, float("nan")]], "polygon 0 has a value that is no number"),
        ([[1, 2, 3, 4, 5, 10**400]], "polygon 0 has a value that is no number"),
        ("mask.png", "its segmentation is 'mask.png'"),
        ({"size": [36, 24], "counts": [864]}, "its mask has the size [36, 24], and the image [24, 36]"),
        ({"counts": [864]}, "its mask has the size None, and the image [24, 36]"),
        (RUNS | {"counts": [100, 20]}, "its counts add up to 120 pixels, and the image has 864"),
        (RUNS | {"counts": ":d0"}, "its counts add up to 30 pixels, and the image has 864"),
        (RUNS | {"counts": [900, -36]}, "its counts are neither a text nor a list of numbers from 0 on: [900, -36]"),
        (RUNS | {"counts": "\u20ac"}, "its counts cannot be read: "),
        (RUNS | {"counts": [864]}, "its mask has no pixel"),
        ([], "1 annotation has no mask: "),
        (None, "1 annotation has no mask: "),
        ([[99, 99, 120, 99, 120, 120]], "1 annotation has its mask beside its box: "),
        ([[99, 99, 120, 99, 120, 120]], ": its mask reaches from (99, 99) to (120, 120)"),
    ],
)
def test_broken_masks_are_told_or_left_out(tmp_path: Path, value: Any, said: str) -> None:
    root = write_coco(tmp_path, 20, 4)
    count = len(COCO(root=str(root), size=12, instances=True)._listing.boxes)
    change(root, outline(value))
    listing_of.cache_clear()
    with pytest.raises(ValidationError) as error:
        COCO(root=str(root), size=12, instances=True)
    problem: Problem
    [problem] = mistakes_in(error.value)
    assert said in problem.message and FIRST in problem.message and problem.key == "root"
    assert "skip_broken: true leaves it out" in problem.hint
    assert "boxes" in COCO(root=str(root), size=12).targets, "boxes alone need no masks"
    skipping = COCO(root=str(root), size=12, instances=True, skip_broken=True)
    assert len(skipping._listing.boxes) == count - 1
    assert skipping.ignored[0].startswith("1 annotation that has ")
    with unchecked():
        findings = inspect_dataset(COCO(root=str(root), size=12, instances=True), lambda *_: None)
    assert set(findings.broken) == {"train2017/000000000000.jpg"}


def test_a_file_without_masks_is_for_boxes(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    for which in ("train2017", "val2017"):
        change(root, lambda content: [each.pop("segmentation") for each in content["annotations"]], which)
    problem = problem_of(COCO, root=str(root), size=12, instances=True)
    assert "annotations have no masks: " in problem.message and "for boxes alone" in problem.hint
    trial = {"task": {"kind": "instance_segmentation"}, "data": {"kind": "coco", "root": str(root), "size": 32}}
    with pytest.raises(ValidationError, match="the data has no target 'instances'") as error:
        TrialConfig.model_validate(trial | {"model": {"kind": "yolo"}})
    assert any("data.instances: true" in str(each.hint) for each in mistakes_in(error.value))


def test_other_masks_have_another_digest_and_another_cache(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 20, 4)
    before = COCO(root=str(root), size=12, instances=True)
    digest, settings = before.describe().digest, before._decoder.settings
    assert digest != COCO(root=str(root), size=12).describe().digest
    box = content_of(root, "train2017")["annotations"][-1]["bbox"]
    x, y, width, height = box
    change(root, outline([[x, y, x + width, y, x, y + height]]))
    listing_of.cache_clear()
    after = COCO(root=str(root), size=12, instances=True)
    assert after.describe().digest != digest and after._decoder.settings != settings


def encoded(mask: Any) -> bytes:
    runs = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    found: bytes = runs["counts"]
    return found


def test_smaller_objects_lie_in_front_and_crowds_behind() -> None:
    large, small, crowd = (np.zeros((6, 8), bool) for _ in range(3))
    large[:, :6], small[1:3, 1:3], crowd[0] = True, True, True
    objects = [Object(encoded(small), 2, False), Object(encoded(crowd), 1, True), Object(encoded(large), 0, False)]
    wanted = np.where(large, 1, np.where(crowd, -(NUMBERS + 3), 0))
    wanted[small] = 2 * NUMBERS + 2
    assert np.array_equal(drawn(objects, 6, 8), wanted)
    assert not drawn([], 6, 8).any()


def test_the_smallest_of_too_many_objects_are_left_out() -> None:
    def pixels(start: int, stop: int) -> bytes:
        mask = np.zeros(2400, bool)
        mask[start:stop] = True
        return encoded(mask.reshape(40, 60))

    objects = [Object(pixels(number, number + 1), 1, False) for number in range(30)]
    objects += [Object(pixels(number, number + 2), 0, False) for number in range(30, 2100, 2)]
    assert len(objects) > NUMBERS
    codes = np.unique(drawn(objects, 40, 60))
    assert codes.tolist() == list(range(NUMBERS)), "those of two pixels, and the background"


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 400)], ids=str)
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 1])
def test_runs_are_read_as_pycocotools_writes_them(shape: tuple[int, int], share: float) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random(shape) < share
        lengths = lengths_of(encoded(mask))
        flat = mask.ravel(order="F")
        starts = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
        assert lengths.tolist() == [0] * int(flat[0]) + np.diff(starts).tolist()
        assert np.array_equal(pixels_of(lengths), np.flatnonzero(flat))


@pytest.mark.parametrize("classes", [1, 32, 33, 1203])
@pytest.mark.parametrize("size", [4, 5, 7])
def test_codes_come_back_from_their_planes(classes: int, size: int) -> None:
    planes = Planes(classes)
    largest = classes * NUMBERS - 1
    codes = np.random.default_rng(0).integers(-largest, largest + 1, (3, size, size)).astype(np.int32)
    codes[:, 0, :2] = largest, -largest
    form = Form(3, size, size, "squash")
    decoded = torch.stack(
        [
            torch.from_numpy(np.concatenate([np.ones((3, size, size), np.uint8), planes.of(each, form)]))
            for each in codes
        ]
    )
    assert decoded.shape == (3, 3 + planes.count, size, size) and planes.count == (2 if classes <= 32 else 4)
    for rows in (slice(None), slice(1, 2), slice(1, None)):
        found = planes.codes(decoded[rows, 3:])
        assert np.array_equal(found.numpy(), codes[rows])
        assert found.dtype == (torch.int16 if classes <= 32 else torch.int32)


def test_inspection_counts_objects_and_colours_them(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 40, 6)
    data = COCO(root=str(root), size=36, instances=True)
    notes = inspect_dataset(data, lambda *_: None).notes
    assert any(note.startswith("instances, by the objects of the training images: person ") for note in notes)
    trial = {
        "task": {"kind": "instance_segmentation"},
        "data": {"kind": "coco", "root": str(root), "size": 32, "instances": True, "augment": {"flip": True}},
        "model": {"kind": "yolo"},
    }
    with_masks = contact_sheet(TrialConfig.model_validate(trial), 4, 2)
    trial |= {"task": {"kind": "detection"}, "data": {"kind": "coco", "root": str(root), "size": 32}}
    without = contact_sheet(TrialConfig.model_validate(trial), 4, 2)
    assert [each.caption for each in with_masks.originals] == [each.caption for each in without.originals]
    differ = [one.picture != other.picture for one, other in zip(with_masks.originals, without.originals, strict=True)]
    assert sum(differ) >= 3


def test_cityscapes_has_objects_of_eight_classes(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, 20, 6)
    data = Cityscapes(root=str(root), size=10, instances=True)
    assert set(Cityscapes(root=str(root), size=10).targets) == {"mask"}
    from torchvision.datasets import Cityscapes as Theirs

    labels = [each.id for each in Theirs.classes if each.has_instances and not each.ignore_in_eval]
    assert data.targets["instances"].classes == tuple(each.name for each in Theirs.classes if each.id in labels)
    test = data.load_test()
    assert torch.equal(test.targets["mask"], Cityscapes(root=str(root), size=10).load_test().targets["mask"])
    seen = 0
    for name, codes in zip(data.names("test"), test.targets["instances"].numpy(), strict=True):
        picture = root / name.replace("leftImg8bit/", "gtFine/", 1).replace("_leftImg8bit", "_gtFine_instanceIds")
        ids = np.asarray(Image.open(picture).resize((10, 10), Image.Resampling.NEAREST)).astype(int)
        label = np.where(ids >= 1000, ids // 1000, ids)
        classes = np.array([labels.index(each) if each in labels else -1 for each in range(256)])[label]
        assert np.array_equal(np.where(codes == 0, -1, np.abs(codes) // NUMBERS), classes)
        assert np.array_equal(codes < 0, (classes >= 0) & (ids < 1000))
        pairs = {(code, each) for code, each in zip(codes.ravel(), ids.ravel(), strict=True) if code}
        assert len(pairs) == len({code for code, _ in pairs}) == len({each for _, each in pairs})
        assert len({abs(code) % NUMBERS for code, _ in pairs}) == len(pairs), "each has a number of its own"
        seen += len(pairs)
    assert seen > 20
    rows = boxes_of(data.load()[0].targets["instances"], 200)[0][..., 4]
    assert data.class_counts()["instances"].samples == int((rows >= 0).sum())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "1 image has no mask, such as "),
        (lambda path: path.write_bytes(b"no"), "its picture of objects cannot be decoded"),
        (
            lambda path: Image.fromarray(np.zeros((12, 11), np.uint16)).save(path),
            "its picture of objects has 11x12 pixels, and the image 10x12",
        ),
        (
            lambda path: Image.fromarray(np.full((12, 10), 60001, np.uint16)).save(path),
            "its picture of objects has the values 60001 of no label",
        ),
        (lambda path: Image.new("RGB", (10, 12)).save(path), "its picture of objects has no integers for values (RGB)"),
    ],
)
def test_what_is_wrong_with_objects_of_cityscapes_is_told(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    root = write_cityscapes(tmp_path, 12, 6)
    path = next((root / "gtFine" / "val" / "bonn").glob("*_instanceIds.png"))
    spoil(path)
    assert said in problem_of(Cityscapes, root=str(root), size=10, instances=True).message
    assert "mask" in Cityscapes(root=str(root), size=10).targets, "masks alone do not need it"
    if path.exists():
        with unchecked(), pytest.raises(UserError, match="its picture of objects"):
            Cityscapes(root=str(root), size=10, instances=True).load_test()
