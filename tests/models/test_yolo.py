"""The detector: which place learns which box, what it loses, and what it finds."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, complete_box_iou_loss, generalized_box_iou

from tuner.errors import Mistakes
from tuner.interfaces import NO_BOX, ImageShape, Output
from tuner.interfaces.instances import NUMBERS, boxes_of
from tuner.models import Yolo
from tuner.models.detection.assignment import assign
from tuner.models.detection.boxes import complete_overlap_loss, overlaps
from tuner.models.detection.selection import Selection
from tuner.models.detection.yolo_head import places_of

SIZE = (32, 32)
POINTS = places_of(SIZE, 4)
STRIDES = torch.full((len(POINTS),), 4.0)
IMAGE = ImageShape(3, 64, 64, (0.5,) * 3, (0.25,) * 3)


def target(*boxes: tuple[float, ...]) -> Tensor:
    """One image's boxes, with a row of padding."""
    return torch.tensor([[*boxes, NO_BOX]])


def around(points: Tensor, side: float = 8) -> Tensor:
    """A box around each point, (1, A, 4)."""
    return torch.cat([points - side / 2, points + side / 2], dim=1).unsqueeze(0)


def test_places_are_the_centres_of_squares() -> None:
    places = places_of((8, 12), 4)
    assert places.tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]


def test_overlaps_are_those_of_torchvision() -> None:
    torch.manual_seed(0)
    first, second = (torch.rand(count, 4) * 20 for count in (30, 50))
    for boxes in (first, second):
        boxes[:, 2:] += boxes[:, :2]
    torch.testing.assert_close(overlaps(first[None], second[None])[0], box_iou(first, second))


def test_the_loss_of_boxes_is_torchvision_s_to_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    start, side = torch.rand(400, 2, generator=generator), torch.rand(400, 2, generator=generator)
    boxes = torch.cat([start, start + 0.01 + side], dim=1) * 20
    found, wanted = (
        boxes[:200],
        torch.cat([boxes[200:300], boxes[100:200]]),
    )
    results = []
    for loss in (complete_overlap_loss, partial(complete_box_iou_loss, eps=1e-6)):
        leaf = found.clone().requires_grad_()
        values = loss(leaf, wanted)
        values.sum().backward()
        results.append((values.detach(), leaf.grad))
    assert (box_iou(found, wanted).diagonal() == 0).any(), "some do not overlap"
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_places_that_predict_a_box_best_learn_it() -> None:
    torch.manual_seed(0)
    scores = torch.rand(1, len(POINTS), 3)
    boxes = target((3, 3, 29, 29, 2, 0))
    predicted = around(POINTS, 20) + torch.randn(1, len(POINTS), 4)
    found = assign(scores, predicted, POINTS, STRIDES, boxes)
    learns = found.weights[0] > 0
    assert learns.sum() == 10
    overlap = box_iou(boxes[0, :1, :4], predicted[0])[0]
    inside = ((POINTS > 3) & (POINTS < 29)).all(dim=1)
    rank = scores[0, :, 2] ** 0.5 * overlap**6 * inside
    assert set(learns.nonzero().flatten().tolist()) == set(rank.topk(10).indices.tolist())
    assert found.scores[0, learns][:, :2].sum() == 0, "of its class alone"
    assert found.weights[0].max().item() == pytest.approx(overlap[learns].max().item())
    assert found.weights[0].argmax() == rank.argmax()
    assert (found.boxes[0, learns] == boxes[0, 0, :4]).all()


def test_a_place_learns_the_box_that_it_overlaps_most() -> None:
    boxes = target((0, 0, 20, 20, 0, 0), (8, 8, 28, 28, 1, 0))
    predicted = around(POINTS, 20)
    found = assign(torch.full((1, len(POINTS), 2), 0.5), predicted, POINTS, STRIDES, boxes)
    learns = found.weights[0] > 0
    overlap = box_iou(boxes[0, :2, :4], predicted[0])
    of = found.scores[0].argmax(dim=1)
    assert learns.sum() > 10
    own = overlap.gather(0, of[None])[0]
    shared = ((POINTS > 8) & (POINTS < 20)).all(dim=1) & learns
    assert shared.any() and (own[shared] >= overlap[:, shared].amax(dim=0)).all()


def test_a_box_between_the_places_is_learnt_all_the_same() -> None:
    boxes = target((4.2, 4.2, 5.2, 5.2, 0, 0))
    found = assign(torch.full((1, len(POINTS), 1), 0.1), around(POINTS, 2), POINTS, STRIDES, boxes)
    assert (found.weights > 0).sum() >= 1


def test_padding_is_not_learnt_and_ignored_boxes_count_for_nothing() -> None:
    boxes = target((0, 0, 16, 16, 0, 1), (16, 16, 32, 32, 1, 0))
    found = assign(torch.full((1, len(POINTS), 2), 0.5), around(POINTS, 16), POINTS, STRIDES, boxes)
    learns, counts = found.weights[0] > 0, found.counts[0] > 0
    assert not learns[(POINTS < 16).all(dim=1)].any() and learns.any()
    assert counts.tolist() == (~((POINTS > 0) & (POINTS < 16)).all(dim=1)).tolist()
    nothing = assign(torch.full((1, len(POINTS), 2), 0.5), around(POINTS), POINTS, STRIDES, target())
    assert not nothing.weights.any() and nothing.counts.all()


