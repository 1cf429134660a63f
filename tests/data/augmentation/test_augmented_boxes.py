"""Augmentation of images with boxes, which stay around what they are around."""

from typing import Any

import pytest
import torch
from rectangles import SIDE, are_none, bright, extent
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from tuner.data.augmentation import Augment
from tuner.data.augmentation.boxes import Boxes
from tuner.data.augmentation.geometry import drawn_maps
from tuner.errors import Mistakes
from tuner.interfaces import NO_BOX, Batch, ImageShape, Target

TARGETS = {"boxes": Target(20, boxes=True)}
MOVES: list[dict[str, Any]] = [
    {"flip": True},
    {"crop": 0.4},
    {"zoom": 2.0},
    {"shift": 9},
    {"flip": True, "crop": 0.5, "zoom": 1.5, "shift": 4},
]


def changed(given: Batch, seed: int = 0, **fields: Any) -> Batch:
    torch.manual_seed(seed)
    return Augment(**fields)(given, TARGETS)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=str)
@pytest.mark.parametrize("fields", MOVES, ids=str)
def test_a_box_stays_around_its_object(fields: dict[str, Any], size: tuple[int, int]) -> None:
    given = bright(400, *size)
    result = changed(given, **fields)
    boxes, white = result.targets["boxes"], result.inputs[:, 0] > 0.6
    assert boxes.dtype == torch.float32 and boxes.shape == (400, 2, 6)
    assert are_none(boxes[:, 1]).all(), "padding stays padding"
    kept = boxes[:, 0, 4] == 7
    assert are_none(boxes[~kept, 0]).all() and kept.sum() > 200
    assert torch.equal(boxes[kept, 0, 5], given.targets["boxes"][kept, 0, 5]), "crowds stay crowds"
    torch.testing.assert_close(boxes[kept, 0, :4], extent(white[kept]), atol=1.01, rtol=0)
    assert boxes.min() >= -1 and (boxes[..., [0, 2]] <= size[1]).all() and (boxes[..., [1, 3]] <= size[0]).all()
    if fields != {"flip": True}:
        assert not torch.equal(boxes[:, 0, 2:4] - boxes[:, 0, :2], given.targets["boxes"][:, 0, 2:4])


@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=str)
def test_a_box_holds_its_object_after_a_rotation(size: tuple[int, int]) -> None:
    result = changed(bright(400, *size), rotation=180.0, zoom=1.2)
    boxes, white = result.targets["boxes"][:, 0], result.inputs[:, 0] > 0.6
    kept = boxes[:, 4] == 7
    slack = (boxes[kept, :4] - extent(white[kept])) * torch.tensor([-1, -1, 1, 1])
    assert slack.min() > -0.75, "nothing of it is outside of its box"
    height, width = size
    edges = boxes[kept, :4]
    is_whole = (edges[:, :2] > 0).all(dim=1) & (edges[:, 2] < width) & (edges[:, 3] < height)
    assert slack[is_whole].max() < 2 and is_whole.sum() > 150, "and no more is in the box than has to be"


@pytest.mark.parametrize("fields", [{"crop": 0.4}, {"zoom": 2.0}, {"shift": 20}], ids=str)
def test_a_box_of_which_little_is_left_is_dropped(fields: dict[str, Any]) -> None:
    given = bright(1000)
    result = changed(given, **fields)
    boxes, white = result.targets["boxes"][:, 0], result.inputs[:, 0] > 0.6
    maps = drawn(given, fields)
    left, top, right, bottom = given.targets["boxes"][:, 0, :4].unbind(1)
    scale = 1 / (maps[:, 0, 0] * maps[:, 1, 1]).abs()
    share = white.sum(dim=(1, 2)) / ((right - left) * (bottom - top) * scale)
    kept = boxes[:, 4] == 7
    assert share[kept].min() > 0.12 and share[~kept].max() < 0.28
    assert (~kept).sum() > 10


def drawn(given: Batch, fields: dict[str, Any]) -> Tensor:
    """The maps that `changed` draws."""
    torch.manual_seed(0)
    settings = {"flip": False, "crop": 1.0, "zoom": 1.0, "shift": 0, "rotation": 0.0} | fields
    return drawn_maps(given.inputs, **settings)


def test_boxes_are_flipped_as_torchvision_flips_them() -> None:
    given = bright(60, 48, 80)
    result = changed(given, flip=True)
    boxes = tv_tensors.BoundingBoxes(given.targets["boxes"][:, 0, :4], format="XYXY", canvas_size=(48, 80))
    mirrored = functional.horizontal_flip(boxes)
    is_flipped = (result.inputs != given.inputs).flatten(1).any(dim=1)
    assert 10 < is_flipped.sum() < 50
    torch.testing.assert_close(result.targets["boxes"][is_flipped, 0, :4], mirrored[is_flipped].as_subclass(Tensor))
    torch.testing.assert_close(result.targets["boxes"][~is_flipped], given.targets["boxes"][~is_flipped])


