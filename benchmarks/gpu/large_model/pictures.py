"""Generated photographs: JPEG files for tuner, and the same pixels in one array for a loop that reads that."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

CLASSES = 10
_CHUNK = 256


def generate(folder: Path, count: int, side: int) -> Path:
    """Write smooth random pictures, with classes at random.

    Args:
        folder: A new folder, with a folder of JPEG files for each class afterwards.
        count: Number of pictures.
        side: Their side in pixels.

    Returns:
        The file with their pixels, uint8 (N, H, W, 3), as numpy writes it.
    """
    from PIL import Image

    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    file = folder.with_suffix(".npy")
    pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, side, side, 3))
    generator = torch.Generator().manual_seed(0)

    def save(number: int) -> None:
        path = folder / f"class{number % CLASSES}" / f"{number:06}.jpg"
        Image.fromarray(pixels[number]).save(path, quality=90)

    with ThreadPoolExecutor() as pool:
        for start in range(0, count, _CHUNK):
            number = min(_CHUNK, count - start)
            coarse = torch.rand(number, 3, 14, 14, generator=generator) * 255
            smooth = interpolate(coarse, size=(side, side), mode="bilinear").to(torch.uint8)
            pixels[start : start + number] = smooth.permute(0, 2, 3, 1).numpy()
            list(pool.map(save, range(start, start + number)))
    pixels.flush()
    return file
