"""What a user might write: a model and a dataset of their own, for the contracts that every one has to fulfil."""

import numpy as np
import torch
from torch import Tensor, nn

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class Net(nn.Module):
    """The mean over the image, a hidden layer, and one output a head."""

    def __init__(self, channels: int = 1, heads: dict[str, tuple[int, bool]] | None = None) -> None:
        """Build it.

        Args:
            channels: Channels of the images.
            heads: By name, how many numbers a head puts out, and whether they are log-probabilities.
        """
        super().__init__()
        self._heads = {"": (10, False)} if heads is None else heads
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        self.hidden = nn.Linear(16, 16)
        self.outputs = nn.ModuleList([nn.Linear(16, size) for size, _ in self._heads.values()])

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        features = torch.tanh(self.hidden(self.stem(images - 0.5).mean(dim=(2, 3))))
        out = {}
        for (name, (_, is_distribution)), layer in zip(self._heads.items(), self.outputs, strict=True):
            out[name] = layer(features).log_softmax(dim=1) if is_distribution else layer(features)
        return out[""] if list(out) == [""] else out


class Noise:
    """Images of noise in 3 classes, each another, as PIL-like arrays (H, W, C)."""

    def __init__(self, train: bool, images: int = 300) -> None:
        self._first = 0 if train else 10**6
        self._count = images if train else images // 5

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        pixels = np.random.default_rng(self._first + index).integers(0, 256, size=(12, 10, 3))
        return pixels.astype(np.uint8), index % 3


class PerPixel(nn.Module):
    """An output for each pixel, without statistics of a batch."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores
