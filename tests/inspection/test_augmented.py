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

from tuner.inspection.augmented import ContactSheet, contact_sheet
from tuner.inspection.pictures import boxes_over
from tuner.interfaces import NO_BOX
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


def test_boxes_are_drawn_around_what_they_are_around() -> None:
    image, boxes = torch.full((1, 60, 80), 0.5), torch.tensor([[10.0, 20, 40, 50, 1, 0], NO_BOX])
    shown = boxes_over(image, boxes, ("cat", "dog"), side=160)
    assert shown.shape == (3, 60, 80) and shown.dtype == torch.float32
    coloured = (shown - 0.5).abs().amax(dim=0) > 0.05
    frame = torch.zeros(60, 80, dtype=torch.bool)
    frame[20:50, 10:40] = True
    frame[21:49, 11:39] = False
    assert coloured[frame].all() and not coloured[:20].any() and not coloured[50:].any()
    assert (coloured & ~frame).any(), "the name of the class is in the box"
    unnamed = boxes_over(image, torch.tensor([[10.0, 20, 18, 28, 1, 0]]), ("cat", "dog"), side=160)
    assert ((unnamed - 0.5).abs().amax(dim=0) > 0.05).sum() == 4 * 7, "where there is room for it"
    other = boxes_over(image, boxes.index_fill(0, torch.tensor([1]), 0), ("cat", "dog"), side=160)
    assert not torch.equal(other, shown), "each class has a colour"
    ignored = boxes_over(image / 5, torch.tensor([[10.0, 20, 40, 50, 1, 1]]), ("cat", "dog"), side=160)
    assert (ignored.amax(dim=0) - ignored.amin(dim=0)).max() == 0, "a box that is ignored is grey"
    assert (ignored[0, frame] > 0.4).all()
    large = boxes_over(torch.full((3, 800, 800), 0.5), boxes * 4, (), side=160)
    assert ((large[:, 180] - 0.5).abs().amax(dim=0) > 0.05)[40:60].sum() == 5, "lines are seen when it is reduced"


def test_boxes_are_on_originals_and_versions() -> None:
    scenes = {"kind": "mnist_scenes", "source": "digits", "scenes": 20, "validation": 5, "test": 5, "digits": 6}
    augment = {"flip": True, "mosaic": 1, "mixup": 1}
    trial = {
        "task": {"kind": "semantic_segmentation"},
        "data": scenes | {"augment": augment},
        "model": {"kind": "unet"},
    }
    config = TrialConfig.model_validate(trial | {"seed": 1})
    made = contact_sheet(config, 3, 2)
    images = config.data.first(3)
    colours = 0
    for number, original in enumerate(made.originals):
        saturation = np.asarray(opened(original.picture).convert("HSV"))[..., 1].astype(int)
        boxes = images.targets["boxes"][number]
        for left, _, right, bottom, _, ignored in boxes[boxes[:, 4] >= 0].int().tolist():
            if not ignored:
                assert (saturation[bottom - 1, left:right] > 100).mean() > 0.8, "a line, which another box may cross"
                colours += 1
    assert colours > 2
    assert len({tile.picture for row in made.versions for tile in row}) == 6
