import io

import pytest
import torch
from PIL import Image
from torch import Tensor

from tuner.inspection.hardest import Hard, Hardest, hardest
from tuner.inspection.hardest_picture import draw
from tuner.inspection.judging import JUDGES
from tuner.interfaces import IGNORED, NO_BOX, Batch, Target
from tuner.tasks import Classification, Detection, InstanceSegmentation, SemanticSegmentation, TaskConfig
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
        assert (hard.texts.true, hard.texts.predicted) == (
            CLASSES[int(target[index])],
            CLASSES[int(logits[index].argmax())],
        )
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
        said = [[(e.texts, e.confidence, e.loss) for e in getattr(every, kind)] for every in (one, many)]
        assert said[0] == said[1]


def test_several_labels_are_named_together() -> None:
    logits = torch.tensor([[9.0, 9.0, -9.0], [9.0, -9.0, -0.1], [-9.0, -9.0, -9.0]])
    target = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    every = found(logits, target, Multilabel(), Target(3, classes=CLASSES, multilabel=True))
    assert [(each.texts.true, each.texts.predicted) for each in every.mistakes] == [("cat + dog", "cat")]
    assert every.uncertain[0].texts.predicted == "cat"
    assert {each.texts.predicted for each in every.uncertain} == {"cat", "cat + dog", "none"}


def test_a_picture_has_all_of_them() -> None:
    logits, target = torch.randn(80, 3, generator=torch.Generator().manual_seed(2)), torch.arange(80) % 3
    every = found(logits, target, Classification(), Target(3, classes=("x" * 200, "日本", "")), count=32)
    picture = Image.open(io.BytesIO(draw(every)))
    assert picture.width == 10 + 8 * 122
    assert picture.height == 2 * (45 + 4 * (5 * 18 + 40))
    assert Image.open(io.BytesIO(draw(Hardest(JUDGES["class"], [], [])))).width == picture.width


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
    assert worst.texts.true == "cat + dog + été" and worst.image.size == (60, 16)
    assert worst.is_wrong and worst.texts.predicted.endswith("% of its pixels are wrong")
    ignored = worst.image.crop((20, 0, 40, 4))
    assert ignored.getextrema() == ((0, 0), (0, 0), (0, 0)), "what is unknown is black"
    picture = Image.open(io.BytesIO(draw(every)))
    assert picture.width == 10 + 8 * 122


NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBJECTS = Target(3, classes=CLASSES, boxes=True)


def found_boxes(images: list[tuple[list[tuple[float, ...]], list[tuple[float, ...]]]], count: int = 9) -> Hardest:
    """The hardest of images of 40x40 pixels, each with its true boxes and its detections."""
    most = max(len(rows) for image in images for rows in image) + 1
    true, detections = (
        torch.tensor([[*image[part], *[padding] * (most - len(image[part]))] for image in images])
        for part, padding in ((0, NO_BOX), (1, NOTHING))
    )
    greys = (torch.arange(len(images)) / 255).view(-1, 1, 1, 1).expand(-1, 3, 40, 40)
    [each] = hardest(Detection(), {"boxes": OBJECTS}, [(Batch(greys, {"boxes": true}), detections)], count).values()
    return each


