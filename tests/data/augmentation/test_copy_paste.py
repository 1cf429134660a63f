"""Copy and paste: which pixels and boxes an image gets, and which boxes it loses."""

from typing import Any

import torch
from rectangles import SIDE, are_none, bright
from torch import Tensor

from tuner.data.augmentation import Augment
from tuner.data.augmentation.boxes import Boxes
from tuner.data.augmentation.patches import rectangle
from tuner.interfaces import NO_BOX, Batch, Target

TARGETS = {"boxes": Target(20, boxes=True), "mask": Target(10, per_pixel=True)}
COUNT = 24


def numbered() -> Batch:
    """Images whose pixels say from which image they come, and whether they are of its object: 0.5 more."""
    given = bright(COUNT)
    is_object = given.inputs[:, :1] > 0.6
    numbers = ((1 + torch.arange(COUNT)) / 100).view(-1, 1, 1, 1)
    boxes = given.targets["boxes"].clone()
    boxes[:, 0, 4], boxes[:, 0, 5] = torch.arange(COUNT) % 20, 0
    return Batch((numbers + 0.5 * is_object).expand(-1, 3, -1, -1).contiguous(), {"boxes": boxes})


def with_masks(given: Batch) -> Batch:
    """The same with masks in which every second column of an object is background."""
    is_object = (given.inputs[:, 0] > 0.45) & (torch.arange(SIDE) % 2 == 0)
    return Batch(given.inputs, given.targets | {"mask": (3 * is_object).to(torch.uint8)})


def pasted(given: Batch, seed: int = 0, share: float = 1.0, **fields: Any) -> Batch:
    torch.manual_seed(seed)
    return Augment(copy_paste=share, **fields)(given, {name: TARGETS[name] for name in given.targets})


def inside(box: Tensor) -> Tensor:
    """The pixels in a box, booleans (H, W)."""
    left, top, right, bottom = box[:4].int().tolist()
    found = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    found[top:bottom, left:right] = True
    return found


def test_an_image_gets_an_object_of_another_one_with_its_box() -> None:
    given = numbered()
    own_boxes, hidden = given.targets["boxes"][:, 0], 0
    for seed in range(20):
        result = pasted(given, seed)
        boxes = result.targets["boxes"]
        assert boxes.shape == (COUNT, 4, 6) and boxes.dtype == torch.float32
        givers = []
        for number in range(COUNT):
            numbers = (result.inputs[number, 0] * 100).round().long() % 50 - 1
            [giver] = {*numbers.flatten().tolist()} - {number}
            givers.append(giver)
            region = inside(own_boxes[giver])
            assert torch.equal(numbers == giver, region), "all pixels of the object, and no others"
            rows = boxes[number][boxes[number, :, 4] >= 0]
            assert (rows == own_boxes[giver]).all(dim=1).any()
            own = inside(own_boxes[number])
            share = (own & ~region).sum() / own.sum()
            assert len(rows) == (2 if share >= 0.2 else 1)
            hidden += bool(share < 0.2)
            if share >= 0.2:
                [left] = rows[(rows != own_boxes[giver]).any(dim=1)]
                assert left[4] == own_boxes[number, 4]
                rest = own & ~region
                assert not (rest & ~inside(left)).any(), "the box holds what is left"
                for edge in (0, -1):
                    ys, xs = inside(left).nonzero()[edge].tolist()
                    assert rest[ys].any() and rest[:, xs].any(), "and no more than that"
        assert sorted(givers) == list(range(COUNT)), "each image gives once"
    assert hidden > 5


