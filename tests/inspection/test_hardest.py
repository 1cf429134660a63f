import io

import pytest
import torch
from PIL import Image
from torch import Tensor

from tuner.inspection.hardest import Hard, Hardest, hardest
from tuner.inspection.hardest_picture import draw
from tuner.interfaces import IGNORED, Batch, Target
from tuner.tasks import Classification, SemanticSegmentation, TaskConfig
from tuner.tasks.multilabel import Multilabel

CLASSES = ("cat", "dog", "été")


def found(logits: Tensor, target: Tensor, task: TaskConfig, of: Target, count: int = 3, size: int = 4) -> Hardest:
    """The hardest images, each of a grey of its own, that come in batches of a size."""
    images = (torch.arange(len(logits)) / 255).view(-1, 1, 1, 1).expand(-1, 3, 5, 6)
    sections = [slice(start, start + size) for start in range(0, len(logits), size)]
    outputs = [(Batch(images[section], {"label": target[section]}), logits[section]) for section in sections]
    [each] = hardest(task, {"label": of}, outputs, count).values()
    return each


def pixel(of: Hard) -> float:
    """The grey of an image."""
    value = of.image.getpixel((0, 0))
    return value[0] if isinstance(value, tuple) else value or 0


def test_the_worst_mistakes_and_the_least_certain_are_those_of_the_whole_set() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator)
    every = found(logits, target, Classification(), Target(3, classes=CLASSES))
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    wrong = logits.argmax(dim=1) != target
    worst = losses.masked_fill(~wrong, -1).topk(3)
    assert [round(each.loss, 5) for each in every.mistakes] == [round(value, 5) for value in worst.values.tolist()]
    assert [pixel(each) for each in every.mistakes] == worst.indices.tolist()
    for hard, index in zip(every.mistakes, worst.indices.tolist(), strict=True):
        assert (hard.true, hard.predicted) == (CLASSES[int(target[index])], CLASSES[int(logits[index].argmax())])
    least = logits.softmax(dim=1).amax(dim=1).topk(3, largest=False)
    assert [pixel(each) for each in every.uncertain] == least.indices.tolist()


def test_a_right_prediction_is_no_mistake() -> None:
    logits = torch.eye(3).repeat(4, 1) * 9
    every = found(logits, torch.arange(3).repeat(4), Classification(), Target(3, classes=CLASSES))
    assert every.mistakes == []
    assert len(every.uncertain) == 3


def test_the_number_of_batches_does_not_matter() -> None:
    logits, target = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)), torch.arange(3).repeat(10)
    of = Target(3, classes=CLASSES)
    one, many = (found(logits, target, Classification(), of, size=size) for size in (30, 7))
    for kind in ("mistakes", "uncertain"):
        said = [[(e.true, e.predicted, e.probability, e.loss) for e in getattr(every, kind)] for every in (one, many)]
        assert said[0] == said[1]


def test_several_labels_are_named_together() -> None:
    logits = torch.tensor([[9.0, 9.0, -9.0], [9.0, -9.0, -0.1], [-9.0, -9.0, -9.0]])
    target = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    every = found(logits, target, Multilabel(), Target(3, classes=CLASSES, multilabel=True))
    assert [(each.true, each.predicted) for each in every.mistakes] == [("cat + dog", "cat")]
    assert every.uncertain[0].predicted == "cat"
    assert {each.predicted for each in every.uncertain} == {"cat", "cat + dog", "none"}


def test_a_picture_has_all_of_them() -> None:
    logits, target = torch.randn(80, 3, generator=torch.Generator().manual_seed(2)), torch.arange(80) % 3
    every = found(logits, target, Classification(), Target(3, classes=("x" * 200, "日本", "")), count=32)
    picture = Image.open(io.BytesIO(draw(every)))
    assert picture.width == 10 + 8 * 122
    assert picture.height == 2 * (45 + 4 * 152)
    assert Image.open(io.BytesIO(draw(Hardest([], [])))).width == picture.width


def test_large_images_are_kept_small() -> None:
    images, target = torch.zeros(2, 3, 900, 600), torch.tensor([0, 1])
    outputs = [(Batch(images, {"label": target}), torch.eye(3)[[1, 2]])]
    [every] = hardest(Classification(), {"label": Target(3, classes=CLASSES)}, outputs, 2).values()
    assert {each.image.size for each in every.mistakes + every.uncertain} == {(75, 112)}


def test_masks_are_shown_beside_their_image() -> None:
    generator = torch.Generator().manual_seed(3)
    masks = torch.randint(3, (10, 16, 20), generator=generator, dtype=torch.uint8)
    masks[:, :4] = IGNORED
    sure = torch.nn.functional.one_hot(masks.long().clamp(max=2), 3).permute(0, 3, 1, 2) * 9.0
    sure[4, :, 8:] = sure[4, :, 8:].flip(0)
    sure[7, :, 4:12] = sure[7, :, 4:12].roll(1, dims=0)
    outputs = [
        (Batch(torch.rand(5, 3, 16, 20), {"mask": masks[part]}), sure[part]) for part in (slice(5), slice(5, 10))
    ]
    of = Target(3, classes=CLASSES, per_pixel=True)
    [every] = hardest(SemanticSegmentation(), {"mask": of}, outputs, 3).values()
    assert len(every.mistakes) == 2 and len(every.uncertain) == 3, "a mask that is right is no mistake"
    losses = torch.nn.functional.cross_entropy(sure, masks.long(), ignore_index=IGNORED, reduction="none")
    per_image = losses[:, 4:].mean(dim=(1, 2))
    assert [each.loss for each in every.mistakes] == pytest.approx([per_image[7].item(), per_image[4].item()])
    worst = every.mistakes[0]
    assert worst.true == "cat + dog + été" and worst.image.size == (60, 16)
    assert worst.is_wrong and worst.predicted.endswith("% of its pixels are wrong")
    ignored = worst.image.crop((20, 0, 40, 4))
    assert ignored.getextrema() == ((0, 0), (0, 0), (0, 0)), "what is unknown is black"
    picture = Image.open(io.BytesIO(draw(every)))
    assert picture.width == 10 + 8 * 122
