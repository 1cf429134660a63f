"""Metrics of a resample are those of a meter that has seen each sample as often."""

from typing import Any

import numpy as np
import pytest
import torch
from test_boxes import detections_of, random_boxes
from torch import Tensor

from tuner.interfaces import IGNORED
from tuner.interfaces.instances import NUMBERS, mask_sides
from tuner.tasks import Classification, Detection, InstanceSegmentation, Multilabel, Multitask, SemanticSegmentation
from tuner.tasks.base import TaskMeter

SAMPLES = 30


def classes(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rng.normal(size=(SAMPLES, 7))).float(), torch.from_numpy(rng.integers(0, 6, SAMPLES))


def multilabel(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(rng.integers(0, 2, (SAMPLES, 4))).float()
    return labels + torch.from_numpy(rng.normal(size=labels.shape)).float(), labels


def masks(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    mask = torch.from_numpy(rng.integers(0, 3, (SAMPLES, 12, 9), dtype=np.uint8))
    mask[3:9, :5] = IGNORED
    return torch.from_numpy(rng.normal(size=(SAMPLES, 3, 12, 9))).float(), mask


def boxes(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    true = random_boxes(rng, SAMPLES, 6, 300.0)
    found = detections_of(rng, true, 9, 300.0)
    return found.gather(1, found[..., 4].argsort(1, descending=True).unsqueeze(-1).expand_as(found)), true


def instances(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    side = 16
    target = torch.zeros((SAMPLES, side, side), dtype=torch.int32)
    found = torch.zeros((SAMPLES, 3, 6 + side * side))
    assert mask_sides(side, side) == (side, side)
    for image in range(SAMPLES):
        for number in range(int(rng.integers(0, 3))):
            left, top = rng.integers(0, 8, 2)
            label = int(rng.integers(0, 3))
            target[image, top : top + 7, left : left + 7] = label * NUMBERS + number + 1
            shown = torch.zeros((side, side))
            shown[top + 1 : top + 7, left : left + 6] = 1
            values = [left, top + 1, left + 6, top + 7, rng.random(), label if rng.random() < 0.8 else 2]
            found[image, number] = torch.cat([torch.tensor(values), shown.flatten()])
        found[image, number + 1 if target[image].any() else 0 :, 5] = -1
    return found, target


TASKS: dict[str, tuple[Any, Any]] = {
    "label": (Classification(), classes),
    "labels": (Multilabel(target="labels"), multilabel),
    "mask": (SemanticSegmentation(), masks),
    "boxes": (Detection(), boxes),
    "instances": (InstanceSegmentation(), instances),
    "values": (Multitask.model_validate({"heads": {"at": {"target": "values", "loss": {"kind": "mse"}}}}), None),
}


def seen(task: Any, name: str, output: Any, target: Tensor, sizes: list[int]) -> TaskMeter:
    meter: TaskMeter = task.meter()
    meter.keep_samples()
    for outputs, targets in zip(torch.split(output, sizes), torch.split(target, sizes), strict=True):
        meter.update({"at": outputs} if name == "values" else outputs, {name: targets})
    return meter


@pytest.mark.parametrize("name", TASKS)
def test_metrics_of_a_resample(name: str) -> None:
    task, samples = TASKS[name]
    rng = np.random.default_rng(7)
    of = samples or (lambda rng: tuple(torch.from_numpy(rng.normal(size=(2, SAMPLES, 2))).float()))
    output, target = of(rng)
    meter = seen(task, name, output, target, [11, 1, 18])
    once = meter.weighted(np.ones(SAMPLES, dtype=np.int64))
    assert once.compute() == pytest.approx(meter.compute(), nan_ok=True), "each sample counts once"
    for head, columns in meter.by_class().items():
        for column, values in columns.items():
            assert once.by_class()[head][column] == pytest.approx(values, nan_ok=True), column
    drawn = np.sort(rng.integers(0, SAMPLES, SAMPLES))
    repeated = seen(task, name, output[drawn], target[drawn], [SAMPLES])
    resampled = meter.weighted(np.bincount(drawn, minlength=SAMPLES))
    assert resampled.compute() == pytest.approx(repeated.compute(), nan_ok=True, rel=1e-4)
    assert resampled.compute() != pytest.approx(meter.compute(), nan_ok=True, rel=1e-4)
    for head, columns in repeated.by_class().items():
        for column, values in columns.items():
            assert resampled.by_class()[head][column] == pytest.approx(values, nan_ok=True, rel=1e-4), column
    other = seen(task, name, output[:12], target[:12], [12])
    other.merge(seen(task, name, output[12:], target[12:], [18]))
    counts = np.bincount(drawn, minlength=SAMPLES)
    assert other.weighted(counts).compute() == pytest.approx(resampled.compute(), nan_ok=True)


def test_which_samples_are_right() -> None:
    output, target = classes(np.random.default_rng(1))
    right = seen(Classification(), "label", output, target, [9, 21]).right()["label"]
    assert right.tolist() == (output.argmax(dim=1) == target).tolist()
    assert not seen(Detection(), "boxes", *boxes(np.random.default_rng(1)), [SAMPLES]).right()