def test_of_an_object_with_a_mask_its_own_pixels_are_pasted() -> None:
    given = with_masks(numbered())
    for seed in range(10):
        result = pasted(given, seed)
        for number in range(COUNT):
            numbers = (result.inputs[number, 0] * 100).round().long() % 50 - 1
            [giver] = {*numbers.flatten().tolist()} - {number}
            shape = given.targets["mask"][giver] == 3
            assert torch.equal(numbers == giver, shape)
            expected = torch.where(shape, 3, given.targets["mask"][number])
            assert torch.equal(result.targets["mask"][number], expected)
            rows = result.targets["boxes"][number]
            assert (rows[:, 4] >= 0).sum() == 2, "half of the object below is seen between the columns"
            for each in (number, giver):
                assert (rows == given.targets["boxes"][each, 0]).all(dim=1).any()


def test_a_share_of_the_images_gets_something() -> None:
    given = numbered()
    changed = sum(
        int((pasted(given, seed, share=0.25).inputs != given.inputs).flatten(1).any(dim=1).sum()) for seed in range(20)
    )
    assert 0.15 < changed / (20 * COUNT) < 0.35


def test_an_object_is_drawn_from_those_that_are_no_crowd() -> None:
    boxes = bright(400).targets["boxes"][:, :1].repeat(1, 4, 1)
    boxes[:, :, 0] = torch.arange(4.0)
    boxes[:, 0, 5], boxes[:, 1:, 5] = 1, 0
    boxes[:, 3] = torch.tensor(NO_BOX)
    boxes[:50] = torch.tensor(NO_BOX)
    boxes[50:100, :, 5] = 1
    torch.manual_seed(0)
    left, top, right, bottom = Boxes().drawn_object(boxes)
    assert left.shape == (400, 1)
    assert all((edge[:100] == 0).all() for edge in (left, top, right, bottom)), "there is none"
    assert 100 < (left[100:] == 1).sum() < 200 and ((left[100:] == 1) | (left[100:] == 2)).all()


def test_where_there_is_nothing_to_paste_nothing_changes() -> None:
    given = numbered()
    none = Batch(given.inputs, {"boxes": torch.tensor(NO_BOX).repeat(COUNT, 3, 1)})
    result = pasted(none)
    assert torch.equal(result.inputs, given.inputs) and are_none(result.targets["boxes"]).all()
    crowds = given.targets["boxes"].clone()
    crowds[..., 5] = 1
    result = pasted(Batch(given.inputs, {"boxes": crowds}))
    assert torch.equal(result.inputs, given.inputs)
    assert torch.equal(result.targets["boxes"][:, 0], crowds[:, 0]) and are_none(result.targets["boxes"][:, 1:]).all()


def test_one_image_alone_gets_nothing() -> None:
    given = Batch(numbered().inputs[:1], {"boxes": numbered().targets["boxes"][:1]})
    result = pasted(given)
    assert torch.equal(result.inputs, given.inputs) and torch.equal(result.targets["boxes"], given.targets["boxes"])


def test_a_seed_repeats_it() -> None:
    one, again, other = (pasted(numbered(), seed, flip=True) for seed in (1, 1, 2))
    assert torch.equal(one.inputs, again.inputs) and torch.equal(one.targets["boxes"], again.targets["boxes"])
    assert not torch.equal(one.inputs, other.inputs)


def test_pixels_of_a_patch_are_counted_in_each_box() -> None:
    images = torch.zeros(3, 1, 20, 30)
    draw = torch.Generator().manual_seed(0)
    edges = (torch.rand((3, 6, 2, 2), generator=draw) * torch.tensor([30, 20])).sort(dim=2).values.flatten(2)
    start = torch.tensor([[1.0], [5.2], [9.0]])
    patch = rectangle((start, start, start + 11, start + 7.5), images)
    for number in range(3):
        for row in range(6):
            left, top, right, bottom = edges[number, row].round().int().tolist()
            expected = patch.pixels[number, top:bottom, left:right].sum()
            assert patch.counts(edges)[number, row] == expected
    whole = rectangle((0.0, 0.0, 30.0, 20.0), images)
    sides = edges.round()
    assert torch.equal(whole.counts(edges), ((sides[..., 2] - sides[..., 0]) * (sides[..., 3] - sides[..., 1])).long())