@pytest.mark.parametrize("rotation", [0.0, 35.0, 180.0])
def test_boxes_are_moved_as_torchvision_moves_them(rotation: float) -> None:
    given, size = bright(100, 48, 80), (48, 80)
    maps = drawn(given, {"zoom": 1.5, "rotation": rotation, "shift": 3})
    result = Boxes().moved(given.targets["boxes"], maps, size)
    half = torch.tensor([40.0, 24.0])
    for row in range(100):
        # The map from the image to the result, in pixels from the centre: a rotation, a scale and a translation.
        matrix = torch.linalg.inv(torch.diag(half) @ maps[row, :, :2] @ torch.diag(1 / half))
        scale = matrix.det().sqrt()
        angle = torch.atan2(matrix[1, 0], matrix[0, 0]).rad2deg()
        boxes = tv_tensors.BoundingBoxes(given.targets["boxes"][row, :1, :4], format="XYXY", canvas_size=size)
        offset = (-matrix @ (maps[row, :, 2] * half)).tolist()
        moved = functional.affine(boxes, angle=angle.item(), translate=offset, scale=scale.item(), shear=[0.0, 0.0])
        if result[row, 0, 4] == 7:
            torch.testing.assert_close(result[row, :1, :4], moved.as_subclass(Tensor), atol=0.01, rtol=0)
    assert (result[:, 0, 4] == 7).sum() > 50


def test_what_is_left_stands_before_the_padding() -> None:
    draw = torch.Generator().manual_seed(3)
    given = bright(200)
    corners = torch.rand((200, 8, 2), generator=draw) * 50
    sides = 2 + 12 * torch.rand((200, 8, 2), generator=draw)
    rows = torch.cat(
        [corners, corners + sides, torch.arange(8.0).expand(200, 8).unsqueeze(2), torch.zeros(200, 8, 1)], 2
    )
    boxes = changed(Batch(given.inputs, {"boxes": rows}), crop=0.3).targets["boxes"]
    none = are_none(boxes)
    assert (none.int().diff(dim=1) >= 0).all() and none.any() and not none.all(dim=1).all()
    classes = torch.where(none, 100, boxes[..., 4])
    assert (classes.diff(dim=1) >= 0).all(), "in the order that they had"


def test_a_mirrored_padding_is_a_padding() -> None:
    none = torch.tensor(NO_BOX).repeat(50, 3, 1)
    for fields in (*MOVES, {"rotation": 30.0}, {"mixup": 1.0}, {"cutmix": 1.0}):
        assert are_none(changed(Batch(bright(50).inputs, {"boxes": none}), **fields).targets["boxes"]).all()


def test_a_seed_repeats_boxes() -> None:
    fields = {"flip": True, "crop": 0.5, "zoom": 1.5, "shift": 2, "rotation": 20.0, "cutmix": 1.0}
    one, again, other = (changed(bright(30), seed, **fields).targets["boxes"] for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_colours_and_erased_rectangles_leave_boxes_as_they_are() -> None:
    given = bright(30)
    result = changed(given, color=0.5, hue=0.2, erase=1.0)
    assert torch.equal(result.targets["boxes"], given.targets["boxes"])


def test_a_policy_that_cannot_move_boxes_is_refused() -> None:
    with pytest.raises(Mistakes, match="rand moves images, but not their boxes"):
        Augment(policy="rand").check(ImageShape(3, 8, 8, (0.5,) * 3, (0.2,) * 3), TARGETS, 2)


def test_blended_images_have_the_boxes_of_both() -> None:
    given = bright(40)
    seen = set()
    for seed in range(40):
        result = changed(given, seed, mixup=1.0)
        assert result.mixed is not None
        assert result.mixed.targets["boxes"] is result.targets["boxes"], "the loss is the same for either"
        boxes, share = result.targets["boxes"], result.mixed.share
        own = (boxes[:, 0] == given.targets["boxes"][:, 0]).all(dim=1)
        numbers = (boxes[..., 4] == 7).sum(dim=1)
        weakest = min(share, 1 - share)
        assert (numbers == (1 if weakest < 0.2 else 2)).all()
        assert own.all() if share >= 0.2 else own.sum() < 3
        seen.add(int(numbers[0]))
        for image, rows in zip(result.inputs[:, 0], boxes, strict=True):
            for box in rows[rows[:, 4] == 7]:
                left, top, right, bottom = box[:4].int().tolist()
                assert image[top:bottom, left:right].min() > 0.2 + 0.8 * 0.19, "what has a box is seen"
    assert seen == {1, 2}


@pytest.mark.slow
def test_a_pasted_rectangle_brings_its_boxes_and_hides_others() -> None:
    given = bright(40)
    for seed in range(60):
        result = changed(given, seed, cutmix=1.0)
        assert result.mixed is not None and result.mixed.targets["boxes"] is result.targets["boxes"]
        for image, rows in zip(result.inputs[:, 0] > 0.6, result.targets["boxes"], strict=True):
            boxes = rows[rows[:, 4] == 7]
            assert len(boxes) <= 2
            covered = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            for left, top, right, bottom in boxes[:, :4].int().tolist():
                assert image[top:bottom, left:right].float().mean() > 0.19
                for edge in (image[top], image[bottom - 1]):
                    assert edge[left:right].any(), "the box is no larger than what is left"
                for edge in (image[:, left], image[:, right - 1]):
                    assert edge[top:bottom].any()
                covered[top:bottom, left:right] = True
            assert (image & ~covered).sum() < 0.21 * 2 * 23 * 23, "what has no box is a small rest"


def test_one_image_alone_is_not_mixed() -> None:
    given = bright(1)
    for field in ("mixup", "cutmix"):
        fields: dict[str, Any] = {field: 1.0}
        result = changed(given, **fields)
        assert torch.equal(result.inputs, given.inputs) and torch.equal(result.targets["boxes"], given.targets["boxes"])