def test_of_predictions_that_overlap_the_surest_is_kept() -> None:
    edges = torch.tensor([[[0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 9], [20, 20, 40, 40]]]).float()
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.05, 0.6]]])
    found = Selection(most=5, score=0.1, overlap=0.5)(scores, edges, SIZE)
    assert found.shape == (1, 5, 6)
    kept = [[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 9, 0.7, 1], [20, 20, 32, 32, 0.6, 1]]
    torch.testing.assert_close(found[0, :3], torch.tensor(kept))
    assert found[0, 3:].tolist() == [[0, 0, 0, 0, 0, -1]] * 2
    assert Selection(most=1, score=0.1, overlap=0.5)(scores, edges, SIZE)[0, :, 4].tolist() == pytest.approx([0.9])


def trained(model: torch.nn.Module, images: Tensor, boxes: Tensor, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = model.train()(images, {"": boxes}).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def squares(count: int) -> tuple[Tensor, Tensor]:
    """Images with two bright rectangles each, of two classes that differ in colour; the last has none."""
    generator = torch.Generator().manual_seed(0)
    images, boxes = torch.rand(count, 3, 64, 64, generator=generator) * 0.2, torch.tensor(NO_BOX).repeat(count, 2, 1)
    for image, rows in zip(images[:-1], boxes[:-1], strict=True):
        for number in range(2):
            left, top = torch.randint(0, 32, (2,), generator=generator).tolist()
            wide, high = torch.randint(12, 30, (2,), generator=generator).tolist()
            image[number, top : top + high, left : left + wide] = 1
            rows[number] = torch.tensor([left, top, left + wide, top + high, number, 0])
    return images, boxes


@pytest.mark.slow
def test_it_learns_the_boxes_of_its_images() -> None:
    torch.manual_seed(0)
    images, boxes = squares(8)
    model = Yolo(width=8).build(IMAGE, {"": Output(2, boxes=True)})
    losses = trained(model, images, boxes, 150)
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        found = model.eval()(images)
    assert found.shape == (8, 100, 6)
    for rows, true in zip(found[:-1], boxes[:-1], strict=True):
        for number, box in enumerate(true):
            of_class = rows[rows[:, 5] == number]
            assert generalized_box_iou(of_class[:1, :4], box[None, :4]).item() > 0.7
            assert of_class[0, 4] > 0.5
    assert (found[-1, :, 4] < 0.5).all()
    assert (found[..., 4].diff(dim=1) <= 0).all(), "the surest first"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_without_boxes_and_low_precision_have_finite_losses(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Yolo().build(IMAGE, {"": Output(3, boxes=True)})
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        terms = model(torch.rand(2, 3, 64, 64), {"": target().expand(2, -1, -1)})
    assert terms.shape == (2, 3) and terms.dtype is torch.float32 and terms.isfinite().all()
    assert terms[0, 1:].tolist() == [0, 0]
    terms.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_heads_of_the_image_and_of_its_pixels_are_beside_the_boxes() -> None:
    outputs = {"objects": Output(4, boxes=True), "label": Output(7, hidden=5), "mask": Output(3, per_pixel=True)}
    model = Yolo(detections=9).build(IMAGE, outputs)
    shapes = {name: tuple(value.shape) for name, value in model.eval()(torch.rand(2, 3, 64, 64)).items()}
    assert shapes == {"objects": (2, 9, 6), "label": (2, 7), "mask": (2, 3, 64, 64)}


def test_what_has_no_effect_is_told_and_not_searched() -> None:
    with pytest.raises(Mistakes, match="needs no masks"):
        Yolo(mask_gain=1).check(IMAGE, {"": Output(3, boxes=True)})
    Yolo(mask_gain=1).check(IMAGE, {"": Output(3, boxes=True, masks=True)})


def test_it_refuses_what_needs_no_boxes() -> None:
    with pytest.raises(Mistakes, match="needs no boxes"):
        Yolo().check(IMAGE, {"": Output(3)})


@pytest.mark.slow
def test_it_learns_the_masks_of_its_objects() -> None:
    torch.manual_seed(0)
    images, boxes = squares(8)
    instances = torch.zeros((8, 64, 64), dtype=torch.int16)
    for codes, rows in zip(instances, boxes, strict=True):
        for number, (left, top, right, bottom, category, _) in enumerate(rows.int().tolist()):
            if category >= 0:
                codes[top:bottom, left:right] = category * NUMBERS + number + 1
    for codes, image in zip(instances, images, strict=True):
        codes[10:14] = 0  # what is cut through has a mask that is not its box
        image[:, 10:14] = 0
    model = Yolo(width=8).build(IMAGE, {"": Output(2, boxes=True, masks=True)})
    trained(model, images, instances, 150)
    with torch.no_grad():
        found = model.eval()(images)
    assert found.shape == (8, 100, 6 + 64 * 64)
    true, numbers = boxes_of(instances, 2)
    for rows, codes, own, known in zip(found[:-1], instances, true, numbers, strict=False):
        for box, number in zip(own, known, strict=True):
            if number == 0 or (box[2] - box[0]) * (box[3] - box[1]) < 150:
                continue
            best = rows[rows[:, 5] == box[4]][0]
            mask, wanted = best[6:].view(64, 64) > 0.5, codes == box[4] * NUMBERS + number
            assert (mask & wanted).sum() / (mask | wanted).sum() > 0.7
