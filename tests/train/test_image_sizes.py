"""Images that are not squares, from files to a checkpoint, in each task and with each of our networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from encoded_files import write_cityscapes, write_coco
from epochs import trained

from tuner.train.checkpoint import read_model
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.usefixtures("own_data_dir")

DETECTION, INSTANCES, PIXELS = (
    {"kind": kind} for kind in ("detection", "instance_segmentation", "semantic_segmentation")
)
AUGMENT = {"flip": True, "rotation": 10, "crop": 0.5, "zoom": 1.3, "shift": 4, "color": 0.2, "erase": 0.3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model", "augment"),
    [
        (DETECTION, {"kind": "yolo", "width": 8}, {"mosaic": 0.5, "mixup": 0.2}),
        (DETECTION, {"kind": "torchvision", "name": "ssdlite320_mobilenet_v3_large"}, {"cutmix": 1.0}),
        (INSTANCES, {"kind": "yolo", "width": 8}, {"copy_paste": 0.5, "mosaic": 0.5}),
        (PIXELS, {"kind": "unet", "width": 4}, {}),
        (PIXELS, {"kind": "unet", "width": 4, "encoder": "resnet18"}, {}),
        (PIXELS, {"kind": "torchvision", "name": "lraspp_mobilenet_v3_large"}, {}),
    ],
    ids=lambda value: "-".join(str(each) for each in value.values()) or "plain",
)
def test_a_trial_trains_on_them(
    tmp_path: Path, task: dict[str, Any], model: dict[str, Any], augment: dict[str, Any]
) -> None:
    if task is PIXELS:
        data: dict[str, Any] = {"kind": "cityscapes", "root": str(write_cityscapes(tmp_path / "data", 12, 4))}
    else:
        data = {"kind": "coco", "root": str(write_coco(tmp_path / "data", 12, 4)), "instances": task is INSTANCES}
    trial = {
        "task": task,
        "data": data | {"size": [64, 96], "batch_size": 4, "augment": AUGMENT | augment},
        "model": model,
        "epochs": 1,
        "seed": 0,
    }
    [metrics] = trained(TrialConfig.model_validate(trial), tmp_path, objective="train_loss")
    assert metrics["train_loss"] > 0
    signature, module = read_model(tmp_path / "1")
    assert (signature.image.height, signature.image.width) == (64, 96)
    with torch.inference_mode():
        outputs = module(torch.rand(2, 3, 64, 96))
    if task is PIXELS:
        assert outputs.shape[-2:] == (64, 96)
