"""What is found in an image lies where it is in the file, also if the model's input has another shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import checkpoints
import numpy as np
import pytest
from encoded_files import write_coco, write_masks
from PIL import Image

import tuner
from tuner.data.decoding import Resize
from tuner.deploy.result import Result
from tuner.interfaces import IGNORED
from tuner.tasks.predictions.coding import decoded

BOX = (50, 30, 70, 60)
"""Left, top, right and bottom edge of what is bright in the image."""
WIDTH, HEIGHT = 120, 80

BRIGHT = """\
import torch
from torch import nn

class Objects(nn.Module):
    "Finds what is bright, as an object."

    def __init__(self, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images, targets=None):
        if self.training:
            return {"loss": self.weight.sum()}
        return [self.found(image.mean(dim=0) > 0.5) for image in images]

    def found(self, mask):
        places = mask.nonzero().flip(1)
        edges = [places.min(dim=0).values, places.max(dim=0).values + 1] if len(places) else [torch.zeros(2)] * 2
        return {
            "boxes": torch.cat(edges).float()[None],
            "labels": torch.tensor([1]),
            "scores": torch.tensor([0.9]),
            "masks": mask.float()[None, None],
        }

class Pixels(nn.Module):
    "Finds what is bright, pixel by pixel: the class 1."

    def __init__(self, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        bright = self.weight * (images.mean(dim=1) - 0.5)
        return torch.stack([-bright, bright, 0 * bright - 9], dim=1)
"""


@pytest.fixture(params=["as it is", "rotated"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A dark image with a bright rectangle, also as a camera stores it that was held upright."""
    shown, exif = Image.new("RGB", (WIDTH, HEIGHT)), Image.Exif()
    shown.paste((255, 255, 255), BOX)
    if request.param == "rotated":
        exif[0x0112] = 6
        shown = shown.transpose(Image.Transpose.ROTATE_90)
    shown.save(tmp_path / "x.jpg", exif=exif, quality=95)
    return tmp_path / "x.jpg"


def predicted(image: Path, folder: Path, target: str, task: str, data: dict[str, Any]) -> Result:
    data |= {"channels": 3, "mean_std": "imagenet"}
    checkpoints.write(folder, task={"kind": task}, data=data, model={"kind": "import", "target": target})
    [found] = tuner.load(folder, trust=[target]).predict(image)
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    return found


def is_bright(pixels: Any) -> bool:
    """Whether a mask is that of what is bright, but for its edges."""
    left, top, right, bottom = BOX
    outside = np.ones_like(pixels, dtype=bool)
    outside[top - 2 : bottom + 2, left - 2 : right + 2] = False
    inside = pixels[top + 2 : bottom - 2, left + 2 : right - 2]
    return bool(inside.all() and not pixels[outside].any())


@pytest.mark.parametrize("resize", get_args(Resize))
@pytest.mark.parametrize("size", [[48, 96], [96, 48]], ids=str)
@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_objects(
    task: str, size: list[int], resize: str, image: Path, own: Callable[[str], str], tmp_path: Path
) -> None:
    root, has_masks = write_coco(tmp_path / "coco", train=12, val=3), task == "instance_segmentation"
    data = {"kind": "coco", "root": str(root), "size": size, "resize": resize, "instances": has_masks}
    found = predicted(image, tmp_path / "model", f"{own(BRIGHT)}:Objects", task, data)
    [each] = found.as_dict()["boxes"]
    assert each["box"] == pytest.approx(BOX, abs=2), "a pixel of the input is up to 2.5 of the image"
    assert not has_masks or is_bright(decoded(each["mask"]))


@pytest.mark.parametrize("resize", get_args(Resize))
@pytest.mark.parametrize("size", [[48, 96], [96, 48]], ids=str)
def test_classes_of_pixels(
    size: list[int], resize: str, image: Path, own: Callable[[str], str], tmp_path: Path
) -> None:
    data = {"kind": "image_mask_folder", "root": str(write_masks(tmp_path / "data", 20)), "size": size}
    target = f"{own(BRIGHT)}:Pixels"
    found = predicted(image, tmp_path / "model", target, "semantic_segmentation", data | {"resize": resize})
    pixels = found.heads[""].classes_of_pixels
    assert pixels is not None and pixels.shape == (HEIGHT, WIDTH) and is_bright(pixels == 1)
    shown = 60 / 80 if size == [48, 96] else 40 / 120  # by a crop, of the height or of the width
    assert (pixels != IGNORED).mean() == pytest.approx(shown if resize == "crop" else 1)
