"""Average precision of boxes, held against pycocotools."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import box_iou

from tuner.interfaces import NO_BOX
from tuner.objectives import why_undefined
from tuner.tasks import Classification, Detection
from tuner.tasks.metrics.boxes import AveragePrecision
from tuner.tasks.metrics.voc import VOCAveragePrecision

CLASSES = 5


def random_boxes(rng: np.random.Generator, images: int, most: int, side: float) -> Tensor:
    """Boxes (N, most, 6) of which some are crowds, and some images have none."""
    boxes = torch.tensor(NO_BOX).repeat(images, most, 1)
    for row in boxes:
        for number in range(rng.integers(0, most + 1)):
            start = rng.uniform(0, side * 0.7, 2)
            size = np.minimum(rng.uniform(0.02, 1, 2) ** 2 * side, side - start)
            edges = [*start, *(start + size), rng.integers(CLASSES), rng.random() < 0.1]
            row[number] = torch.tensor(np.array(edges, dtype=np.float32))
    return boxes


def detections_of(rng: np.random.Generator, boxes: Tensor, count: int, side: float) -> Tensor:
    """Detections (N, count, 6): most are true boxes that were moved, and some are doubles or of another class."""
    found = torch.zeros((len(boxes), count, 6))
    found[..., 5] = -1
    for row, true in zip(found, boxes, strict=True):
        known = true[true[:, 4] >= 0]
        for number in range(rng.integers(0, count + 1)):
            if len(known) and rng.random() < 0.8:
                edges = known[rng.integers(len(known))].clone()
                edges[:4] += torch.from_numpy(rng.normal(0, 0.02 * side, 4))
                edges[:2], edges[2:4] = torch.minimum(edges[:2], edges[2:4] - 1), edges[2:4]
                category = edges[4] if rng.random() < 0.8 else rng.integers(CLASSES)
            else:
                start = rng.uniform(0, side * 0.7, 2)
                edges = torch.tensor([*start, *(start + rng.uniform(1, side * 0.3, 2))])
                category = rng.integers(CLASSES)
            row[number] = torch.tensor([*edges[:4], rng.random(), category])
    return found


def of_pycocotools(boxes: Tensor, found: Tensor) -> dict[str, float]:
    """The same metrics by pycocotools."""

    def rows(values: Tensor, category: int) -> list[dict[str, object]]:
        return [
            {
                "image_id": image,
                "category_id": int(row[category]),
                "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
                "area": (row[2] - row[0]) * (row[3] - row[1]),
                "score": row[4],
                "iscrowd": int(row[5]) if category == 4 else 0,
            }
            for image, each in enumerate(values.double().tolist())
            for row in each
            if row[category] >= 0
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(len(boxes))],
            "categories": [{"id": number} for number in range(CLASSES)],
            "annotations": [row | {"id": number + 1} for number, row in enumerate(rows(boxes, 4))],
        }
        truth.createIndex()
        result = COCOeval(truth, truth.loadRes(rows(found, 5)), "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    names = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall": 8}
    return {name: float(result.stats[index]) for name, index in names.items()}


@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 40, 12, 300)
    found = detections_of(rng, boxes, 30, 300)
    meter = AveragePrecision()
    for start in range(0, 40, 16):
        meter.update(found[start : start + 16], boxes[start : start + 16])
    assert meter.compute() == pytest.approx(of_pycocotools(boxes, found), abs=1e-9)


def test_two_processes_measure_what_one_does() -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 30, 6, 200)
    found = detections_of(rng, boxes, 20, 200)
    whole, first, second = AveragePrecision(), AveragePrecision(), AveragePrecision()
    whole.update(found, boxes)
    first.update(found[:13], boxes[:13])
    first.compute()
    second.update(found[13:], boxes[13:])
    first.merge(second)
    assert first.compute() == whole.compute()
    np.testing.assert_array_equal(list(first.by_class().values()), list(whole.by_class().values()))


def test_each_class_has_its_own() -> None:
    boxes = torch.tensor([[[0, 0, 10, 10, 1, 0], [20, 20, 40, 40, 0, 0]]]).float()
    found = torch.tensor([[[0, 0, 10, 10, 0.9, 1], [0, 0, 5, 5, 0.8, 2], [0, 0, 0, 0, 0, -1]]]).float()
    meter = AveragePrecision()
    meter.update(found, boxes)
    table = meter.by_class()
    assert table["ap"][:2] == pytest.approx([0, 1]) and math.isnan(table["ap"][2])
    assert table["support"] == [1, 1, 0]


def test_what_occurs_nowhere_has_no_value() -> None:
    meter = AveragePrecision()
    meter.update(torch.tensor([[[0, 0, 9, 9, 0.5, 0]]]), torch.tensor([[NO_BOX]]))
    measured = {f"val_{name}": value for name, value in meter.compute().items()}
    assert all(math.isnan(value) for value in measured.values())
    assert all(why_undefined(name, measured).startswith("no object") for name in measured)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([0, 0, 100, 100, 0.9, 1], "class"),
        ([0, 0, 40, 100, 0.9, 0], "place"),
        ([0, 0, 40, 100, 0.9, 1], "class and place"),
        ([200, 200, 290, 290, 0.9, 0], "background"),
    ],
)
def test_each_kind_of_error_is_counted(found: list[float], error: str) -> None:
    meter = AveragePrecision()
    boxes = torch.tensor([[[0, 0, 100, 100, 0, 0], [150, 0, 190, 40, 1, 0]]]).float()
    meter.update(torch.tensor([[found]]), boxes)
    counts = {kind.name: kind.count for kind in meter.errors()}
    assert counts[error] == 1
    assert {name for name, count in counts.items() if count} <= {error, "missed"}


def test_a_task_tells_the_errors_of_each_head_that_finds_objects() -> None:
    meter = Detection().meter()
    boxes = torch.tensor([[[0, 0, 100, 100, 0, 0]]]).float()
    meter.update(torch.tensor([[[0, 0, 100, 100, 0.9, 1], [0, 0, 100, 100, 0.8, 0]]]), {"boxes": boxes})
    [(target, kinds)] = meter.errors().items()
    assert target == "boxes" and [kind.name for kind in kinds if kind.count] == ["class"]
    assert len(kinds) == 6 and {kind.metric for kind in kinds} <= set(meter.compute())
    training = Detection().meter(training=True)
    assert training.errors() == {} == Classification().meter().errors()


def test_a_second_detection_of_an_object_is_a_double() -> None:
    meter = AveragePrecision()
    boxes = torch.tensor([[[0, 0, 100, 100, 0, 0]]]).float()
    meter.update(torch.tensor([[[0, 0, 100, 100, 0.9, 0], [0, 0, 90, 100, 0.8, 0]]]), boxes)
    assert [kind.count for kind in meter.errors() if kind.name == "double"] == [1]


def test_the_loss_of_a_detector_is_measured_in_training_alone() -> None:
    task = Detection()
    assert task.train_metrics == ("loss",) and "loss" not in task.metrics()
    meter = task.meter(training=True)
    meter.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), {"boxes": torch.zeros(2, 1, 6)})
    assert meter.compute() == {"loss": 5.0}


def of_the_devkit(boxes: Tensor, found: Tensor) -> float:
    """Pascal VOC's mean average precision, detection by detection, as its development kit describes it."""
    areas = []
    for category in range(CLASSES):
        objects = {image: rows[rows[:, 4] == category] for image, rows in enumerate(boxes)}
        count = sum(int((rows[:, 5] == 0).sum()) for rows in objects.values())
        detections = [
            (row[4].item(), image, row[:4]) for image, rows in enumerate(found) for row in rows if row[5] == category
        ]
        taken: set[tuple[int, int]] = set()
        right, wrong, curve = 0, 0, [(0.0, 0.0)]
        for _, image, box in sorted(detections, key=lambda each: -each[0]):
            overlap = box_iou(box[None].double(), objects[image][:, :4].double())[0]
            best = int(overlap.argmax()) if len(overlap) else -1
            if best >= 0 and overlap[best] >= 0.5 and objects[image][best, 5]:
                continue
            if best >= 0 and overlap[best] >= 0.5 and (image, best) not in taken:
                taken.add((image, best))
                right += 1
            else:
                wrong += 1
            curve.append((right / max(count, 1), right / (right + wrong)))
        if count:
            steps = range(1, len(curve))
            areas.append(sum((curve[n][0] - curve[n - 1][0]) * max(p for _, p in curve[n:]) for n in steps))
    return float(np.mean(areas))


@pytest.mark.parametrize("seed", range(3))
def test_that_of_pascal_voc_is_what_its_development_kit_describes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 20, 8, 200)
    found = detections_of(rng, boxes, 20, 200)
    order = found[..., 4].argsort(dim=1, descending=True)
    found = found.gather(1, order.unsqueeze(2).expand(-1, -1, 6))
    first, second = VOCAveragePrecision(), VOCAveragePrecision()
    first.update(found[:7], boxes[:7])
    second.update(found[7:], boxes[7:])
    first.merge(second)
    assert first.compute()["map_voc"] == pytest.approx(of_the_devkit(boxes, found), abs=1e-9)
    nothing = VOCAveragePrecision()
    nothing.update(found, torch.tensor(NO_BOX).expand(20, 1, 6))
    assert math.isnan(nothing.compute()["map_voc"])
