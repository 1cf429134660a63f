"""Boxes over an image: where they are, what they look like, and where their names are."""

from typing import Any

import numpy as np
import pytest
import torch

from tuner.inspection.boxes import Box, Style, boxes_over, true_boxes
from tuner.interfaces import NO_BOX, Target

GREY = torch.full((1, 60, 80), 0.5)
EDGES = (10, 20, 40, 50)


def drawn(*boxes: Box, image: torch.Tensor = GREY, side: int = 80) -> Any:
    """Where a picture of boxes is not that of the image, (H, W), and the picture, (H, W, 3)."""
    shown = np.asarray(boxes_over(image, boxes, side)).astype(int)
    return np.abs(shown - 128).max(axis=2) > 8, shown


def frame(width: int = 2) -> Any:
    """The pixels of the outline of `EDGES`."""
    pixels = np.zeros((60, 80), dtype=bool)
    pixels[20:50, 10:40] = True
    pixels[20 + width : 50 - width, 10 + width : 40 - width] = False
    return pixels


def test_an_outline_is_around_what_it_is_around() -> None:
    where, shown = drawn(Box(EDGES, 1))
    assert (where == frame()).all()
    assert (shown[frame()] == (38, 255, 101)).all(), "in the colour of its class"
    assert (drawn(Box(EDGES, 2))[1][frame()] == (165, 38, 255)).all()


def test_styles_look_different() -> None:
    plain, mistake, ignored = (drawn(Box(EDGES, 1, style=style)) for style in ("plain", "mistake", "ignored"))
    assert (mistake[0] == frame()).all() and (ignored[0] == frame(1)).all()
    assert set(map(tuple, mistake[1][frame()])) == {(38, 255, 101), (0, 0, 0)}, "dashes on black"
    assert set(map(tuple, ignored[1][frame(1)])) == {(154, 163, 171)}
    assert set(map(tuple, plain[1][frame()])) == {(38, 255, 101)}


@pytest.mark.parametrize(("style", "behind"), [("plain", (38, 255, 101)), ("mistake", (255, 255, 255))])
def test_a_name_is_above_its_box(style: Style, behind: tuple[int, int, int]) -> None:
    where, shown = drawn(Box(EDGES, 1, "cat", style))
    assert where[7:20, 10:20].all() and not where[:7].any()
    assert (shown[7, 10:20] == behind).all()


def test_a_name_at_the_upper_edge_is_within_its_box() -> None:
    where, _ = drawn(Box((10, 5, 60, 50), 1, "cat"))
    assert where[5:18, 10:20].all() and not where[:5].any()


def test_where_there_is_no_room_a_name_is_at_the_lower_edge_or_left_out() -> None:
    below = drawn(Box(EDGES, 1, "cat", "mistake"), Box(EDGES, 2, "dog"))[1]
    assert (below[7, 10:20] == 255).all(), "a mistake is named first"
    assert (below[36, 10:20] == (165, 38, 255)).all()
    both = [Box(EDGES, 1, "cat", "mistake"), Box(EDGES, 2, "dog")]
    assert (drawn(*both, Box(EDGES, 3, "cow"))[1] == drawn(*both, Box(EDGES, 3))[1]).all()
    assert (drawn(Box(EDGES, 1, "x" * 100))[1] == drawn(Box(EDGES, 1))[1]).all()


def test_a_small_image_is_enlarged_by_whole_times_and_a_large_one_reduced() -> None:
    where, _ = drawn(Box((1, 2, 4, 5), 1), image=torch.full((3, 6, 8), 0.5), side=87)
    assert where.shape == (60, 80) and (where == frame()).all()
    where, _ = drawn(Box((100, 200, 400, 500), 1), image=torch.full((3, 600, 800), 0.5))
    assert where.shape == (60, 80) and (where == frame()).all()


def test_a_box_beyond_the_image_ends_at_its_edge() -> None:
    where, _ = drawn(Box((-5, -5, 100, 100), 1))
    assert where[[0, -1]].all() and where[:, [0, -1]].all() and not where[2:-2, 2:-2].any()
    where, _ = drawn(Box((90, 70, 95, 75), 1))
    assert where[-2:, -2:].all() and where.sum() == 4


def test_true_boxes_have_the_names_of_their_classes() -> None:
    rows = torch.tensor([[*EDGES, 1, 0], [*EDGES, 2, 1], NO_BOX])
    cat, other = true_boxes(rows, Target(3, classes=("ant", "cat"), boxes=True))
    assert cat == Box(list(EDGES), 1, "cat") and other == Box(list(EDGES), 2, "2", "ignored")
