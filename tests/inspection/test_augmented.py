import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import photos
import pytest
import torch
from PIL import Image

from tuner.inspection.augmented import _SIDE, ContactSheet, contact_sheet
from tuner.inspection.pictures import data_uri, over, picture
from tuner.report.contact_sheet import write_contact_sheet
from tuner.train.trial_config import TrialConfig


def sheet(augment: dict[str, Any], rows: int = 3, versions: int = 4, **data: Any) -> ContactSheet:
    trial = {"data": {"kind": "digits", "augment": augment} | data, "model": {"kind": "cnn"}, "seed": 3}
    return contact_sheet(TrialConfig.model_validate(trial), rows, versions)


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_a_row_has_an_image_and_versions_of_it() -> None:
    made = sheet({"rotation": 30, "crop": 0.5})
    assert len(made.originals) == len(made.versions) == len(made.names) == 3
    for original, versions in zip(made.originals, made.versions, strict=True):
        assert len({original.picture, *(each.picture for each in versions)}) == 5, "each is another one"
        assert {each.caption for each in versions} == {original.caption}
        assert opened(original.picture).mode == "L"
        assert opened(original.picture).size == opened(versions[0].picture).size
    assert dict(made.facts)["augment"] == "crop 0.5, rotation 30.0"


def test_it_is_the_same_each_time() -> None:
    assert sheet({"rotation": 30}) == sheet({"rotation": 30})


def test_an_image_that_is_mixed_says_with_what_and_how_much() -> None:
    captions = [each.caption for row in sheet({"mixup": 1.0}).versions for each in row]
    for caption in captions:
        own, _, other = caption.partition(" + ")
        shares = [int(part.split("%")[0]) for part in (own, other)]
        assert sum(shares) in (99, 100, 101)
        assert all(part.split("% ")[1] in list("0123456789") for part in (own, other))


def test_without_augmentation_there_are_no_versions() -> None:
    made = sheet({})
    assert made.versions == [[], [], []]
    assert "as they are" in dict(made.facts)["augment"]


@pytest.mark.parametrize("canvas", [24])
def test_other_targets_are_in_the_caption(canvas: int) -> None:
    assert "position " in sheet({"color": 0.2}, canvas=canvas).originals[0].caption


def test_a_file_of_any_name_is_on_the_page(tmp_path: Path) -> None:
    folder = photos.write(tmp_path / "photos", count=4)
    for label in ("cats", "dogs"):
        for path in (folder / label).iterdir():
            path.rename(os.fsdecode(os.fsencode(path.with_suffix("")) + b"\xff.png"))
    made = sheet({}, kind="image_folder", root=str(folder), size=8)
    assert all(name.endswith(r"\udcff.png") for name in made.names)
    write_contact_sheet(tmp_path / "page.html", made, "name \udcff")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(name in text for name in made.names)
    assert r"name \udcff" in text, "and so is whatever else a page says"


def test_a_sheet_of_few_images_has_few_rows(tmp_path: Path) -> None:
    folder = photos.write(tmp_path / "photos", count=10)
    made = sheet({}, rows=9, kind="image_folder", root=str(folder), size=8, limit=5)
    assert len(made.originals) == len(made.names) == 5


def test_masks_lie_over_their_images_and_move_with_them() -> None:
    scenes = {"kind": "mnist_scenes", "source": "digits", "scenes": 20, "validation": 5, "test": 5, "digits": 6}
    made = contact_sheet(
        TrialConfig.model_validate(
            {
                "task": {"kind": "semantic_segmentation"},
                "data": scenes | {"augment": {"shift": 20}},
                "model": {"kind": "unet"},
                "seed": 1,
            }
        ),
        3,
        2,
    )
    assert all("background" in row.caption for row in made.originals)
    for row, original in zip(made.versions, made.originals, strict=True):
        assert opened(original.picture).mode == "RGB"
        assert len({original.picture, *(each.picture for each in row)}) == 3
    saturation = [np.asarray(opened(each.picture).convert("HSV"))[..., 1].max() for each in made.originals]
    assert max(saturation) > 100, "classes are coloured"


def test_boxes_are_on_originals_and_versions() -> None:
    scenes = {"kind": "mnist_scenes", "source": "digits", "scenes": 20, "validation": 5, "test": 5, "digits": 6}
    augment = {"flip": True, "mosaic": 1, "mixup": 1}
    trial = {
        "task": {"kind": "detection"},
        "data": scenes | {"augment": augment},
        "model": {"kind": "yolo"},
    }
    config = TrialConfig.model_validate(trial | {"seed": 1})
    made = contact_sheet(config, 3, 2)
    images = config.data.first(3)
    colours = 0
    for number, original in enumerate(made.originals):
        saturation = np.asarray(opened(original.picture).convert("HSV"))[..., 1].astype(int)
        times = len(saturation) // config.data.image.height
        boxes = images.targets["boxes"][number] * torch.tensor([times, times, times, times, 1, 1])
        for left, _, right, bottom, _, ignored in boxes[boxes[:, 4] >= 0].int().tolist():
            if not ignored:
                assert (saturation[bottom - 1, left:right] > 100).mean() > 0.6, (
                    "a line, which others and names may cross"
                )
                colours += 1
    assert colours > 2
    assert len({tile.picture for row in made.versions for tile in row}) == 6


def test_what_the_task_does_not_learn_is_not_drawn() -> None:
    scenes = {"kind": "mnist_scenes", "source": "digits", "scenes": 20, "validation": 5, "test": 5}
    made = {}
    for task, model in (("semantic_segmentation", "unet"), ("detection", "yolo"), ("instance_segmentation", "yolo")):
        trial = {"task": {"kind": task}, "data": scenes, "model": {"kind": model}}
        made[task] = [each.picture for each in contact_sheet(TrialConfig.model_validate(trial), 3, 1).originals]
    images = TrialConfig.model_validate(trial).data.first(3)
    pairs = zip(images.images / 255, images.targets["mask"], strict=True)
    assert made["semantic_segmentation"] == [data_uri(picture(over(image, mask), _SIDE)) for image, mask in pairs]
    assert len({tuple(each) for each in made.values()}) == 3
