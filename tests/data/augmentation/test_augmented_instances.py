"""Which object a pixel belongs to, as images are augmented."""

import pytest
import torch
from torch import Tensor

from tuner.data.augmentation import Augment
from tuner.interfaces import Batch, Target
from tuner.interfaces.instances import NUMBERS, boxes_of, classes_of

TARGETS = {"instances": Target(5, instances=True)}


def batch(count: int) -> Batch:
    """Images of which the brightness of a pixel says the class of its object; each has two."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.zeros((count, 24, 24), dtype=torch.int16)
    for image in codes:
        for number in (1, 2):
            top, left = torch.randint(0, 16, (2,), generator=generator).tolist()
            category = int(torch.randint(5, (), generator=generator))
            image[top : top + 8, left : left + 8] = category * NUMBERS + number
    return Batch(brightness(codes), {"instances": codes})


def brightness(codes: Tensor) -> Tensor:
    return ((classes_of(codes) + 1) / 5).float().unsqueeze(1)


@pytest.mark.parametrize("settings", [{"flip": True}, {"cutmix": 1.0}, {"flip": True, "cutmix": 1.0}], ids=str)
def test_they_stay_with_their_pixels(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    given = batch(64)
    changed = Augment.model_validate(settings)(given, TARGETS)
    codes = changed.targets["instances"]
    assert codes.dtype == torch.int16 and not torch.equal(codes, given.targets["instances"])
    torch.testing.assert_close(changed.inputs, brightness(codes))
    if changed.mixed is not None:
        assert torch.equal(changed.mixed.targets["instances"], codes)


@pytest.mark.parametrize("settings", [{"shift": 5}, {"crop": 0.5}, {"rotation": 30}, {"zoom": 1.5}], ids=str)
def test_they_move_with_their_images_and_nothing_comes_from_outside(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    given = batch(64)
    changed = Augment.model_validate(settings)(given, TARGETS)
    codes = changed.targets["instances"]
    known = {*given.targets["instances"].flatten().tolist()}
    assert {*codes.flatten().tolist()} <= known
    # Nearest pixels and interpolated ones differ at edges alone.
    assert ((changed.inputs - brightness(codes)).abs() < 0.01).float().mean() > 0.85


def test_objects_of_images_that_are_mixed_are_not_taken_for_one() -> None:
    torch.manual_seed(0)
    codes = torch.zeros((2, 8, 8), dtype=torch.int16)
    codes[0, :4, :4] = NUMBERS + 1
    codes[1, 4:, 4:] = NUMBERS + 1
    mixed = Augment(mixup=5.0)(Batch(torch.rand(2, 1, 8, 8), {"instances": codes}), TARGETS)
    boxes, _ = boxes_of(mixed.targets["instances"], 3)
    for rows in boxes:
        assert sorted(rows[rows[:, 4] >= 0].tolist()) == [[0, 0, 4, 4, 1, 0], [4, 4, 8, 8, 1, 0]]


def test_objects_of_four_images_are_four_and_stay_with_their_pixels() -> None:
    codes = torch.zeros((5, 24, 24), dtype=torch.int16)
    codes[:, 1:-1, 1:-1] = NUMBERS + 1
    codes[0] = -codes[0]
    torch.manual_seed(0)
    changed = Augment(mosaic=1)(Batch(brightness(codes), {"instances": codes}), TARGETS)
    found = changed.targets["instances"]
    assert found.dtype == torch.int16
    numbers = boxes_of(found, 10)[0]
    assert (numbers[..., 4] == 1).sum(dim=1).tolist() == [4] * 5
    assert numbers[..., 5].sum() == 4, "a crowd stays a crowd, in each image that has a part of it"
    assert ((changed.inputs - brightness(found)).abs() < 0.01).float().mean() > 0.85


def test_numbers_that_are_used_up_leave_objects_out() -> None:
    codes = torch.zeros((2, 8, 8), dtype=torch.int16)
    codes[0, :4] = codes[1, 4:] = NUMBERS + 700
    torch.manual_seed(0)
    mixed = Augment(mixup=5.0)(Batch(torch.rand(2, 1, 8, 8), {"instances": codes}), TARGETS)
    assert torch.equal(mixed.targets["instances"], codes)


def test_the_pixels_of_an_object_are_pasted() -> None:
    given = batch(64)
    torch.manual_seed(0)
    changed = Augment(copy_paste=1)(given, TARGETS)
    codes = changed.targets["instances"]
    torch.testing.assert_close(changed.inputs, brightness(codes))
    before, after = ((boxes_of(each, 9)[0][..., 4] >= 0).sum(dim=1) for each in (given.targets["instances"], codes))
    assert (after > before).sum() > 30, "a new object, where it does not hide one"
