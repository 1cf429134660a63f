"""Losses and metrics of masks: by hand, and beside other libraries."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor
from torch.nn import functional as F

from tuner.interfaces import IGNORED, ClassCounts, Target
from tuner.tasks.losses import PixelCrossEntropy, PixelDice, PixelFocal
from tuner.tasks.metrics.masks import Boundaries, PixelAccuracy, Regions

LOSSES = pytest.mark.parametrize("loss", [PixelCrossEntropy(label_smoothing=0.1), PixelFocal(), PixelDice()], ids=str)


def drawn(seed: int, count: int = 3, classes: int = 5, height: int = 12, width: int = 9) -> tuple[Tensor, Tensor]:
    """Logits and masks in which a tenth of the pixels is unknown."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (count, height, width), generator=generator, dtype=torch.uint8)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORED
    return torch.randn(count, classes, height, width, generator=generator), target


def logits(predicted: Tensor, classes: int) -> Tensor:
    """Logits whose largest is the predicted class."""
    return F.one_hot(predicted.long(), classes).permute(0, 3, 1, 2).float() * 3 - 1


def test_cross_entropy_is_the_mean_over_images_of_the_mean_over_known_pixels() -> None:
    output, target = drawn(0)
    expected = [
        F.cross_entropy(one[None], mask[None].long(), ignore_index=IGNORED).item()
        for one, mask in zip(output, target, strict=True)
    ]
    assert PixelCrossEntropy()(output, target).item() == pytest.approx(sum(expected) / 3)
    assert PixelFocal(gamma=0)(output, target).item() == pytest.approx(sum(expected) / 3)
    assert PixelDice().measure(output, target).item() == pytest.approx(sum(expected) / 3)


def test_dice_by_hand() -> None:
    output = torch.full((1, 2, 1, 4), -100.0)
    output[0, 1, 0, :2] = 100.0  # predicted: 1 1 0 0
    output[0, 0, 0, 2:] = 100.0
    target = torch.tensor([[[1, 0, 0, 0]]], dtype=torch.uint8)
    one, other = (2 * 1 + 1) / (2 + 1 + 1), (2 * 2 + 1) / (2 + 3 + 1)
    assert PixelDice(cross_entropy=0)(output, target).item() == pytest.approx(1 - (one + other) / 2)


@LOSSES
def test_what_is_unknown_has_no_influence(loss: PixelCrossEntropy) -> None:
    output, target = drawn(1)
    unknown = (target == IGNORED).unsqueeze(1)
    output.requires_grad_()
    value = loss(output, target)
    [gradient] = torch.autograd.grad(value, output)
    assert not gradient[unknown.expand_as(gradient)].any() and gradient.any()
    changed = torch.where(unknown, 7 * torch.randn(output.shape), output)
    assert loss(changed, target).item() == pytest.approx(value.item())


@LOSSES
def test_an_image_of_which_nothing_is_known_has_no_loss_and_a_finite_gradient(loss: PixelCrossEntropy) -> None:
    output, target = drawn(2, count=1)
    output.requires_grad_()
    for function in (loss, loss.measure):
        [gradient] = torch.autograd.grad(function(output, torch.full_like(target, IGNORED)), output)
        assert not gradient.any()


@LOSSES
def test_micro_batches_add_up(loss: PixelCrossEntropy) -> None:
    output, target = drawn(3, count=4)
    parts = [
        loss(output[each], target[each]).item() * share for each, share in ((slice(1), 1 / 4), (slice(1, 4), 3 / 4))
    ]
    assert loss(output, target).item() == pytest.approx(sum(parts))


@pytest.mark.parametrize("loss", [PixelCrossEntropy(), PixelFocal(), PixelDice()], ids=str)
def test_weights_of_classes_weigh(loss: PixelCrossEntropy) -> None:
    output, target = drawn(4, classes=3)
    counts = ClassCounts(tuple((target == number).sum().item() for number in range(3)), int((target != IGNORED).sum()))  # type: ignore[misc]
    weighted = loss.model_copy(update={"class_weights": (0.0, 0.0, 5.0)}).weighted(counts, balance=False)
    alone = torch.where(target == 2, target, IGNORED)
    output.requires_grad_()
    [gradient] = torch.autograd.grad(weighted(output, target), output)
    only = (alone == 2).unsqueeze(1).expand_as(gradient)
    assert gradient[only].any()
    if not isinstance(loss, PixelDice):  # whose overlap with a class is of all pixels
        assert not gradient[~only].any()
    weighted.check(Target(3, per_pixel=True))


