"""What outputs say of images."""

from typing import Any

import numpy as np
import pytest
import torch
from hotcoco import mask as coding
from torch import Tensor

from tuner.data.decoding import Form
from tuner.data.placing import placement
from tuner.interfaces import IGNORED, Target
from tuner.interfaces.instances import mask_sides
from tuner.interfaces.placement import Placement
from tuner.tasks import Classification, Detection, InstanceSegmentation, Multilabel, Multitask, SemanticSegmentation
from tuner.tasks.base import Task
from tuner.tasks.head import Head
from tuner.tasks.losses import NLL, CrossEntropy, SmoothL1
from tuner.tasks.predictions.base import Options, Prediction
from tuner.tasks.predictions.coding import decoded, encoded

AS_IT_IS = placement((16, 16), Form(3, 16, 16, "crop"))
WIDE = placement((40, 20), Form(3, 16, 16, "crop"))
"""An image of which the input has the middle, 20 x 20 pixels, in 16 x 16."""
PADDED = placement((32, 16), Form(3, 16, 16, "pad"))
"""An image that lies in the input at half of its size, 4 pixels below the upper edge."""
TALL = [
    (placement((40, 20), Form(3, 24, 12, "crop")), (6, 12, 12, 24), (20, 10, 25, 20)),
    (placement((24, 8), Form(3, 24, 12, "pad")), (3, 10, 6, 12), (6, 0, 12, 4)),
    (placement((24, 12), Form(3, 24, 12, "squash")), (3, 6, 6, 12), (6, 3, 12, 6)),
]
"""Wide images in inputs that are twice as high as wide: the edges of a rectangle in the input, and in the image."""


def said(
    task: Task, output: Tensor | dict[str, Tensor], targets: Any, where: Placement = AS_IT_IS, **options: Any
) -> list[dict[str, Prediction]]:
    targets = targets if isinstance(targets, dict) else {"": targets}
    count = len(output if isinstance(output, Tensor) else next(iter(output.values())))
    return list(task.predictions(output, targets, [where] * count, Options(**options)))


def one(task: Task, output: Tensor, target: Target, where: Placement = AS_IT_IS, **options: Any) -> dict[str, Any]:
    [found] = said(task, output, target, where, **options)
    return found[""].as_dict()


def test_a_class_has_a_name_a_probability_and_rivals() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    found = one(Classification(), logits, Target(3, classes=("cat", "dog", "cow")), top=2)
    probabilities = logits.softmax(dim=1)[0].tolist()
    assert found == {
        "label": "dog",
        "probability": probabilities[1],
        "top": [{"label": "dog", "probability": probabilities[1]}, {"label": "cow", "probability": probabilities[2]}],
    }
    unnamed = one(Classification(), logits, Target(3), top=9)
    assert [each["label"] for each in unnamed["top"]] == ["1", "2", "0"]


def test_log_probabilities_are_probabilities_all_the_same() -> None:
    logs = torch.tensor([[0.0, 2.0, 1.0]]).log_softmax(dim=1)
    found = one(Classification(loss=NLL()), logs, Target(3))
    assert found["probability"] == pytest.approx(logs.exp().max().item())


def test_labels_are_those_above_the_threshold() -> None:
    logits, target = torch.tensor([[0.0, 3.0, -1.0], [-1.0, -2.0, -3.0]]), Target(3, None, ("a", "b", "c"), True)
    first, second = (each[""] for each in said(Multilabel(), logits, target))
    assert [each["label"] for each in first.as_dict()["labels"]] == ["b", "a"], "from 0.5 on, as the metrics count"
    assert second.as_dict() == {"labels": []} and second.rows() == [] and str(second) == "none of the classes"
    assert len(one(Multilabel(), logits[:1], target, threshold=0.1)["labels"]) == 3


def test_each_of_several_heads_says_something() -> None:
    heads = {
        "digit": Head(target="label", loss=CrossEntropy()),
        "position": Head(target="position", loss=SmoothL1()),
    }
    outputs = {"digit": torch.tensor([[1.0, 0.0]]), "position": torch.tensor([[1.5, -2.0]])}
    [found] = said(Multitask(heads=heads), outputs, {"digit": Target(2), "position": Target(2, "pixels")})
    assert found["digit"].as_dict()["label"] == "0"
    assert found["position"].as_dict() == {"values": [1.5, -2.0], "unit": "pixels"}
    assert str(found["position"]) == "1.5, -2 pixels"


def detections(*rows: list[float], size: int = 6) -> Tensor:
    """Detections of one image, with rows that are left."""
    output = torch.zeros(1, 9, size)
    output[..., 5] = -1
    for number, row in enumerate(rows):
        output[0, number, : len(row)] = torch.tensor(row)
    return output


def test_boxes_are_in_pixels_of_the_image() -> None:
    target = Target(2, classes=("cat", "dog"), boxes=True)
    output = detections([4, 4, 8, 12, 0.3, 0], [2, 6, 6, 10, 0.9, 1], [0, 0, 3, 3, 0.2, 0], [1, 0, 9, 4, 0.8, 0])
    found = one(Detection(), output, target, PADDED)["boxes"]
    assert found == [
        {"box": [4, 4, 12, 12], "label": "dog", "score": pytest.approx(0.9)},
        {"box": [8, 0, 16, 16], "label": "cat", "score": pytest.approx(0.3)},
    ], "the surest first; one lies in the padding, and one is too unsure"
    assert len(one(Detection(), output, target, PADDED, threshold=0.5)["boxes"]) == 1
    assert one(Detection(), detections(), target)["boxes"] == []
    [cropped] = one(Detection(), detections([0, 0, 16, 16, 1, 0]), target, WIDE)["boxes"]
    assert cropped["box"] == [10, 0, 30, 20]


