"""A dataset of one's own: called with train=True and train=False, as torchvision's are; pairs of image and class."""

import numpy as np
from torch.utils.data import Dataset

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class Shapes(Dataset[tuple[Pixels, int]]):
    """Coloured squares, discs and crosses at random places on noise, 20x20 pixels, 3 channels."""

    def __init__(self, train: bool, images: int = 1000) -> None:
        self._rng_seed = 0 if train else 1
        self._count = images if train else images // 5

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        rng = np.random.default_rng([self._rng_seed, index])
        kind = index % 3
        y, x = np.mgrid[:20, :20]
        cy, cx, r = *rng.integers(6, 14, size=2), rng.integers(3, 6)
        dy, dx = np.abs(y - cy), np.abs(x - cx)
        inside = [
            (dy <= r) & (dx <= r),
            dy**2 + dx**2 <= r**2,
            ((dy <= 1) & (dx <= r)) | ((dx <= 1) & (dy <= r)),
        ][kind]
        image = rng.integers(0, 120, size=(20, 20, 3))
        image[inside] = rng.integers(100, 256, size=3)
        return image.astype(np.uint8), kind
