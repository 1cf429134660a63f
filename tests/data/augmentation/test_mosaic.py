"""Mosaics: what each quarter shows, and which boxes and masks it has."""

import pytest
import torch
from rectangles import SIDE, are_none, bright
from torch import Tensor

from tuner.data.augmentation import Augment
from tuner.interfaces import IGNORED, NO_BOX, Batch, Target

TARGETS = {"boxes": Target(20, boxes=True), "mask": Target(10, per_pixel=True)}


def with_masks(count: int, height: int = SIDE, width: int = SIDE) -> Batch:
    """Images of one rectangle each, whose pixels have the class 7, of crowds and others."""
    given = bright(count, height, width)
    return Batch(given.inputs, given.targets | {"mask": (7 * (given.inputs[:, 0] > 0.6)).to(torch.uint8)})


def composed(given: Batch, share: float = 1.0, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    return Augment(mosaic=share)(given, {name: TARGETS[name] for name in given.targets})


def of_numbers(count: int, height: int = 20, width: int = 30) -> Batch:
    """Images whose pixels are their numbers."""
    numbers = (1 + torch.arange(count)) / (count + 1)
    return Batch(numbers.view(-1, 1, 1, 1).expand(-1, 3, height, width).contiguous(), {})


def numbers_in(image: Tensor, count: int) -> Tensor:
    return (image[0] * (count + 1)).round().long() - 1


def test_an_image_has_a_quarter_of_itself_and_three_others() -> None:
    count = 16
    shown = [numbers_in(image, count) for image in composed(of_numbers(count)).inputs]
    for number, image in enumerate(shown):
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
        assert (
            corners[0] == number and len(set(corners)) == 4 and sorted({*image.flatten().tolist()}) == sorted(corners)
        )
        wide, tall = (image[0] == number).sum().item(), (image[:, 0] == number).sum().item()
        assert 7 <= wide <= 23 and 5 <= tall <= 15
        for corner, part in zip(
            corners, (image[:tall, :wide], image[:tall, wide:], image[tall:, :wide], image[tall:, wide:]), strict=True
        ):
            assert (part == corner).all()
    for corner in ((0, -1), (-1, 0), (-1, -1)):
        assert sorted(int(image[corner]) for image in shown) == list(range(count)), "each is used once at each corner"


def test_a_share_of_the_images_is_composed_and_the_others_are_as_they_were() -> None:
    given = with_masks(400)
    result = composed(given, 0.3)
    is_same = (result.inputs - given.inputs).abs().flatten(1).amax(dim=1) < 1e-4
    assert 240 < is_same.sum() < 320
    boxes = result.targets["boxes"]
    assert boxes.shape == (400, 8, 6)
    torch.testing.assert_close(boxes[is_same, :2], given.targets["boxes"][is_same], atol=1e-3, rtol=0)
    assert are_none(boxes[is_same, 2:]).all()
    assert torch.equal(result.targets["mask"][is_same], given.targets["mask"][is_same])


@pytest.mark.slow
def test_boxes_stay_around_their_objects_and_masks_on_them() -> None:
    for height, width in ((64, 64), (48, 80)):
        result = composed(with_masks(400, height, width))
        white, mask, boxes = result.inputs[:, 0] > 0.6, result.targets["mask"], result.targets["boxes"]
        assert boxes.dtype == torch.float32 and mask.dtype == torch.uint8
        assert not (mask == IGNORED).any() and not (result.inputs < 0.19).any(), "nothing of a mosaic is black"
        assert ((mask == 7) == white).float().mean() > 0.985
        assert 1.5 < (boxes[..., 4] == 7).sum() / 400 < 4
        assert {0.0, 1.0} == set(boxes[boxes[..., 4] == 7][:, 5].tolist()), "crowds stay crowds"
        covered = torch.zeros_like(white)
        for number, rows in enumerate(boxes):
            for left, top, right, bottom in rows[rows[:, 4] == 7, :4].round().int().tolist():
                assert white[number, top:bottom, left:right].float().mean() > 0.7
                assert white[number, top + 1 : bottom - 1, left + 1 : right - 1].all()
                covered[number, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
        assert (white & ~covered).sum() / white.sum() < 0.03, "what has no box is little"


def test_objects_keep_at_least_a_quarter_of_their_size() -> None:
    given = with_masks(300)
    sides = given.targets["boxes"][:, 0, 2:4] - given.targets["boxes"][:, 0, :2]
    found = composed(given).targets["boxes"]
    found = found[found[..., 4] == 7]
    assert (found[:, 2:4] - found[:, :2]).max() <= sides.max() + 1e-3
    assert (found[:, 2:4] - found[:, :2]).median() > 0.4 * sides.median()


def test_a_batch_of_any_size_is_composed_and_a_seed_repeats_it() -> None:
    for count in (1, 2, 3, 5):
        given = with_masks(count)
        one, again, other = (composed(given, seed=seed) for seed in (1, 1, 2))
        assert one.targets["boxes"].shape == (count, 8, 6)
        assert torch.equal(one.inputs, again.inputs) and torch.equal(one.targets["boxes"], again.targets["boxes"])
        assert not torch.equal(one.inputs, other.inputs)


def test_images_without_boxes_give_none() -> None:
    none = torch.tensor(NO_BOX).repeat(10, 1, 1)
    assert are_none(composed(Batch(bright(10).inputs, {"boxes": none})).targets["boxes"]).all()


def test_a_mosaic_is_moved_as_one_image() -> None:
    given = with_masks(200)
    torch.manual_seed(0)
    result = Augment(mosaic=1, flip=True, zoom=1.5, mixup=0.5)(given, TARGETS)
    assert result.mixed is not None and result.targets["boxes"].shape[1] in (8, 16)
    torch.manual_seed(0)
    alone = Augment(mosaic=1, flip=True, zoom=1.5)(given, TARGETS)
    white, boxes = alone.inputs[:, 0] > 0.6, alone.targets["boxes"]
    for number, rows in enumerate(boxes):
        for left, top, right, bottom in rows[rows[:, 4] == 7, :4].round().int().tolist():
            assert white[number, top:bottom, left:right].float().mean() > 0.6
