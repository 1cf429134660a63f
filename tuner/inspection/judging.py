"""How the predictions of each kind of target are judged, and shown beside the truth.

A new kind of target gets a function here, and an entry in `JUDGES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.inspection.boxes import Box, Style, boxes_over, true_boxes
from tuner.inspection.matching import Matches, match
from tuner.inspection.pictures import objects_over, over, picture
from tuner.interfaces import IGNORED, Target, TargetKind
from tuner.interfaces.instances import NUMBERS, boxes_of, instances_of
from tuner.tasks.head import Head
from tuner.tasks.predictions.boxes import SCORE

if TYPE_CHECKING:
    from PIL.Image import Image

_WRONG = 0.01
"""Share of the pixels of a mask that may be wrong before it is a mistake."""

_BETWEEN = 4
"""Pixels between true and predicted boxes."""


@dataclass(frozen=True)
class Texts:
    """What is said of an image.

    Args:
        true: What is there, such as the name of its class.
        predicted: What the model says.
        end: What follows that, and is never cut.
    """

    true: str
    predicted: str
    end: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a model says of N images.

    Args:
        losses: How wrong it is of each, float32 (N,).
        confidences: How certain it is of each, float32 (N,) in [0, 1].
        wrong: Whether each is a mistake, booleans (N,).
        texts: Describes the image of a row.
        shown: Draws the image, (C, H, W), of a row, with the longest side of each panel in pixels.
    """

    losses: Tensor
    confidences: Tensor
    wrong: Tensor
    texts: Callable[[int], Texts]
    shown: Callable[[Tensor, int, int], "Image"]


@dataclass(frozen=True)
class Judge:
    """How predictions of a kind of target are judged.

    Args:
        judge: Judges the outputs of a head for a batch, (N, ...), by the target, (N, ...).
        legend: What is shown of an image.
        panels: How many pictures that is, side by side.
        worst: What makes a mistake worse than another.
        uncertain: What makes a prediction less certain than another.
        side: Longest side of each panel in pixels.
        count: Most images of each kind that are shown.
    """

    judge: Callable[[Head, Tensor, Tensor, Target], Judgement]
    legend: str
    panels: int = 1
    worst: str = "the highest loss"
    uncertain: str = "the lowest probability of the predicted class"
    side: int = 112
    count: int = 32


_Panels = tuple[Tensor, Tensor]
"""What boxes are drawn over: an image for the truth, and one for what is found."""


def _as_it_is(image: Tensor, row: int) -> _Panels:
    return image, image


def _judge_class(head: Head, output: Tensor, target: Tensor, of: Target) -> Judgement:
    """The loss is the cross-entropy, the confidence the probability of the predicted class."""
    logs = output if head.loss.log_probabilities else output.log_softmax(dim=1)
    highest, predicted = logs.max(dim=1)
    losses = -logs.gather(1, target[:, None]).squeeze(1)
    return _of_classes(losses, highest.exp(), predicted != target, target, predicted, of)


def _judge_multilabel(head: Head, output: Tensor, target: Tensor, of: Target) -> Judgement:
    """The loss is the sum of those of the classes, the confidence that of the least certain class."""
    probabilities = output.sigmoid()
    predicted = (probabilities > 0.5).to(target.dtype)
    losses = F.binary_cross_entropy_with_logits(output, target, reduction="none").sum(dim=1)
    confidences = torch.maximum(probabilities, 1 - probabilities).amin(dim=1)
    return _of_classes(losses, confidences, (predicted != target).any(dim=1), target, predicted, of)


def _of_classes(
    losses: Tensor, confidences: Tensor, wrong: Tensor, target: Tensor, predicted: Tensor, of: Target
) -> Judgement:
    def texts(row: int) -> Texts:
        return Texts(_joined(of, target[row]), _joined(of, predicted[row]), f" {confidences[row].item():.0%}")

    return Judgement(losses, confidences, wrong, texts, lambda image, _, side: picture(image, side))


def _judge_mask(head: Head, output: Tensor, target: Tensor, of: Target) -> Judgement:
    """The loss and the confidence are means over the pixels that are known, of which a hundredth may be wrong."""
    known = target != IGNORED
    pixels = known.sum(dim=(1, 2)).clamp(min=1)
    highest, classes = output.softmax(dim=1).max(dim=1)
    losses = F.cross_entropy(output, target.long(), ignore_index=IGNORED, reduction="none")
    predicted = classes.to(target.dtype)
    shares = ((predicted != target) & known).sum(dim=(1, 2)) / pixels

    def texts(row: int) -> Texts:
        return Texts(_joined(of, target[row]), f"{shares[row].item():.1%} of its pixels are wrong")

    def shown(image: Tensor, row: int, side: int) -> "Image":
        panels = [over(image, mask) for mask in (torch.zeros_like(target[row]), target[row], predicted[row])]
        return picture(torch.cat(panels, dim=2), len(panels) * side)

    confidences = (highest * known).sum(dim=(1, 2)) / pixels
    return Judgement(losses.sum(dim=(1, 2)) / pixels, confidences, shares > _WRONG, texts, shown)


