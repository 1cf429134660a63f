"""Compares training on images with masks: the plain PyTorch script against tuner's `kind: image_mask_folder`.

    python -m benchmarks.mask_speed [--images 2000] [--epochs 4] [--turns 3] [--cache memory disk]

The images are scenes of digits with the class of each pixel, 64x64 pixels, as PNG files in a temporary folder. Both
train the same U-Net on as many of them, with shifts, AdamW, one-cycle, batch 32, on 2 threads, and measure mIoU on
others after each epoch:

- plain: a dataset that reads an image and its mask, torchvision's transforms v2 of both, as its reference script for
  segmentation has them, and a DataLoader with 2 persistent workers;
- ours: `tuner.train.loop.fit`, decoded once into memory or onto the disk (`--cache`), augmented in batches; float32,
  and auto, which is bfloat16 if the CPU supports it natively.

They run in turns in new processes. The first epoch of ours includes the decoding of all images, that of the plain
script the start of the workers. Ratios are taken within a turn.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.epochs import Contest, Job, Training, compete

_BATCH, _WORKERS, _SHIFT, _SIDE = 32, 2, 4, 64
_HELD_OUT = 300  # images
_LR, _DECAY = 5e-3, 0.01
_CLASSES = ["background", *"0123456789"]


def write_scenes(folder: Path, count: int) -> None:
    """Write scenes and their masks, for training and for validation."""
    import torch
    from torchvision.io import write_png

    from tuner.data import MNISTScenes

    scenes = MNISTScenes(scenes=count, validation=_HELD_OUT, test=10, offline="digits").prepare()[0]
    sets = dict(zip(("train", "val", "test"), (*scenes.load(), scenes.load_test()), strict=True))
    for split, images in sets.items():
        for kind, pixels in (("images", images.images), ("masks", images.targets["mask"].unsqueeze(1))):
            (folder / split / kind).mkdir(parents=True)
            for number, each in enumerate(pixels.to(torch.uint8)):
                write_png(each, str(folder / split / kind / f"{number:06}.png"))


class _Pairs:
    """Images and masks, as the plain script reads them."""

    def __init__(self, folder: Path, transform: Any) -> None:
        self.images = sorted((folder / "images").iterdir())
        self.masks = sorted((folder / "masks").iterdir())
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from PIL import Image
        from torchvision import tv_tensors

        mask = tv_tensors.Mask(Image.open(self.masks[index]))
        image, mask = self.transform(Image.open(self.images[index]).convert("RGB"), mask)
        return image, mask.squeeze(0)


def _train_plain(job: Job, seed: int) -> Training:
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    torch.manual_seed(seed)
    as_tensors = [v2.ToImage(), v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True)]
    statistics = v2.Normalize((0.5,) * 3, (0.25,) * 3)
    moved = v2.RandomCrop(_SIDE, padding=_SHIFT, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255, "others": 0})
    model = _config(job).build_model()
    started = time.perf_counter()
    training: Any = _Pairs(job.folder / "train", v2.Compose([v2.ToImage(), moved, *as_tensors, statistics]))
    held_out: Any = _Pairs(job.folder / "val", v2.Compose([*as_tensors, statistics]))
    options: dict[str, Any] = {"num_workers": _WORKERS, "persistent_workers": True}
    train_loader: Any = DataLoader(training, _BATCH, shuffle=True, **options)
    validation_loader: Any = DataLoader(held_out, _BATCH, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=job.epochs * len(train_loader))
    seconds, reached = [], 0.0
    for _ in range(job.epochs):
        model.train()
        for images, masks in train_loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), masks, ignore_index=255).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        reached = _miou(model, validation_loader)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return Training(seconds, reached)


def _miou(model: Any, loader: Any) -> float:
    """The mean intersection over union, from a confusion matrix as torchvision's reference script has it."""
    import torch

    matrix = torch.zeros(len(_CLASSES), len(_CLASSES))
    model.eval()
    with torch.inference_mode():
        for images, masks in loader:
            cells = masks * len(_CLASSES) + model(images).argmax(1)
            matrix += cells.flatten().bincount(minlength=len(_CLASSES) ** 2).view(matrix.shape)
    hits = matrix.diagonal()
    return (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean().item()


def _config(job: Job, cache: str = "memory") -> Any:
    from tuner.train.trial_config import TrialConfig

    data = {
        "kind": "image_mask_folder",
        "root": str(job.folder),
        "classes": _CLASSES,
        "size": _SIDE,
        "batch_size": _BATCH,
        "channels": 3,
        "mean_std": [[0.5] * 3, [0.25] * 3],
        "cache": cache,
        "augment": {"shift": _SHIFT},
    }
    return TrialConfig.model_validate(
        {
            "task": {"kind": "semantic_segmentation"},
            "data": data,
            "model": {"kind": "unet", "width": 16},
            "optimizer": {"kind": "adamw", "lr": _LR, "weight_decay": _DECAY},
            "schedule": {"kind": "one_cycle"},
            "epochs": job.epochs,
            "seed": 0,
        }
    )


def main() -> None:
    """Compare and print."""
    contest = Contest(_train_plain, _config, "val_miou")
    what = "Training on images with masks: the plain script against ours."
    compete(what, {"masks": (write_scenes, contest)}, side=_SIDE, images=2000, epochs=4)


if __name__ == "__main__":
    main()
