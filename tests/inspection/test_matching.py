"""Which detections find which objects, case by case."""

from typing import Any

import pytest
import torch

from tuner.inspection.matching import match
from tuner.interfaces import NO_BOX
from tuner.tasks.metrics.boxes import AveragePrecision

A, B = (0, 0, 10, 10), (20, 0, 30, 10)
HALF = (0, 0, 10, 5)
"""Overlaps `A` by an intersection over union of exactly a half."""
PADDING = (0, 0, 0, 0, 0, -1)


def matched(found: list[Any], true: list[Any]) -> tuple[list[float], list[float], list[int]]:
    """The scores of the detections that are right and wrong, and the objects that are missed, by their order."""
    matches = match(torch.tensor([*found, PADDING]).float(), torch.tensor([*true, NO_BOX]).float())
    scores = matches.found[:, 4]
    right, wrong = ([round(score, 2) for score in scores[which].tolist()] for which in (matches.right, matches.wrong))
    return right, wrong, matches.missed.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ([], [], ([], [], [])),
        ([], [(*A, 0, 0)], ([], [], [0])),
        ([(*A, 0.9, 0)], [], ([], [0.9], [])),
        ([(*A, 0.9, 0), (*B, 0.8, 1)], [(*B, 1, 0), (*A, 0, 0)], ([0.9, 0.8], [], [])),
        ([(*A, 0.9, 1)], [(*A, 0, 0)], ([], [0.9], [0])),
        ([(*HALF, 0.9, 0)], [(*A, 0, 0)], ([0.9], [], [])),
        ([(0, 0, 10, 4.9, 0.9, 0)], [(*A, 0, 0)], ([], [0.9], [0])),
        ([(*A, 0.25, 0)], [(*A, 0, 0)], ([0.25], [], [])),
        ([(*A, 0.24, 0)], [(*A, 0, 0)], ([], [], [0])),
        # The surest finds the object, though another one overlaps it more and comes first.
        ([(*A, 0.6, 0), (*HALF, 0.7, 0)], [(*A, 0, 0)], ([0.7], [0.6], [])),
        # The surest takes what it overlaps most, and the other one finds what is left.
        (
            [(0, 0, 10, 10, 0.9, 0), (0, 0, 10, 9, 0.8, 0)],
            [(0, 0, 10, 8, 0, 0), (0, 0, 10, 10, 0, 0)],
            ([0.9, 0.8], [], []),
        ),
    ],
)
def test_each_detection_finds_one_object(found: list[Any], true: list[Any], expected: Any) -> None:
    assert matched(found, true) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ([], [], [])),
        ([(*A, 0.9, 0), (*A, 0.8, 0)], ([], [], [])),
        # As of crowds, of which a detection is a part.
        ([(0, 0, 2, 2, 0.9, 0)], ([], [], [])),
        ([(8, 0, 14, 10, 0.9, 0)], ([], [0.9], [])),
        ([(*A, 0.9, 1)], ([], [0.9], [])),
    ],
)
def test_what_is_ignored_is_neither_missed_nor_makes_it_a_detection_wrong(found: list[Any], expected: Any) -> None:
    assert matched(found, [(*A, 0, 1)]) == expected


def test_an_object_that_counts_is_found_before_one_that_is_ignored_excuses() -> None:
    assert matched([(*A, 0.9, 0), (*A, 0.8, 0)], [(*A, 0, 1), (*A, 0, 0)]) == ([0.9], [], [])


def test_as_many_are_found_as_by_the_meter() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(40, 2, generator=generator) * 50
    true = torch.cat([start, start + 10, torch.zeros(40, 2)], dim=1)
    moved = start + torch.randn(40, 2, generator=generator) * 3
    scores = 0.9 - torch.arange(40).view(-1, 1) / 100
    found = torch.cat([moved, moved + 10, scores, torch.zeros(40, 1)], dim=1)
    matches = match(found, true)
    meter = AveragePrecision()
    meter.update(found[None], true[None])
    recall = meter._of("recall")[0, 0, 0]
    assert 5 < matches.right.sum() < 35
    assert matches.right.sum().item() == pytest.approx(40 * recall)
    assert matches.right.sum() + matches.wrong.sum() == 40 == matches.right.sum() + matches.missed.sum()
