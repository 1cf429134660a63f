"""A folder of images and masks: its layouts, what masks may be, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_files import mask_of, noise, problem_of, write_masks
from PIL import Image
from pydantic import ValidationError

from tuner.data import ImageMaskFolder
from tuner.data.encoded.masks import masked
from tuner.data.loading.source import ALONE
from tuner.errors import UserError
from tuner.inspection.datasets import inspect_dataset
from tuner.interfaces import IGNORED
from tuner.train.trial_config import TrialConfig

CLASSES = ("sky", "road", "car")


def read(root: Path, **fields: Any) -> ImageMaskFolder:
    return ImageMaskFolder(root=str(root), **({"size": 12, "classes": CLASSES} | fields))


def pair(root: Path, name: str, mask: Image.Image, seed: int = 0, suffix: str = "png") -> None:
    """Write an image of noise and a mask of one's own."""
    for folder in ("images", "masks"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    noise(seed, mask.size[::-1]).save(root / "images" / f"{name}.{suffix}")
    mask.save(root / "masks" / f"{name}.{'tif' if mask.mode == 'I' else 'png'}")


def several(root: Path, mask: Image.Image, count: int = 6) -> Path:
    for number in range(count):
        pair(root, f"{number}", mask, number)
    return root


def values(*rows: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(rows, dtype=np.uint8).repeat(6, axis=0).repeat(6, axis=1)


HALVES = values([0, 1], [2, 255])
SIXTEEN = np.array([7, 9, 300] + [0] * 252 + [65535], np.uint16)[HALVES]
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]] + [[255] * 3] * 253, np.uint8)[HALVES]


def test_each_pixel_of_an_image_has_the_class_that_its_mask_says(tmp_path: Path) -> None:
    data = read(write_masks(tmp_path, 20), size=10, resize="squash", channels=3)
    train, validation = data.load()
    assert (len(train), len(validation), len(data.load_test())) == (16, 2, 2)
    for split, images in (("train", train), ("validation", validation), ("test", data.load_test())):
        for name, pixels, mask in zip(data.names(split), images.images, images.targets["mask"], strict=True):
            with Image.open(tmp_path / name) as picture:
                wide = np.asarray(picture)
            expected = Image.fromarray(mask_of(wide)).resize((10, 10), Image.Resampling.NEAREST)
            assert pixels.shape == (3, 10, 10) and np.array_equal(mask, np.asarray(expected))
    assert data.targets["mask"].classes == CLASSES


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_masks_are_resized_as_their_images(tmp_path: Path, resize: str) -> None:
    """A mask and an image of the same regions stay on one another, and padding is unknown."""
    regions = np.zeros((60, 90), dtype=np.uint8)
    regions[10:35, 20:70] = 1
    regions[45:, 60:] = 2
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(4):
        Image.fromarray(np.array([40, 120, 200], np.uint8)[regions]).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(regions).save(tmp_path / "masks" / f"{number}.png")
    data = read(tmp_path, size=30, resize=resize, channels=1)
    image, mask = data.load()[0].images[0, 0], data.load()[0].targets["mask"][0]
    shown = torch.full_like(mask, IGNORED)
    for number, grey in enumerate((40, 120, 200)):
        shown[(image.int() - grey).abs() < 30] = number
    assert (shown == mask).float().mean() > 0.9
    assert (mask == IGNORED).any() == (resize == "pad")


@pytest.mark.parametrize(
    ("mask", "fields"),
    [
        (Image.fromarray(HALVES), {}),
        (Image.fromarray(HALVES.astype(np.int32)), {}),
        (Image.fromarray(SIXTEEN), {"classes": {"sky": 7, "road": 9, "car": 300}, "ignore": (65535,)}),
        (
            Image.fromarray(COLOURS),
            {"classes": {"sky": [0, 0, 0], "road": [128, 64, 128], "car": [0, 0, 142]}, "ignore": [[255] * 3]},
        ),
    ],
    ids=["grey", "32 bits", "16 bits", "colours"],
)
def test_what_a_mask_may_be(tmp_path: Path, mask: Image.Image, fields: dict[str, Any]) -> None:
    data = read(several(tmp_path, mask), **fields)
    for found in data.load()[0].targets["mask"]:
        assert np.array_equal(found, HALVES)
    [counts] = data.class_counts().values()
    assert counts.counts == (4 * 36, 4 * 36, 4 * 36) and counts.samples == 4 * 108


@pytest.mark.parametrize("content", [list(CLASSES), {"sky": 0, "road": 1, "car": 2}], ids=["list", "codes"])
def test_classes_stand_in_a_file_of_the_folder_or_elsewhere(tmp_path: Path, content: Any) -> None:
    root = several(tmp_path / "data", Image.fromarray(HALVES))
    (root / "classes.json").write_text(json.dumps(content))
    assert read(root, classes=None).targets["mask"].classes == CLASSES
    (root / "classes.json").rename(tmp_path / "names.json")
    assert read(root, classes=str(tmp_path / "names.json")).targets["mask"].classes == CLASSES


