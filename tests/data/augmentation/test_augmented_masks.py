"""Augmentation of images with masks, whose pixels stay those of their images."""

from typing import Any

import pytest
import torch

from tuner.data.augmentation import Augment
from tuner.errors import Mistakes
from tuner.interfaces import IGNORED, Batch, ImageShape, Target

MASK = {"mask": Target(10, per_pixel=True)}


def with_mask(count: int = 40, side: int = 12) -> Batch:
    """Images whose first channel says what their mask is, none of it black: class 1 is 0.1, class 9 is 0.9."""
    classes = torch.randint(1, 10, (count, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = (classes / 10).unsqueeze(1).expand(-1, 3, -1, -1)
    return Batch(images.contiguous(memory_format=torch.channels_last), {"mask": classes})


def moved(given: Batch, **fields: Any) -> Batch:
    torch.manual_seed(0)
    return Augment(**fields)(given, MASK)


@pytest.mark.parametrize("fields", [{"flip": True}, {"shift": 3}, {"flip": True, "shift": 2}], ids=str)
def test_a_mask_moves_with_its_image(fields: dict[str, Any]) -> None:
    given = with_mask()
    found = moved(given, **fields)
    mask, shown = found.targets["mask"], found.inputs[:, 0] * 10
    assert mask.dtype == torch.uint8 and not torch.equal(mask, given.targets["mask"])
    outside = shown < 0.5
    assert (mask[outside] == IGNORED).all() and outside.any() == ("shift" in fields)
    torch.testing.assert_close(shown[~outside], mask[~outside].float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "fields", [{"crop": 0.3}, {"rotation": 90.0}, {"crop": 0.5, "rotation": 30.0, "flip": True}], ids=str
)
def test_a_mask_is_resampled_as_its_image(fields: dict[str, Any]) -> None:
    corner = torch.zeros(30, 32, 32, dtype=torch.uint8)
    corner[:, :14, 8:] = 1
    given = Batch((0.2 + 0.7 * corner).unsqueeze(1).contiguous(memory_format=torch.channels_last), {"mask": corner})
    found = moved(given, **fields)
    mask, shown = found.targets["mask"], found.inputs[:, 0]
    known = mask != IGNORED
    assert torch.equal(known, shown > 0.1)
    agree = (mask == 1) == (shown > 0.55)
    assert agree[known].float().mean() > 0.99
    assert not torch.equal(mask, corner)


def test_cutmix_pastes_masks_as_it_pastes_images_and_mixup_blends_both_losses() -> None:
    given = with_mask()
    cut = moved(given, cutmix=1.0)
    assert torch.equal((cut.inputs[:, 0] * 10).round().to(torch.uint8), cut.targets["mask"])
    assert not torch.equal(cut.targets["mask"], given.targets["mask"])
    assert cut.mixed is not None and torch.equal(cut.mixed.targets["mask"], cut.targets["mask"])
    blended = moved(given, mixup=1.0)
    assert torch.equal(blended.targets["mask"], given.targets["mask"]) and blended.mixed is not None
    assert not torch.equal(blended.mixed.targets["mask"], given.targets["mask"])


def test_colours_and_erased_rectangles_leave_masks_as_they_are() -> None:
    given = with_mask()
    assert torch.equal(moved(given, color=0.5, hue=0.2, erase=1.0).targets["mask"], given.targets["mask"])


def test_a_policy_that_cannot_move_masks_is_refused() -> None:
    with pytest.raises(Mistakes, match="trivial moves images, but not their masks"):
        Augment(policy="trivial").check(ImageShape(3, 8, 8, (0.5,) * 3, (0.2,) * 3), MASK, 2)


def test_a_policy_that_cannot_move_several_kinds_of_targets_lists_them() -> None:
    targets = MASK | {"boxes": Target(10, boxes=True), "instances": Target(10, instances=True)}
    with pytest.raises(Mistakes, match=r"not their masks, boxes and instances$"):
        Augment(policy="trivial").check(ImageShape(3, 8, 8, (0.5,) * 3, (0.2,) * 3), targets, 2)
