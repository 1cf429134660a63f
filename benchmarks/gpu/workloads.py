"""What is trained: the models of the table, and the images that there are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from benchmarks.gpu.setting import Setting

_GENERATED = 20_000
"""Images that are generated where MNIST is missing."""


@dataclass(frozen=True)
class Workload:
    """A training.

    Args:
        name: Its name in the table, and in names of files.
        model: The section `model` of a trial.
        side: Side of its images in pixels.
        batch: Images of a batch.
    """

    name: str
    model: Mapping[str, Any]
    side: int
    batch: int

    @property
    def is_cnn(self) -> bool:
        """Whether it is the main job's, which the textbook loop writes out."""
        return str(self.model["kind"]) == "cnn"

    def trial(self, setting: Setting, *, epochs: int, limit: int | None = None, **more: Any) -> dict[str, Any]:
        """The section `trial` of an experiment, by SGD.

        Args:
            setting: Where it trains.
            epochs: Number of epochs.
            limit: Training images of an epoch; None for all.
            more: More keys.
        """
        data = images_here(setting).section(self.side) | {"batch_size": self.batch}
        data |= {"limit": limit} if limit else {}
        optimizer = {"kind": "sgd", "lr": 0.01, "momentum": 0.9}
        return {"data": data, "model": dict(self.model), "optimizer": optimizer, "epochs": epochs, **more}


CNN = Workload("cnn", {"kind": "cnn"}, 28, 64)
"""That of the main job."""
MLP = Workload("mlp", {"kind": "mlp"}, 28, 64)


def resnet18(setting: Setting, width: int) -> Workload:
    """A ResNet-18 for images of 32 pixels, of a width; the tiny version has 10 narrow layers."""
    model = {"kind": "resnet_small", "stages": 4, "width": setting.sized(width, 4), "blocks": setting.sized(2, 1)}
    return Workload(f"resnet18-{width}", model, 32, 128)


@dataclass(frozen=True)
class Images:
    """The images that are trained on.

    Args:
        name: In words, for the output.
        fixed: What of the section `data` is the same for all sizes.
        side: The key that says the side of the images.
        native: The side that needs no such key; 0 for none.
    """

    name: str
    fixed: dict[str, Any]
    side: str
    native: int = 0

    def section(self, side: int) -> dict[str, Any]:
        """The section `data` of a trial for images of a side."""
        return self.fixed | ({} if side == self.native else {self.side: side})


def images_here(setting: Setting) -> Images:
    """MNIST if it is there or can be downloaded; else generated ones. The tiny version takes scikit-learn's digits."""
    return Images(**setting.once("images", lambda: vars(_found(setting))))


def _found(setting: Setting) -> Images:
    from tuner.data.mnist import MNIST

    if setting.is_tiny:
        return Images("scikit-learn's digits", {"kind": "digits", "validation": 50}, "size", 8)
    if isinstance(MNIST(offline="digits").prepare()[0], MNIST):
        return Images("MNIST", {"kind": "mnist"}, "canvas", 28)
    return generated(Path(setting.folder) / "digits", _GENERATED)


def generated(folder: Path, count: int) -> Images:
    """Write digits, each moved by up to two pixels and with noise, as PNG files of 28 pixels.

    Args:
        folder: A new folder, which has a folder for each class afterwards.
        count: Number of images.
    """
    from PIL import Image

    from tuner.data.digits import Digits

    pixels, labels = Digits(size=28).read("train")
    generator = torch.Generator().manual_seed(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for number, index in enumerate(torch.randint(len(pixels), (count,), generator=generator).tolist()):
        down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
        moved = pixels[index].roll((down, right), (0, 1)).float()
        noisy = (moved + 20 * torch.randn(moved.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
        Image.fromarray(noisy.numpy()).save(folder / str(int(labels[index])) / f"{number:06}.png")
    name = f"{count:,} images generated from scikit-learn's digits (MNIST is missing, and cannot be downloaded)"
    shares = {"validation": 0.1, "test": 0.05, "channels": 1, "mean_std": [[0.13], [0.31]]}
    return Images(name, {"kind": "image_folder", "root": str(folder), **shares}, "size")


class AsPictures(Dataset[Any]):
    """Images as torchvision's MNIST has them: each becomes a PIL image, which is transformed.

    Args:
        images: Grey images, uint8 (N, 1, H, W).
        labels: Their classes, int64 (N,).
        transform: Makes a tensor of a PIL image.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Any) -> None:
        self._images, self._labels, self._transform = images.squeeze(1).numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self._transform(Image.fromarray(self._images[index])), self._labels[index]