@pytest.mark.parametrize("outside", [True, False], ids=["images/train", "train/images"])
def test_sets_may_be_folders(tmp_path: Path, outside: bool) -> None:
    for split, count in (("train", 5), ("val", 2), ("testing", 3)):
        for number in range(count):
            image, mask = noise(number * 10 + count), Image.fromarray(np.zeros((12, 10), np.uint8))
            for kind, picture in (("images", image), ("masks", mask)):
                folder = tmp_path / (f"{kind}/{split}" if outside else f"{split}/{kind}") / "town"
                folder.mkdir(parents=True, exist_ok=True)
                picture.save(folder / f"{number}.png")
    assert read(tmp_path).describe().sizes == {"train": 5, "validation": 2, "test": 3}
    assert read(tmp_path, validation="testing", test=0.4).describe().sizes == {"train": 3, "validation": 3, "test": 2}


def test_masks_may_have_a_suffix_and_another_type_of_file(tmp_path: Path) -> None:
    root = several(tmp_path, Image.fromarray(HALVES))
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    for path in list((root / "images").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    pair(root, "alone", Image.fromarray(HALVES))
    (root / "masks" / "alone.png").rename(root / "masks" / "alone_mask.png")
    (root / "images" / "alone.png").unlink()
    data = read(root, mask_suffix="_mask")
    assert sum(data.describe().sizes.values()) == 6
    assert "1 mask without an image (masks/alone_mask.png)" in data.ignored


def test_a_camera_s_rotation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    root = several(tmp_path, Image.fromarray(values([0, 1], [2, 255], [1, 1])))
    for path in list((root / "images").iterdir()):
        Image.open(path).rotate(90, expand=True).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    assert not read(root, resize="squash", size=18).load()[0].targets["mask"][0][:6, :9].any()


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_images_and_masks_of_a_batch_belong_together_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "cache"))
    data = read(write_masks(tmp_path / "data", 24, size=(12, 12)), cache=cache)
    with data.opened(torch.device("cpu"), ALONE) as (train, validation):
        assert train.image_bytes == validation.image_bytes >= 3 * 12 * 12
        for source in (train, validation.first(2)):
            batch = next(iter(source.batches(8, 1)))
            assert batch.inputs.shape[1:] == (3, 12, 12) and batch.targets["mask"].dtype == torch.uint8
            channels = (batch.inputs.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
            assert np.array_equal(mask_of(channels), batch.targets["mask"])


def test_a_changed_mask_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "cache"))
    root = several(tmp_path / "data", Image.fromarray(HALVES))
    digests = {read(root).describe().digest, read(root, ignore=(255, 7)).describe().digest}

    def first() -> set[int]:
        from tuner.data.encoded import cached
        from tuner.data.encoded.masks import listing

        cached._file.cache_clear()
        listing.listing_of.cache_clear()
        with read(root, cache="disk").opened(torch.device("cpu"), ALONE) as (train, _):
            return {value for batch in train.batches(8) for value in batch.targets["mask"].flatten().tolist()}

    assert first() == {0, 1, 2, 255}
    for path in (root / "masks").iterdir():
        Image.fromarray(np.zeros_like(HALVES)).save(path)
    assert first() == {0}
    assert len(digests) == 2


def drop(folder: str, name: str) -> Any:
    return lambda root: (root / folder / name).unlink()


def kept(root: Path) -> None:
    """Change nothing."""


def mask_is(mask: Image.Image) -> Any:
    return lambda root: mask.save(root / "masks" / "0.png")


