"""A plain, well-written loop for a large model: what somebody who knows PyTorch writes, and nothing of tuner's."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Mapped(Dataset[Any]):
    """Decoded images in a file on the disk, which the processes of a DataLoader map.

    Args:
        file: Pixels, uint8 (N, H, W, 3).
        count: Number of the first images that are used.
        classes: Number of classes, which follow one another.
    """

    def __init__(self, file: Path, count: int, classes: int) -> None:
        self._file, self._count, self._classes = file, count, classes
        self._pixels: Any = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._pixels is None:  # each process maps it itself
            self._pixels = np.load(self._file, mmap_mode="r")
        return torch.from_numpy(np.array(self._pixels[index])), index % self._classes


def images_per_second(
    images: Mapped, model: nn.Module, *, batch: int, epochs: int, workers: int, device: torch.device
) -> float:
    """Train in bfloat16 and channels last, by SGD: the median of all epochs but the first.

    Args:
        images: The training images.
        model: The model, on the CPU.
        batch: Images of a batch.
        epochs: 2 or more.
        workers: Processes that read.
        device: The device of the training.
    """
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = on_gpu
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": on_gpu, "persistent_workers": workers > 0}
    loader = DataLoader(images, batch, shuffle=True, **options)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=on_gpu)
    mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (_MEAN, _STD))
    model.train()
    speeds = []
    for _ in range(epochs):
        started = time.perf_counter()
        total = torch.zeros((), device=device)
        for pixels, labels in loader:
            inputs = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)  # channels last by their order
            labels = labels.to(device, non_blocking=True)
            inputs = (inputs.float() / 255 - mean) / std
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16):
                loss = F.cross_entropy(model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        total.item()  # waits for the device
        speeds.append(len(images) / (time.perf_counter() - started))
    return median(speeds[1:])