def _judge_boxes(
    head: Head, output: Tensor, target: Tensor, of: Target, behind: Callable[[Tensor, int], _Panels] = _as_it_is
) -> Judgement:
    """The loss is the number of mistakes, plus half of the mean score of the detections that are wrong.

    A mistake is an object that is missed, or a detection that finds none. The confidence is the mean score of the
    detections; without any, how far the best score is from 1. Boxes are drawn over what is `behind`: an image (C, H, W)
    of a row for the truth, and one for what is found.
    """
    output, target = output.cpu(), target.cpu()
    matches = [match(*each) for each in zip(output, target, strict=True)]
    losses, confidences = [], []
    for found, each in zip(output, matches, strict=True):
        scores = each.found[:, 4]
        mistakes = each.missed.sum() + each.wrong.sum()
        losses.append(mistakes + scores[each.wrong].mean().nan_to_num() / 2)
        counted = scores[each.right | each.wrong]
        confidences.append(counted.mean() if len(counted) else 1 - found[:, 4].max())

    def texts(row: int) -> Texts:
        each = matches[row]
        true = int((each.true[:, 5] == 0).sum())
        said = f"{true} true, {int(each.missed.sum())} missed, {int(each.wrong.sum())} wrong"
        is_sure_of = each.right | each.wrong
        end = f"; mean score {confidences[row].item():.2f}" if is_sure_of.any() else "; nothing is found"
        return Texts(_joined(of, target[row]), said, end)

    def shown(image: Tensor, row: int, side: int) -> "Image":
        from PIL import Image

        drawn = _true(matches[row], of), _found(matches[row], of)
        both = [boxes_over(*each, side - _BETWEEN) for each in zip(behind(image, row), drawn, strict=True)]
        width, height = both[0].size
        joined = Image.new("RGB", (2 * width + _BETWEEN, height), "white")
        for number, panel in enumerate(both):
            joined.paste(panel, (number * (width + _BETWEEN), 0))
        return joined

    wrong = torch.tensor([bool(each.missed.any() or each.wrong.any()) for each in matches])
    return Judgement(torch.stack(losses), torch.stack(confidences), wrong, texts, shown)


def _judge_instances(head: Head, output: Tensor, target: Tensor, of: Target) -> Judgement:
    """Objects with masks are judged by their boxes; both are drawn."""
    boxes, _ = boxes_of(target.cpu(), NUMBERS - 1)

    def behind(image: Tensor, row: int) -> _Panels:
        found = output[row].detach().cpu().float()
        found = found[(found[:, 5] >= 0) & (found[:, 4] >= SCORE)]
        return objects_over(image, target[row]), objects_over(image, instances_of(found, *target.shape[1:]))

    return _judge_boxes(head, output[..., :6], boxes, replace(of, instances=False, boxes=True), behind)


def _true(matches: Matches, of: Target) -> list[Box]:
    return [
        replace(box, text=f"{box.text} missed", style="mistake") if is_missed else box
        for box, is_missed in zip(true_boxes(matches.true, of), matches.missed.tolist(), strict=True)
    ]


def _found(matches: Matches, of: Target) -> list[Box]:
    styles: list[Style] = [
        "plain" if right else "mistake" if wrong else "ignored"
        for right, wrong in zip(matches.right.tolist(), matches.wrong.tolist(), strict=True)
    ]
    return [
        Box(edges, int(number), f"{of.name(int(number))} {score:.2f}", style)
        for (*edges, score, number), style in zip(matches.found.tolist(), styles, strict=True)
    ]


def _joined(of: Target, value: Tensor) -> str:
    """The names of the classes that an image has."""
    return " + ".join(of.names(value)) or "none"


_OF_CLASSES = Judge(_judge_class, "true class, predicted class with its probability")
_OF_BOXES = Judge(
    _judge_boxes,
    "true boxes, dashed if missed; predicted boxes with their scores, dashed if wrong",
    panels=2,
    worst="the most",
    uncertain="the lowest mean score",
    side=234,
    count=16,
)

JUDGES: dict[TargetKind, Judge] = {
    "class": _OF_CLASSES,
    "multilabel": replace(_OF_CLASSES, judge=_judge_multilabel),
    "mask": Judge(_judge_mask, "image, true mask, predicted mask", panels=3),
    "boxes": _OF_BOXES,
    "instances": replace(
        _OF_BOXES,
        judge=_judge_instances,
        legend="true objects, dashed if missed; predicted ones with their scores, dashed if wrong",
    ),
}
"""How each kind of target is judged of which images are shown; the others have no pictures."""
