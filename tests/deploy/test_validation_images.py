"""Predictions of validation images are those that the validation computed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import epochs
import numpy as np
import pytest
import torch
from PIL import Image

import tuner
from tuner.data.loading.source import ALONE
from tuner.train.checkpoint import read_model
from tuner.train.device import autocast_dtype
from tuner.train.evaluation import predict
from tuner.train.trial_config import TrialConfig

ORIENTATION = 0x0112


def _exif(path: Path, pixels: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path.with_suffix(".jpg"), exif=exif)


def _animated(path: Path, pixels: Any) -> None:
    frames = [Image.fromarray(each) for each in (pixels, 255 - pixels)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])


WAYS: list[Callable[[Path, Any], None]] = [
    lambda path, pixels: Image.fromarray(pixels).save(path.with_suffix(".png")),
    lambda path, pixels: Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=80),
    lambda path, pixels: _exif(path, pixels, 6),
    lambda path, pixels: _exif(path, pixels, 2),
    lambda path, pixels: Image.fromarray(pixels).convert("CMYK").save(path.with_suffix(".tiff")),
    lambda path, pixels: Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path.with_suffix(".png")),
    lambda path, pixels: Image.fromarray(pixels[..., 0]).save(path.with_suffix(".png")),
    lambda path, pixels: Image.fromarray(pixels).convert("P").save(path.with_suffix(".png")),
    lambda path, pixels: Image.fromarray(pixels).convert("RGBA").save(path.with_suffix(".webp")),
    _animated,
]
"""Ways to save pixels: a camera's rotations, ink, 16 bits, grey, a palette, transparency, several frames."""


def images_of(folder: Path) -> Path:
    """Write a folder of two classes with images of many sizes, saved in all ways; some JPEGs are large."""
    rng = np.random.default_rng(0)
    for label, bright in (("dark", 0), ("light", 90)):
        (folder / label).mkdir(parents=True)
        for number in range(3 * len(WAYS)):
            side = (20, 300)[number % 3 == 1]
            height, width = rng.integers(side // 2, side, 2)
            pixels = rng.integers(0, 160, (height, width, 3)) + bright
            WAYS[number % len(WAYS)](folder / label / f"{number:02}", pixels.astype(np.uint8))
    return folder


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_predictions_are_those_of_the_validation(resize: str, tmp_path: Path) -> None:
    root = images_of(tmp_path / "photos")
    data = {"kind": "image_folder", "root": str(root), "size": 16, "resize": resize, "validation": 0.5, "test": 0.1}
    trial = TrialConfig.model_validate(
        {"data": data | {"channels": 3}, "model": {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}, "seed": 1}
    )
    epochs.trained(trial, tmp_path / "checkpoints")
    checkpoint = tmp_path / "checkpoints" / "1"
    _, module = read_model(checkpoint)
    with trial.data.opened_once("validation", torch.device("cpu"), ALONE) as validation:
        dtype = autocast_dtype(trial.precision, torch.device("cpu"))
        module = module.to(memory_format=torch.channels_last)
        [(batch, outputs)] = list(predict(trial.task, module, validation, dtype))
    names = trial.data.names("validation")
    assert len(names) == len(batch) > 20
    held_out = tmp_path / "held out"
    for number, name in enumerate(names):
        held_out.mkdir(exist_ok=True)
        shutil.move(root / name, held_out / f"{number:02}-{Path(name).name}")
    shutil.rmtree(root)  # neither the training data nor the experiment is needed
    results = tuner.load(checkpoint).predict(held_out, top=2)
    assert [Path(each.path).name[:2] for each in results] == [f"{number:02}" for number in range(len(names))]
    wanted = outputs.softmax(dim=1)  # type: ignore[union-attr]
    for result, row in zip(results, wanted.tolist(), strict=True):
        assert dict(result.top) == dict(zip(("dark", "light"), row, strict=True))
        assert result.label == ("dark", "light")[int(row[1] > row[0])]
    one_by_one = tuner.load(checkpoint).predict(held_out, batch_size=1)
    assert [each.probability for each in one_by_one] == pytest.approx([max(row) for row in wanted.tolist()], abs=0.02)