def test_masks_of_objects_are_in_pixels_of_the_image() -> None:
    target = Target(2, classes=("cat", "dog"), instances=True)
    mask = torch.zeros(16, 16)
    mask[4:12, 8:] = 1  # the lower half of the padded image would begin at 8
    output = detections([8, 4, 16, 12, 0.9, 1], size=6 + 16 * 16)
    output[0, 0, 6:] = mask.flatten()
    [found] = one(InstanceSegmentation(), output, target, PADDED)["boxes"]
    pixels = coding.decode(found["mask"] | {"counts": found["mask"]["counts"].encode()})
    assert pixels.shape == (16, 32) and pixels[:, 16:].all() and not pixels[:, :16].any()
    whole = detections([0, 0, 16, 16, 0.9, 1], size=6 + 16 * 16)
    whole[0, 0, 6:] = 1
    [cropped] = one(InstanceSegmentation(), whole, target, WIDE)["boxes"]
    shown = decoded(cropped["mask"])
    assert shown[:, 10:30].all() and shown.sum() == 20 * 20, "nothing is known of what the crop cut off"


@pytest.mark.parametrize("side", [320, 640])
def test_masks_of_large_inputs_are_smaller_than_these(side: int) -> None:
    large = placement((2 * side, 320), Form(3, 320, side, "pad"))
    height, width = mask_sides(320, side)
    output = detections([0, 80, side / 2, 240, 0.9, 0], size=6 + height * width)
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    output[0, 0, 6:] = mask.flatten()
    [found] = one(InstanceSegmentation(), output, Target(1, instances=True), large)["boxes"]
    pixels = decoded(found["mask"])
    assert pixels.shape == (320, 2 * side) and pixels[:, : side - 1].all() and not pixels[:, side + 1 :].any()


def rectangle(edges: tuple[int, int, int, int], height: int, width: int) -> Tensor:
    """A mask that is 1 within the edges."""
    left, top, right, bottom = edges
    mask = torch.zeros(height, width)
    mask[top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize(("where", "inside", "wanted"), TALL, ids=["crop", "pad", "squash"])
def test_objects_in_inputs_that_are_not_square_are_where_they_are_in_the_image(
    where: Placement, inside: tuple[int, int, int, int], wanted: tuple[int, int, int, int]
) -> None:
    output = detections([*inside, 0.9, 0], size=6 + 24 * 12)
    output[0, 0, 6:] = rectangle(inside, 24, 12).flatten()
    [found] = one(InstanceSegmentation(), output, Target(1, instances=True), where)["boxes"]
    assert found["box"] == pytest.approx(wanted)
    assert (decoded(found["mask"]) == rectangle(wanted, where.height, where.width).numpy()).all()
    [boxed] = one(Detection(), output[..., :6], Target(1, boxes=True), where)["boxes"]
    assert boxed["box"] == found["box"]


@pytest.mark.parametrize(("where", "inside", "wanted"), TALL, ids=["crop", "pad", "squash"])
def test_classes_of_pixels_in_inputs_that_are_not_square_are_those_of_the_image(
    where: Placement, inside: tuple[int, int, int, int], wanted: tuple[int, int, int, int]
) -> None:
    mask = rectangle(inside, 24, 12)
    logits = torch.stack([1 - mask, mask])[None]
    [found] = said(SemanticSegmentation(), logits, Target(2, classes=("sky", "car"), per_pixel=True), where)
    pixels = found[""].classes_of_pixels
    expected = rectangle(wanted, where.height, where.width).numpy().astype(np.uint8)
    if where is TALL[0][0]:
        expected[:, :15] = expected[:, 25:] = IGNORED  # the input shows the middle, 10 pixels of 40
    assert pixels is not None and (pixels == expected).all()


def test_the_classes_of_pixels_are_those_of_the_image() -> None:
    names = ("sky", "road", "car")
    target = Target(3, classes=names, per_pixel=True)
    classes = torch.randint(0, 3, (16, 16), generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.one_hot(classes).permute(2, 0, 1).float()[None]
    [found] = said(SemanticSegmentation(), logits, target)
    shown = found[""].classes_of_pixels
    assert shown is not None and (shown == classes.numpy()).all(), "an image of the input's size"
    halves = torch.zeros(1, 3, 16, 16)
    halves[:, 2, :, :8], halves[:, 1, :, 8:] = 5, 5
    [cropped] = said(SemanticSegmentation(), halves, target, WIDE)
    pixels = cropped[""].classes_of_pixels
    assert pixels is not None and pixels.shape == (20, 40)
    assert (pixels[:, 10:20] == 2).all() and (pixels[:, 20:30] == 1).all()
    assert (pixels[:, :10] == IGNORED).all() and (pixels[:, 30:] == IGNORED).all()
    masks = cropped[""].as_dict()["masks"]
    assert [(each["label"], each["share"]) for each in masks] == [("road", 0.5), ("car", 0.5)]
    assert (decoded(masks[1]["mask"]) == (pixels == 2)).all()
    assert str(cropped[""]) == "50% road, 50% car"


def test_a_mask_is_coded_as_coco_does() -> None:
    mask = np.random.default_rng(0).random((11, 7)) > 0.6
    code = encoded(mask)
    assert code["size"] == [11, 7] and isinstance(code["counts"], str)
    assert (decoded(code) == mask).all()
