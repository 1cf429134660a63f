"""The images of a set that a model finds hardest: its worst mistakes, and those of which it is least certain."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuner.inspection.judging import JUDGES, Judge, Judgement, Texts
from tuner.interfaces import Batch, Outputs, Target
from tuner.tasks import TaskConfig
from tuner.tasks.base import pairs
from tuner.tasks.head import Head

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Hard:
    """An image and what a model says of it.

    Args:
        image: The image, the truth and the prediction, reduced to the pixels of the picture.
        texts: What is written below it.
        loss: Its loss, as its judge defines it.
        confidence: How certain the model is of it, in [0, 1].
        is_wrong: Whether the prediction is a mistake.
        index: Its place in the set, from 0.
    """

    image: "Image"
    texts: Texts
    loss: float
    confidence: float
    is_wrong: bool
    index: int


@dataclass(frozen=True)
class Hardest:
    """The hardest images of a set for one head, the hardest first.

    Args:
        judge: How they were judged.
        mistakes: Those with the highest loss among those whose prediction is wrong.
        uncertain: Those with the lowest confidence.
    """

    judge: Judge
    mistakes: list[Hard]
    uncertain: list[Hard]


def hardest(
    task: TaskConfig, targets: Mapping[str, Target], outputs: Iterable[tuple[Batch, Outputs]], count: int | None = None
) -> dict[str, Hardest]:
    """Find the hardest images of a set for each head of which images are shown. No more of them are kept in memory.

    Args:
        task: The task.
        targets: The targets of the dataset, by name.
        outputs: The batches of the set and what the model returned for them, as `tuner.train.evaluation.predict` does.
        count: The number of images of each kind; None for that of the judge.

    Returns:
        The images by the name of the head; by its target if the head has no name.
    """
    search = Search(task.named_heads, targets, count)
    for batch, output in outputs:
        search.update(batch, output)
    return search.found


class Search:
    """The hardest images of one batch after another, for each head of which images are shown.

    Args:
        heads: The heads, by name.
        targets: The targets of the dataset, by name.
        count: The number of images of each kind; None for that of the judge.
    """

    def __init__(self, heads: Mapping[str, Head], targets: Mapping[str, Target], count: int | None = None) -> None:
        self._heads = {name: head for name, head in heads.items() if targets[head.target].kind in JUDGES}
        self._targets = targets
        self._judges = {name: JUDGES[targets[head.target].kind] for name, head in self._heads.items()}
        self._kept = {name: (_Top(judge, count), _Top(judge, count)) for name, judge in self._judges.items()}

    def update(self, batch: Batch, outputs: Outputs) -> dict[str, Judgement]:
        """Add a batch, and return what is said of its images, by the names of `found`."""
        said = {}
        with torch.inference_mode():
            for name, (values, target) in pairs(self._heads, outputs, batch.targets).items():
                judged = self._judges[name].judge(self._heads[name], values, target, self._target(name))
                mistakes, uncertain = self._kept[name]
                mistakes.update(judged.losses.masked_fill(~judged.wrong, -torch.inf), batch.inputs, judged)
                uncertain.update(-judged.confidences, batch.inputs, judged)
                said[name or self._heads[name].target] = judged
        return said

    @property
    def found(self) -> dict[str, Hardest]:
        """The images by the name of the head; by its target if the head has no name."""
        return {
            name or self._heads[name].target: Hardest(self._judges[name], *(top.images for top in tops))
            for name, tops in self._kept.items()
        }

    def _target(self, name: str) -> Target:
        return self._targets[self._heads[name].target]


class _Top:
    """The images with the highest scores of one batch after another.

    Args:
        judge: The judge, whose pictures are drawn.
        count: The number of images; None for that of the judge.
    """

    def __init__(self, judge: Judge, count: int | None) -> None:
        self._side, self._count = judge.side, judge.count if count is None else count
        self._found: list[tuple[float, Hard]] = []
        self._seen = 0

    def update(self, scores: Tensor, images: Tensor, judged: Judgement) -> None:
        """Add a batch: scores (N,), of which minus infinity is never kept, images (N, C, H, W), and their judgement."""
        best = scores.topk(min(self._count, len(scores)))
        for score, row in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if score == -torch.inf or (len(self._found) == self._count and score <= self._found[-1][0]):
                break
            hard = Hard(
                judged.shown(images[row], row, self._side),
                judged.texts(row),
                judged.losses[row].item(),
                judged.confidences[row].item(),
                bool(judged.wrong[row]),
                self._seen + row,
            )
            # Stable: of equal ones, the first stays first.
            self._found = sorted([*self._found, (score, hard)], key=lambda found: -found[0])[: self._count]
        self._seen += len(scores)

    @property
    def images(self) -> list[Hard]:
        """The images, those with the highest scores first."""
        return [hard for _, hard in self._found]