def folder_of_values(*numbers: int) -> Any:
    """Give all masks these values alone."""

    def spoil(root: Path) -> None:
        pixels = np.resize(np.array(numbers, np.uint8), (12, 12))
        for path in (root / "masks").iterdir():
            Image.fromarray(pixels).save(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "fields", "said", "key"),
    [
        (drop("masks", "3.png"), {}, "1 image has no mask in masks: images/3.png", "root"),
        (lambda root: (root / "masks").rename(root / "labels"), {}, "it has no folder masks", "root"),
        (lambda root: (root / "images").rename(root / "pictures"), {}, "it has no folder images", "root"),
        (lambda root: noise(1).save(root / "images" / "3.jpg"), {}, "have the same name", "root"),
        (kept, {"classes": None}, "the classes are unknown", "classes"),
        (kept, {"classes": ["one"]}, "there is 1 class", "classes"),
        (kept, {"classes": {"a": 0, "b": 0}}, "a and b have the same code, 0", "classes"),
        (kept, {"classes": {"a": 0, "b": [1, 2, 3]}}, "some classes have values, and others colours", "classes"),
        (kept, {"classes": "nowhere.json"}, "nowhere.json is not there", "classes"),
        (kept, {"classes": ["a", "b"]}, "its mask has the values 2, which are those of no class", "classes"),
        (kept, {"ignore": []}, "its mask has the values 255, which are those of no class", "classes"),
        (kept, {"ignore": [0, 1, 2, 255], "classes": [*"abcd"]}, "0 is the code of a", "ignore"),
        (kept, {"ignore": [[0, 0, 1]]}, "(0, 0, 1) is of another sort", "ignore"),
        (kept, {"ignore": 255}, "255 is no list", ""),
        (kept, {"classes": {0: "sky", 1: "road"}}, "0 is no name of a class", ""),
        (kept, {"classes": ["sky", True]}, "true is no name of a class", ""),
        (kept, {"classes": {"a": 0, "b": -2}}, "b: -2 is neither a value nor a colour", ""),
        (kept, {"classes": ["a", "b", "a"]}, "'a' is there twice", ""),
        (folder_of_values(255), {}, "all pixels of 6 masks are unknown", "classes"),
        (
            folder_of_values(0, 255),
            {"classes": ["a", "b"]},
            "the masks have pixels of the first class, and else",
            "classes",
        ),
        (mask_is(Image.new("RGB", (12, 12))), {}, "its mask has several channels (RGB)", "classes"),
        (mask_is(Image.new("L", (5, 12))), {}, "its mask has 5x12 pixels, and the image 12x12", "classes"),
        (lambda root: (root / "masks" / "0.png").write_bytes(b"no"), {}, "its mask cannot be decoded", "classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_told(tmp_path: Path, spoil: Any, fields: dict[str, Any], said: str, key: str) -> None:
    root = several(tmp_path, Image.fromarray(HALVES))
    spoil(root)
    problem = problem_of(ImageMaskFolder, **({"root": str(root), "size": 12, "classes": CLASSES} | fields))
    assert said in problem.message and problem.key == key


def test_inspection_finds_each_broken_mask(tmp_path: Path) -> None:
    data = read(write_masks(tmp_path, 60))
    (tmp_path / "masks" / "7.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"images/7\.png: its mask cannot be decoded"):
        data.load()
    findings = inspect_dataset(data, lambda *_: None)
    assert list(findings.broken) == ["images/7.png"] and "its mask" in findings.broken["images/7.png"]
    noise(7).save(tmp_path / "masks" / "7.png")
    Image.fromarray(mask_of(np.asarray(noise(7)))).save(tmp_path / "masks" / "7.png")
    [note] = [note for note in inspect_dataset(data, lambda *_: None).notes if "by the pixels" in note]
    assert "sky " in note and "car " in note


def test_a_trial_takes_it(tmp_path: Path) -> None:
    root = write_masks(tmp_path, 12)
    data = {"kind": "image_mask_folder", "root": str(root), "size": 12}
    trial = TrialConfig.model_validate(
        {"task": {"kind": "semantic_segmentation"}, "data": data, "model": {"kind": "unet", "levels": 2, "width": 4}}
    )
    assert {"val_miou", "val_boundary_f"} <= set(trial.metrics)
    task = {"kind": "semantic_segmentation", "loss": {"kind": "pixel_dice", "class_weights": [1, 2]}}
    with pytest.raises(ValidationError, match="has 2 weights for 3 classes"):
        TrialConfig.model_validate({"task": task, "data": data, "model": {"kind": "unet"}})


def test_two_folders_of_one_set_are_told_and_loose_images_too(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        several(tmp_path / name, Image.fromarray(HALVES))
    problem = problem_of(ImageMaskFolder, root=str(tmp_path), classes=CLASSES)
    assert "both val/images and valid/images would be the validation set" in problem.message
    inside = tmp_path / "inside"
    for number in range(6):
        pair(inside, f"train/{number}", Image.fromarray(HALVES), number)
    noise(1).save(inside / "images" / "loose.png")
    assert "1 file beside the folders of the sets (loose.png)" in read(inside).ignored


def test_masks_are_sampled_from_the_first_to_the_last(tmp_path: Path) -> None:
    root = several(tmp_path, Image.fromarray(HALVES), 39)
    for number in range(39):
        (root / "images" / f"{number}.png").rename(root / "images" / f"i{number:02}.png")
        (root / "masks" / f"{number}.png").rename(root / "masks" / f"i{number:02}.png")
    read(root)
    Image.fromarray(np.full_like(HALVES, 7)).save(root / "masks" / "i37.png")
    masked._sampled.cache_clear()  # as in another process
    problem = problem_of(ImageMaskFolder, root=str(root), size=12, classes=CLASSES)
    assert "i37.png: its mask has the values 7" in problem.message and len(problem.items) == 1


def test_names_in_another_normal_form_are_the_same(tmp_path: Path) -> None:
    import unicodedata

    root = several(tmp_path, Image.fromarray(HALVES))
    (root / "images" / "0.png").rename(root / "images" / unicodedata.normalize("NFD", "äö.png"))
    (root / "masks" / "0.png").rename(root / "masks" / unicodedata.normalize("NFC", "äö.png"))
    assert sum(read(root).describe().sizes.values()) == 6
