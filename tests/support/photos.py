"""Small folders of images with noise of their own, for datasets that are read from files."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tuner.data import ImageFolder


def write(folder: Path, count: int = 20, side: int = 8) -> Path:
    """Write images of two classes, `count` of each."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def read(folder: Path, **more: Any) -> ImageFolder:
    """The dataset of such a folder."""
    return ImageFolder(root=str(folder), **{"size": 8, "channels": 3, "mean_std": "imagenet", **more})