def test_boxes_are_hard_by_the_number_of_their_mistakes_then_by_their_scores() -> None:
    cat, dog = (2, 2, 20, 20, 0, 0), (22, 22, 38, 38, 1, 0)
    every = found_boxes(
        [
            ([cat, dog], [(2, 2, 20, 20, 0.9, 0), (22, 22, 38, 38, 0.7, 1)]),
            ([cat], [(2, 2, 20, 20, 0.9, 0), (22, 2, 30, 9, 0.3, 2)]),
            ([cat], [(2, 2, 20, 20, 0.3, 0), (22, 2, 30, 9, 0.8, 2)]),
            ([cat, dog], []),
            ([], []),
            ([], [(5, 5, 9, 9, 0.2, 1)]),
            ([(*cat[:5], 1)], []),
        ]
    )
    assert [pixel(each) for each in every.mistakes] == [3, 2, 1]
    assert [each.loss for each in every.mistakes] == pytest.approx([2, 1.4, 1.15])
    assert [(each.texts.true, each.texts.predicted) for each in every.mistakes] == [
        ("cat + dog", "2 true, 2 missed, 0 wrong"),
        ("cat", "1 true, 0 missed, 1 wrong"),
        ("cat", "1 true, 0 missed, 1 wrong"),
    ]
    confidences = {pixel(each): each.confidence for each in every.uncertain}
    assert confidences == pytest.approx({0: 0.8, 1: 0.6, 2: 0.55, 3: 1, 4: 1, 5: 0.8, 6: 1})
    assert [pixel(each) for each in every.uncertain][:2] == [2, 1]
    ends = {pixel(each): each.texts.end for each in every.uncertain}
    assert ends[0] == "; mean score 0.80" and ends[5] == "; nothing is found"
    [only_ignored] = [each for each in every.uncertain if pixel(each) == 6]
    assert only_ignored.texts.predicted == "0 true, 0 missed, 0 wrong" and not only_ignored.is_wrong


def test_boxes_are_drawn_beside_the_true_ones() -> None:
    every = found_boxes([([(4, 4, 24, 24, 1, 0)], [(4, 4, 24, 24, 0.9, 1), (28, 28, 39, 39, 0.8, 2)])])
    [hard] = every.mistakes
    side = 5 * 40
    assert hard.image.size == (2 * side + 4, side)
    true, predicted = (hard.image.crop((left, 0, left + side, side)) for left in (0, side + 4))
    left_edge, bottom_edge = (20, 100), (60, 119)
    for panel in (true, predicted):
        assert panel.getpixel(left_edge) == panel.getpixel(bottom_edge) == (38, 255, 101)
        assert panel.getpixel((70, 70)) == (0, 0, 0)
    line = [predicted.getpixel((x, 194)) for x in range(140, 185)]
    paint = line[0]
    assert paint != (0, 0, 0) and line == ([paint] * 5 + [(0, 0, 0)] * 4) * 5, "dashes of what is wrong"
    assert {true.getpixel((x, 194)) for x in range(140, 195)} == {(0, 0, 0)}
    picture = Image.open(io.BytesIO(draw(every)))
    assert picture.size == (10 + 8 * 122, 2 * (45 + side + 40))


def test_objects_with_masks_are_judged_by_their_boxes_and_drawn() -> None:
    instances = torch.zeros(2, 20, 20, dtype=torch.int32)
    instances[:, 2:10, 2:10] = 1024 + 1
    found = torch.tensor([[[2, 2, 10, 10, 0.9, 1]], [[2, 2, 10, 10, 0.9, 2]]]).float()
    mask = torch.zeros(20, 20)
    mask[4:8, 4:8] = 0.9
    outputs = torch.cat([found, mask.flatten().expand(2, 1, 400)], dim=2)
    batch = Batch(torch.zeros(2, 3, 20, 20), {"instances": instances})
    of = Target(3, classes=CLASSES, instances=True)
    [every] = hardest(InstanceSegmentation(), {"instances": of}, [(batch, outputs)]).values()
    assert [each.texts.predicted for each in every.mistakes] == ["1 true, 1 missed, 1 wrong"]
    assert every.mistakes[0].texts.true == "dog" and len(every.uncertain) == 2
    right = next(each.image for each in every.uncertain if not each.is_wrong)
    side = (right.width - 4) // 2

    def painted(left: int) -> set[tuple[int, int]]:
        """The pixels of the image whose middles are coloured, between the edges of the box and below its text."""
        places = [(x, y) for y in range(5, 9) for x in range(3, 9)]
        scale = side / 20
        pixels = {at: right.getpixel((left + int((at[0] + 0.5) * scale), int((at[1] + 0.5) * scale))) for at in places}
        return {at for at, pixel in pixels.items() if pixel != (0, 0, 0)}

    assert painted(0) == {(x, y) for y in range(5, 9) for x in range(3, 9)}
    assert painted(side + 4) == {(x, y) for y in range(5, 8) for x in range(4, 8)}
