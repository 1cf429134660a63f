"""The experiments that come with the project, and small stand-ins for the data that their users have."""

import os
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import encoded_files
import numpy as np
import photos
from PIL import Image, ImageFilter

FOLDER = Path(__file__).parents[2] / "experiments"
EXPERIMENTS = sorted(FOLDER.glob("*.yaml"))


def flowers(folder: Path, classes: int = 3, test: int = 60) -> Path:
    """Write a folder of images of the shape of Oxford 102 Flowers.

    Args:
        folder: The folder.
        classes: The number of classes; there 102.
        test: The number of test images; there 6,149. A class has ten training images and ten validation images.
    """
    originals = folder.with_name(f"{folder.name}-originals")
    originals.mkdir()
    rng = np.random.default_rng(0)
    for number, height in enumerate(np.linspace(500, 667, 20).astype(int)):
        pixels = rng.integers(0, 256, (height // 4, 125, 3), np.uint8)
        image = (
            Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)).resize((500, height), Image.Resampling.BICUBIC)
        )
        image.save(originals / f"{number}.jpg", quality=80)
    images = sorted(originals.iterdir())
    for split, count in (("train", 10 * classes), ("val", 10 * classes), ("test", test)):
        for number in range(count):
            place = folder / split / f"{number % classes + 1:03}" / f"image_{number:05}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(images[number % len(images)], place)
    return folder


def _pictures(folder: Path) -> Path:
    csv: Path = runpy.run_path(str(FOLDER / "multilabel.py"))["write"](folder, count=300)
    return csv


TREES: Mapping[str, tuple[str, Callable[[Path], Path]]] = {
    "cityscapes_deeplab": ("root", encoded_files.write_cityscapes),
    "coco_finetune": ("root", encoded_files.write_coco),
    "flowers_init": ("root", flowers),
    "folder_finetune": ("root", photos.write),
    "imagenet_resnet50": ("root", encoded_files.write_imagenet),
    "multilabel": ("file", _pictures),
    "voc_ssd": ("root", encoded_files.write_voc_boxes),
}
"""The field of an experiment that names data which somebody has, and what writes such data, in small, at a path."""


def overrides(path: Path, folder: Path) -> list[str]:
    """Write what an experiment's user has to have, in small; return the overrides that say where it is."""
    if path.stem not in TREES:
        return []
    field, write = TREES[path.stem]
    return [f"trial.data.{field}={write(folder / 'data')}"]
