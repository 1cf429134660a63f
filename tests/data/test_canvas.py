from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.data.canvas import place


def images(count: int, height: int = 5, width: int = 4) -> Tensor:
    """Images without a single black pixel, so that each stands out from the canvas."""
    return torch.randint(1, 256, (count, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("height", "width"), [(5, 4), (4, 4), (4, 7), (11, 11)])
def test_each_image_is_whole_at_the_place_that_its_position_says(height: int, width: int) -> None:
    given = images(200, height, width)
    canvases, positions = place(given, 11, np.random.default_rng(0))
    assert canvases.dtype == torch.uint8 and canvases.shape == (200, 11, 11)
    assert positions.dtype == torch.float32 and positions.shape == (200, 2)
    for image, canvas, (x, y) in zip(given, canvases, positions.tolist(), strict=True):
        left, top = x + 11 / 2 - width / 2, y + 11 / 2 - height / 2  # from the centre's distance to the corner
        assert left == int(left) and top == int(top)
        here = (slice(int(top), int(top) + height), slice(int(left), int(left) + width))
        assert torch.equal(canvas[here], image)
        assert canvas.count_nonzero() == image.numel(), "the rest of the canvas is empty"


def test_x_grows_to_the_right_and_y_downwards() -> None:
    canvases, positions = place(images(300, 2, 2), 6, np.random.default_rng(0))
    right = canvases[:, :, 3:].ne(0).flatten(1).sum(dim=1) > canvases[:, :, :3].ne(0).flatten(1).sum(dim=1)
    below = canvases[:, 3:].ne(0).flatten(1).sum(dim=1) > canvases[:, :3].ne(0).flatten(1).sum(dim=1)
    assert torch.equal(right, positions[:, 0] > 0)
    assert torch.equal(below, positions[:, 1] > 0)


def test_every_place_is_taken_about_equally_often() -> None:
    _, positions = place(images(9000, 3, 3), 5, np.random.default_rng(0))
    counts = Counter((x, y) for x, y in positions.tolist())
    assert set(counts) == {(x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)}
    assert min(counts.values()) > 900 and max(counts.values()) < 1100


def test_the_seed_decides_the_places() -> None:
    given = images(50)
    one, again, other = (place(given, 12, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[1], other[1])
