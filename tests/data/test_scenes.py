import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tuner.data import MNISTScenes
from tuner.data.images import _train_and_validation
from tuner.data.scenes.composition import compose
from tuner.errors import mistakes_in
from tuner.train.trial_config import TrialConfig

SMALL = {"source": "digits", "scenes": 60, "validation": 20, "test": 20}


def squares(count: int, clutter: int = 0, sides: tuple[int, int] = (10, 10), most: int = 3) -> tuple[Tensor, Tensor]:
    """Scenes of filled squares, each of the class of its index."""
    shapes = torch.full((4, 28, 28), 255, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    scenes = compose(shapes, torch.arange(4), count, rng, side=40, most=most, sides=sides, clutter=clutter)
    return scenes.images, scenes.masks


def test_a_mask_is_where_a_digit_is() -> None:
    images, masks = squares(600, most=1)
    assert images.shape == (600, 3, 40, 40) and masks.shape == (600, 40, 40)
    sizes = (masks > 0).sum(dim=(1, 2))
    assert set(sizes.tolist()) == {0, 100}, "a scene has one square of 10 pixels, or none"
    assert set(masks.flatten().tolist()) == {0, 1, 2, 3, 4}
    grey = images.float().mean(dim=1) / 255
    for image, mask in zip(grey[sizes > 0][:50], masks[sizes > 0][:50], strict=True):
        inside = image[mask > 0]
        assert inside.std() < 0.05, "one colour, and its noise"
        ring = torch.nn.functional.max_pool2d((mask > 0).float()[None], 3, 1, 1)[0].bool() & (mask == 0)
        assert (inside.mean() - image[ring].mean()).abs() > 0.1, "told from what is beside it"


def test_what_is_in_front_hides_what_is_behind() -> None:
    _, masks = squares(300, most=40)
    crowded = masks[(masks > 0).float().mean(dim=(1, 2)) > 0.7]
    assert len(crowded) > 20
    areas = [(mask == number).sum() for mask in crowded for number in range(1, 5)]
    assert any(area % 100 for area in areas)


def test_boxes_are_those_of_what_is_visible() -> None:
    shapes = torch.full((4, 28, 28), 255, dtype=torch.uint8)
    scenes = compose(shapes, torch.arange(4), 400, np.random.default_rng(0), side=40, most=6, sides=(8, 20), clutter=3)
    assert scenes.boxes.shape == (400, 6, 6)
    kept = 0
    for mask, boxes in zip(scenes.masks, scenes.boxes, strict=True):
        known = boxes[boxes[:, 4] >= 0]
        classes = known[:, 4].long()
        for number in range(4):
            pixels = (mask == number + 1).nonzero()
            assert len(pixels) == 0 or (classes == number).any()
            of_class = known[classes == number]
            if len(of_class) == 1:  # alone of its class: its box is around all pixels of that class
                top, left = pixels.min(dim=0).values.tolist()
                bottom, right = (pixels.max(dim=0).values + 1).tolist()
                assert of_class[0, :4].tolist() == [left, top, right, bottom]
                area = (right - left) * (bottom - top)
                kept += area == len(pixels)
    assert kept > 100
    assert {*scenes.boxes[..., 5].flatten().tolist()} == {0, 1}, "some are nearly hidden"
    assert (scenes.boxes[..., 4] == -1).all(dim=1).any(), "some scenes have none"


def test_sizes_are_within_their_bounds_and_clutter_is_background() -> None:
    images, masks = squares(300, clutter=8, sides=(8, 16), most=1)
    areas = {int(area) for area in (masks > 0).sum(dim=(1, 2)) if area}
    assert areas <= {side**2 for side in range(8, 17)} and {64, 256} <= areas
    empty = images[(masks == 0).all(dim=(1, 2))].float()
    plain = squares(300, clutter=0, sides=(8, 16), most=1)
    without = plain[0][(plain[1] == 0).all(dim=(1, 2))].float()
    assert empty.std(dim=(2, 3)).mean() > 1.2 * without.std(dim=(2, 3)).mean()


def test_the_source_may_be_replaced_where_mnist_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        "tuner.data.mnist.first_that_answers", lambda urls: (_ for _ in ()).throw(OSError("no network"))
    )
    data = MNISTScenes(offline="digits", scenes=20, validation=10, test=10)
    assert not data.is_available and "mnist" in data.location()
    used, message = data.prepare()
    assert used.model_dump()["source"] == "digits" and "no network" in message and used.is_available
    assert used.describe().digest != data.describe().digest
    assert len(used.load()[0]) == 20


def test_it_is_a_dataset_of_masks() -> None:
    _train_and_validation.cache_clear()
    data = MNISTScenes(**SMALL, limit=30)
    train, validation = data.load()
    assert (len(train), len(validation), len(data.load_test())) == (30, 20, 20)
    counts = data.class_counts()["mask"]
    assert counts.samples == 30 * 64 * 64 == sum(counts.counts) and counts.counts[0] > counts.samples / 2
    assert data.targets["mask"].names(train.targets["mask"][0])[0] == "background"
    mean, std = (getattr(train.images.float() / 255, name)().item() for name in ("mean", "std"))
    assert abs(mean - data.image.mean[0]) < 0.06 and abs(std - data.image.std[0]) < 0.06


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"smallest": 50}, "smallest: 50 is more than largest, 40"),
        ({"largest": 80}, "largest: 80 is more than the side of a scene, 64"),
    ],
)
def test_sizes_that_do_not_fit_are_told(fields: dict[str, int], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        MNISTScenes(**fields)


def trial(**parts: object) -> TrialConfig:
    whole = {
        "task": {"kind": "semantic_segmentation"},
        "data": SMALL | {"kind": "mnist_scenes"},
        "model": {"kind": "unet"},
    }
    return TrialConfig.model_validate(whole | parts)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"model": {"kind": "cnn"}}, "cnn has other outputs, and the task needs one for each pixel"),
        ({"task": {"kind": "classification"}}, "the data has no target 'label'"),
        (
            {"data": SMALL | {"kind": "mnist_scenes", "augment": {"policy": "rand"}}},
            "rand moves images, but not their masks",
        ),
    ],
    ids=["model", "task", "policy"],
)
def test_parts_that_do_not_fit_masks_are_told(parts: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)) as refused:
        trial(**parts)
    if "model" in parts:
        assert mistakes_in(refused.value)[0].hint == "allowed: unet, yolo, torchvision, import"


def test_a_loss_of_pixels_does_not_fit_labels() -> None:
    parts = {"task": {"kind": "semantic_segmentation", "target": "label"}, "data": {"kind": "digits"}}
    with pytest.raises(ValidationError, match="pixel_cross_entropy does not fit the target 'label'"):
        trial(**parts)
