"""Targets of data in the classes of a model."""

from pathlib import Path

import torch
from encoded_files import write_coco, write_csv

from tuner.deploy.evaluate.classes import Match
from tuner.deploy.evaluate.sets import evaluation_set
from tuner.interfaces import IGNORED, NO_BOX, Target
from tuner.interfaces.instances import NUMBERS

INDEX = torch.tensor([2, -1, 0])
"""The model knows the first class of the data as its third, the third as its first, and the second not."""


def test_one_class() -> None:
    values, kept = Match("label", Target(3), INDEX).brought(torch.tensor([0, 1, 2, 0]))
    assert kept.tolist() == [True, False, True, True]
    assert values[kept].tolist() == [2, 0, 2]


def test_several_classes() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    values, kept = Match("label", Target(4, multilabel=True), INDEX).brought(labels)
    assert values.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]] and kept.all()


def test_masks() -> None:
    mask = torch.tensor([[[0, 1], [2, IGNORED]]], dtype=torch.uint8)
    values, kept = Match("mask", Target(3, per_pixel=True), INDEX).brought(mask)
    assert values.tolist() == [[[2, IGNORED], [0, IGNORED]]] and values.dtype == torch.uint8 and kept.all()


def test_boxes() -> None:
    box = [1.0, 2.0, 3.0, 4.0]
    boxes = torch.tensor([[[*box, 0, 1], [*box, 1, 0], [*box, 2, 0], NO_BOX]])
    values, kept = Match("boxes", Target(3, boxes=True), INDEX).brought(boxes)
    assert values.tolist() == [[[*box, 2, 1], list(NO_BOX), [*box, 0, 0], list(NO_BOX)]] and kept.all()


def test_objects() -> None:
    codes = torch.tensor([[[0, 1, NUMBERS + 2], [2 * NUMBERS + 3, -(2 * NUMBERS) - 4, -5]]], dtype=torch.int16)
    values, kept = Match("instances", Target(60, instances=True), INDEX).brought(codes)
    assert values.tolist() == [[[0, 2 * NUMBERS + 1, 0], [3, -4, -(2 * NUMBERS) - 5]]] and kept.all()
    high = Match("instances", Target(60, instances=True), torch.tensor([50])).brought(torch.ones((1, 1, 1)).short())
    assert high[0].tolist() == [[[50 * NUMBERS + 1]]], "a class that 16 bits do not hold"


def test_masks_of_objects_are_read_where_the_files_have_them(tmp_path: Path) -> None:
    found = evaluation_set(write_coco(tmp_path / "coco", 9, 4), None, {})
    assert found.name == "test" and [*found.targets] == ["boxes"], "val is the test set where there is no other"
    objects = found.with_objects()
    assert objects.targets["instances"].kind == "instances" and len(objects.paths(9)) == 4
    listed = evaluation_set(write_csv(tmp_path / "csv", 30), None, {})
    assert listed.with_objects() is listed and listed.name == "all" and len(listed.paths(99)) == 30
