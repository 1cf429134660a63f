"""The images of a set that a model finds hardest: its worst mistakes, and those of which it is least certain."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.inspection.pictures import over, picture
from tuner.interfaces import IGNORED, Batch, Outputs, Target
from tuner.tasks import TaskConfig
from tuner.tasks.base import pairs
from tuner.tasks.head import Head

if TYPE_CHECKING:
    from PIL.Image import Image

COUNT = 32
"""Images of each kind that are kept."""
SIDE = 112
"""Longest side in pixels to which an image is reduced."""
_WRONG = 0.01
"""Share of the pixels of a mask that may be wrong before it is a mistake."""


@dataclass(frozen=True)
class Hard:
    """An image and what a model says of it.

    Args:
        image: Its pixels, reduced to those of the picture; of a mask, the image, the true and the predicted mask.
        true: The name of its class, or of its classes.
        predicted: The name of the class, or of the classes, that the model predicts; of a mask, how much of it is
            wrong.
        probability: The probability of that prediction; with several classes, of the least certain one of them; of a
            mask, the mean over its pixels.
        loss: Its loss.
        is_wrong: Whether the prediction is a mistake.
        is_mask: Whether it is a mask that is predicted.
    """

    image: "Image"
    true: str
    predicted: str
    probability: float
    loss: float
    is_wrong: bool
    is_mask: bool


@dataclass(frozen=True)
class Hardest:
    """The hardest images of a set for one head, the hardest first.

    Args:
        mistakes: Those with the highest loss among those whose prediction is wrong.
        uncertain: Those with the lowest probability of the prediction.
    """

    mistakes: list[Hard]
    uncertain: list[Hard]


def hardest(
    task: TaskConfig, targets: Mapping[str, Target], outputs: Iterable[tuple[Batch, Outputs]], count: int = COUNT
) -> dict[str, Hardest]:
    """Find the hardest images of a set for each head that predicts classes. No more than these are kept in memory.

    A mask is a mistake if more than a hundredth of its pixels are wrong.

    Args:
        task: The task.
        targets: The targets of the dataset, by name.
        outputs: The batches of the set and what the model returned for them, as `tuner.train.evaluation.predict` does.
        count: The number of images of each kind.

    Returns:
        The images by the name of the head; by its target if the head has no name.
    """
    heads = {name: head for name, head in task.named_heads.items() if targets[head.target].kind != "values"}
    kept = {name: (_Top(count), _Top(count)) for name in heads}
    for batch, output in outputs:
        with torch.inference_mode():
            for name, (values, target) in pairs(heads, output, batch.targets).items():
                rows = _judged(heads[name], values, target, targets[heads[name].target])
                mistakes, uncertain = kept[name]
                mistakes.update(rows["loss"].masked_fill(~rows["wrong"], -torch.inf), batch.inputs, rows)
                uncertain.update(-rows["probability"], batch.inputs, rows)
    return {
        name or heads[name].target: Hardest(*(list(top.images(targets[heads[name].target])) for top in tops))
        for name, tops in kept.items()
    }


def _judged(head: Head, output: Tensor, target: Tensor, of: Target) -> dict[str, Tensor]:
    """What a model says of each image: its ``loss``, ``probability``, whether it is ``wrong``, both labels."""
    if of.kind == "multilabel":
        probabilities = output.sigmoid()
        predicted = (probabilities > 0.5).to(target.dtype)
        return {
            "loss": F.binary_cross_entropy_with_logits(output, target, reduction="none").sum(dim=1),
            "probability": torch.maximum(probabilities, 1 - probabilities).amin(dim=1),
            "wrong": (predicted != target).any(dim=1),
            "true": target,
            "predicted": predicted,
        }
    if of.kind == "mask":
        return _judged_mask(output, target)
    logs = output if head.loss.log_probabilities else output.log_softmax(dim=1)
    highest, predicted = logs.max(dim=1)
    return {
        "loss": -logs.gather(1, target[:, None]).squeeze(1),
        "probability": highest.exp(),
        "wrong": predicted != target,
        "true": target,
        "predicted": predicted,
    }


def _judged_mask(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    known = target != IGNORED
    pixels = known.sum(dim=(1, 2)).clamp(min=1)
    highest, predicted = output.softmax(dim=1).max(dim=1)
    losses = F.cross_entropy(output, target.long(), ignore_index=IGNORED, reduction="none")
    wrong = ((predicted != target) & known).sum(dim=(1, 2))
    return {
        "loss": losses.sum(dim=(1, 2)) / pixels,
        "probability": (highest * known).sum(dim=(1, 2)) / pixels,
        "wrong": wrong > _WRONG * pixels,
        "wrong_share": wrong / pixels,
        "true": target,
        "predicted": predicted.to(target.dtype),
    }


class _Top:
    """The images with the highest scores of one batch after another.

    Args:
        count: The number of images.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[tuple[float, Image, dict[str, Tensor]]] = []

    def update(self, scores: Tensor, images: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Add a batch: scores (N,), of which minus infinity is never kept, images (N, C, H, W), and more of each."""
        best = scores.topk(min(self._count, len(scores)))
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if score == -torch.inf or (len(self._found) == self._count and score <= self._found[-1][0]):
                break
            row = {name: each[index].cpu() for name, each in rows.items()}
            self._found.append((score, _shown(images[index], row), row))
            # Stable: of equal ones, the first stays first.
            self._found = sorted(self._found, key=lambda found: -found[0])[: self._count]

    def images(self, target: Target) -> Iterator[Hard]:
        """The images, those with the highest scores first."""
        for _, image, row in self._found:
            true, predicted = (" + ".join(target.names(row[name])) or "none" for name in ("true", "predicted"))
            if target.per_pixel:
                predicted = f"{row['wrong_share'].item():.1%} of its pixels are wrong"
            numbers = row["probability"].item(), row["loss"].item()
            yield Hard(image, true, predicted, *numbers, bool(row["wrong"]), target.per_pixel)


def _shown(image: Tensor, row: Mapping[str, Tensor]) -> "Image":
    """An image as it is drawn; one with masks has the true and the predicted one beside it."""
    if row["true"].ndim < 2:
        return picture(image, SIDE)
    shown = [over(image, torch.zeros_like(row["true"])), over(image, row["true"]), over(image, row["predicted"])]
    return picture(torch.cat(shown, dim=2), 3 * SIDE)
