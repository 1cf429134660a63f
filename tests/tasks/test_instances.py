"""Objects with masks: their codes, their boxes, and their average precision, held against pycocotools."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coding
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from tuner.interfaces.instances import NUMBERS, boxes_of, classes_of, mask_sides, masks_of, numbers_of
from tuner.tasks import InstanceSegmentation
from tuner.tasks.metrics.instances import BoxesOfInstances, MaskAveragePrecision

SIDE = 40


def test_a_code_says_the_class_and_the_object() -> None:
    codes = torch.tensor([0, 3 * NUMBERS + 7, -(2 * NUMBERS + 1)], dtype=torch.int16)
    assert classes_of(codes).tolist() == [-1, 3, 2]
    assert numbers_of(codes).tolist() == [0, 7, 1]


def test_boxes_are_around_what_is_visible() -> None:
    instances = torch.zeros((2, 20, 30), dtype=torch.int16)
    instances[0, 2:10, 5:25] = 4 * NUMBERS + 9
    instances[0, 4:6, 20:30] = 1 * NUMBERS + 3  # in front
    instances[0, 15:20, 0:2] = -(2 * NUMBERS + 5)
    boxes, numbers = boxes_of(instances, 4)
    assert boxes[0, :3].tolist() == [[20, 4, 30, 6, 1, 0], [0, 15, 2, 20, 2, 1], [5, 2, 25, 10, 4, 0]]
    assert numbers.tolist() == [[3, 5, 9, 0], [0, 0, 0, 0]]
    assert (boxes[0, 3:, 4] == -1).all() and (boxes[1, :, 4] == -1).all()
    assert len(boxes_of(instances, 2)[0][0]) == 2


def test_masks_are_the_share_of_each_pixel() -> None:
    instances = torch.zeros((1, 8, 8), dtype=torch.int16)
    instances[0, :4, :3] = NUMBERS + 2
    masks = masks_of(instances, torch.tensor([[2, 0]]), (4, 4))
    assert masks[0, 0].tolist() == [[1, 0.5, 0, 0], [1, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not masks[0, 1].any()
    assert mask_sides(48, 64) == (48, 64) and mask_sides(320, 321) == (80, 81)


def scenes(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Instances of squares (N, S, S), and detections with masks of which many are near them."""
    instances = torch.zeros((count, SIDE, SIDE), dtype=torch.int16)
    found = torch.zeros((count, 12, 6 + SIDE * SIDE))
    found[..., 5] = -1
    for image, rows in zip(instances, found, strict=True):
        for number in range(1, rng.integers(1, 6)):
            top, left = rng.integers(0, 25, 2)
            high, wide = rng.integers(3, 15, 2)
            category, sign = rng.integers(3), -1 if rng.random() < 0.1 else 1
            image[top : top + high, left : left + wide] = int(sign * (category * NUMBERS + number))
            for row in rows[2 * number : 2 * number + rng.integers(0, 3)]:
                shift = rng.integers(0, 4, 2)
                mask = torch.zeros(SIDE, SIDE)
                mask[top + shift[0] : top + high, left + shift[1] : left + wide] = 0.9
                other = category if rng.random() < 0.8 else rng.integers(3)
                row[:6] = torch.tensor([left, top, left + wide, top + high, rng.random(), other])
                row[6:] = mask.flatten()
    return found, instances


def of_pycocotools(found: Tensor, instances: Tensor) -> dict[str, float]:
    objects: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, codes in enumerate(instances):
        for code in sorted({*codes.flatten().tolist()} - {0}):
            mask = coding.encode(np.asfortranarray((codes == code).numpy().astype(np.uint8)))
            area = float(coding.area(mask))
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": abs(code) // NUMBERS,
                    "segmentation": mask,
                    "area": area,
                    "bbox": coding.toBbox(mask).tolist(),
                    "iscrowd": int(code < 0),
                }
            )
        for row in found[image]:
            if row[5] >= 0:
                shown = (row[6:].view(SIDE, SIDE) >= 0.5).numpy().astype(np.uint8)
                mask = coding.encode(np.asfortranarray(shown))
                scored = {"image_id": image, "category_id": int(row[5]), "score": float(row[4])}
                results.append(scored | {"segmentation": mask})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number, "height": SIDE, "width": SIDE} for number in range(len(instances))],
            "categories": [{"id": number} for number in range(3)],
            "annotations": objects,
        }
        truth.createIndex()
        result = COCOeval(truth, truth.loadRes(results), "segm")
        result.evaluate()
        result.accumulate()
        result.summarize()
    return {"map": result.stats[0], "map50": result.stats[1], "map75": result.stats[2], "recall": result.stats[8]}


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_of_masks_is_that_of_pycocotools(seed: int) -> None:
    found, instances = scenes(np.random.default_rng(seed), 30)
    first, second = MaskAveragePrecision(), MaskAveragePrecision()
    first.update(found[:8], instances[:8])
    first.update(found[8:20], instances[8:20])
    second.update(found[20:], instances[20:])
    first.merge(second)
    expected = of_pycocotools(found, instances)
    assert {name: first.compute()[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert sum(first.by_class()["support"]) == sum(
        len({*each.flatten().tolist()} - {0}) - len({code for code in each.flatten().tolist() if code < 0})
        for each in instances
    )


def test_boxes_of_the_same_objects_are_measured_beside_their_masks() -> None:
    found, instances = scenes(np.random.default_rng(0), 10)
    meter = BoxesOfInstances()
    meter.update(found, instances)
    measured = meter.compute()
    assert tuple(measured) == meter.names and 0 < measured["box_map"] < measured["box_map50"] <= 1
    assert set(meter.by_class()) == {"box_ap", "box_ap50"}


def test_nothing_has_no_value() -> None:
    task = InstanceSegmentation()
    meter = task.meter()
    meter.update(torch.tensor([[[0, 0, 0, 0, 0, -1] + [0] * 16]]).float(), {"instances": torch.zeros(1, 4, 4).short()})
    measured = meter.compute()
    assert tuple(measured) == task.metrics() and all(math.isnan(value) for value in measured.values())