@pytest.mark.parametrize("seed", range(8))
def test_regions_are_those_of_scikit_learn(seed: int) -> None:
    classes = 2 + seed
    output, target = drawn(seed, classes=classes, height=5, width=4)
    meter = Regions()
    meter.update(output[:1], target[:1])
    meter.update(output[1:], target[1:])
    known = target != IGNORED
    true, predicted = target[known], output.argmax(dim=1)[known]
    there = sorted({*true.tolist(), *predicted.tolist()})
    measured = meter.compute()
    assert measured["miou"] == pytest.approx(jaccard_score(true, predicted, labels=there, average="macro"))
    assert measured["dice"] == pytest.approx(f1_score(true, predicted, labels=there, average="macro"))
    assert measured["accuracy"] == pytest.approx((true == predicted).double().mean().item())
    by_class = meter.by_class()
    everything = range(classes)
    iou = jaccard_score(true, predicted, labels=everything, average=None, zero_division=0.0)
    assert by_class["iou"] == pytest.approx(iou.tolist())
    assert by_class["support"] == [(true == number).sum().item() for number in everything]
    training = PixelAccuracy()
    training.update(output, target)
    assert training.compute()["accuracy"] == measured["accuracy"]


def boundary_f(predicted: np.ndarray, target: np.ndarray, classes: int, radius: int) -> float:
    """The same by SciPy's morphology."""
    square, large = np.ones((3, 3), bool), np.ones((2 * radius + 1,) * 2, bool)
    counts = np.zeros((classes, 4))
    for found, true in zip(predicted, target, strict=True):
        known = ~ndimage.binary_dilation(true == IGNORED, square)
        for number in range(classes):
            a, b = (
                (each == number) & ndimage.binary_dilation(each != number, square) & known for each in (found, true)
            )
            counts[number] += [
                (a & ndimage.binary_dilation(b, large)).sum(),
                a.sum(),
                (b & ndimage.binary_dilation(a, large)).sum(),
                b.sum(),
            ]
    scores = []
    for right, a, covered, b in counts:
        if a + b:
            precision, recall = right / max(a, 1), covered / max(b, 1)
            scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("side", [16, 300])
def test_boundaries_are_those_of_scipy(side: int) -> None:
    generator = torch.Generator().manual_seed(side)
    coarse = torch.randn(4, 3, 4, 4, generator=generator)
    output = F.interpolate(coarse, size=(side, side), mode="bilinear")
    moved = F.interpolate(coarse + 0.3 * torch.randn(4, 3, 4, 4, generator=generator), (side, side), mode="bilinear")
    target = moved.argmax(dim=1).to(torch.uint8)
    target[:, : side // 5, : side // 5] = IGNORED
    meter = Boundaries()
    meter.update(output[:3], target[:3])
    other = Boundaries()
    other.update(output[3:], target[3:])
    meter.merge(other)
    radius = max(1, round(0.0075 * math.hypot(side, side)))
    expected = boundary_f(output.argmax(dim=1).numpy(), target.numpy(), 3, radius)
    assert meter.compute()["boundary_f"] == pytest.approx(expected) and 0.1 < expected < 0.99


def test_a_perfect_mask_is_perfect_and_an_empty_one_is_defined() -> None:
    _, target = drawn(5)
    whole = torch.where(target == IGNORED, 0, target)
    for meter in (Regions(), Boundaries()):
        meter.update(logits(whole, 5), whole)
        assert all(value == 1 for value in meter.compute().values())
    for nothing in (Regions(), Boundaries(), PixelAccuracy()):
        nothing.update(logits(whole, 5), torch.full_like(target, IGNORED))
        assert all(value == 0 for value in nothing.compute().values())


def test_a_region_that_fills_the_image_has_no_boundary() -> None:
    meter = Boundaries()
    meter.update(logits(torch.zeros(2, 8, 8), 2), torch.zeros(2, 8, 8, dtype=torch.uint8))
    assert meter.compute() == {"boundary_f": 0.0}
    assert meter.by_class() == {"boundary_f": [0.0, 0.0]}
