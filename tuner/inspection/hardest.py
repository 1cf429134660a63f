"""The images of a set that a model finds hardest: its worst mistakes, and those of which it is least certain."""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.inspection.pictures import picture
from tuner.interfaces import Batch, Outputs, Target
from tuner.tasks import TaskConfig
from tuner.tasks.base import pairs
from tuner.tasks.head import Head

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

COUNT = 32
"""Images of each kind that are kept."""
_COLUMNS, _SIDE, _GAP, _LINE = 8, 112, 10, 15
"""Of the picture: images in a row; pixels of an image's sides, between two images, and of a line of text."""


@dataclass(frozen=True)
class Hard:
    """An image and what a model says of it.

    Args:
        image: Its pixels, reduced to those of the picture.
        true: The name of its class, or of its classes.
        predicted: The name of the class, or of the classes, that the model predicts.
        probability: The probability of that prediction; with several classes, of the least certain one of them.
        loss: Its loss.
    """

    image: "Image"
    true: str
    predicted: str
    probability: float
    loss: float


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
    logs = output if head.loss.log_probabilities else output.log_softmax(dim=1)
    highest, predicted = logs.max(dim=1)
    return {
        "loss": -logs.gather(1, target[:, None]).squeeze(1),
        "probability": highest.exp(),
        "wrong": predicted != target,
        "true": target,
        "predicted": predicted,
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
            self._found.append((score, picture(images[index], _SIDE), row))
            # Stable: of equal ones, the first stays first.
            self._found = sorted(self._found, key=lambda found: -found[0])[: self._count]

    def images(self, target: Target) -> Iterator[Hard]:
        """The images, those with the highest scores first."""
        for _, image, row in self._found:
            true, predicted = (" + ".join(target.names(row[name])) or "none" for name in ("true", "predicted"))
            yield Hard(image, true, predicted, row["probability"].item(), row["loss"].item())


def draw(found: Hardest) -> bytes:
    """Draw the hardest images of a head as one PNG picture: below each, the true and the predicted class."""
    from PIL import Image, ImageDraw

    sections = [
        ("worst mistakes: the highest loss (true class, predicted class with its probability)", found.mistakes),
        ("least certain: the lowest probability of the predicted class", found.uncertain),
    ]
    row_height = _SIDE + 2 * _LINE + _GAP
    heights = [3 * _LINE + -(-max(len(images), 1) // _COLUMNS) * row_height for _, images in sections]
    canvas = Image.new("RGB", (_GAP + _COLUMNS * (_SIDE + _GAP), sum(heights)), "white")
    pen, font, top = ImageDraw.Draw(canvas), _font(), 0
    for (title, images), height in zip(sections, heights, strict=True):
        pen.text((_GAP, top + _LINE), title if images else f"{title}: none", fill="#22292f", font=font)
        for number, hard in enumerate(images):
            x = _GAP + number % _COLUMNS * (_SIDE + _GAP)
            y = top + 3 * _LINE + number // _COLUMNS * row_height
            shown = hard.image.convert("RGB")
            if (times := _SIDE // max(shown.size)) > 1:
                shown = shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST)
            canvas.paste(shown, (x, y))
            is_wrong = hard.true != hard.predicted
            said = f" {hard.probability:.0%}"
            pen.text((x, y + _SIDE), _cut(hard.true, font), fill="#66707a", font=font)
            text = _cut(hard.predicted, font, said)
            pen.text((x, y + _SIDE + _LINE), text, fill="#b3261e" if is_wrong else "#2e7d32", font=font)
        top += height
    file = io.BytesIO()
    canvas.save(file, "png")
    return file.getvalue()


def _font() -> "FreeTypeFont | ImageFont":
    """A font with the characters of many languages where the machine has one, else Pillow's own."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", 12)
    except OSError:
        return ImageFont.load_default(12)


def _cut(text: str, font: Any, end: str = "") -> str:
    """Cut a text so that it fits below an image, with an end that is not cut."""
    if font.getlength(text + end) <= _SIDE:
        return text + end
    while text and font.getlength(f"{text}…{end}") > _SIDE:
        text = text[:-1]
    return f"{text}…{end}"
