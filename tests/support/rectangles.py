"""Images of one rectangle each, with its box and its mask: where a box belongs can be seen."""

import torch
from torch import Tensor

from tuner.interfaces import NO_BOX, Batch

SIDE = 64


def bright(count: int, height: int = SIDE, width: int = SIDE, seed: int = 1) -> Batch:
    """Grey images with one white rectangle each, its box of the class 7, and a row of padding."""
    draw = torch.Generator().manual_seed(seed)
    wide, tall = (torch.randint(8, 24, (count,), generator=draw) for _ in range(2))
    left, top = ((torch.rand(count, generator=draw) * (side - 24)).long() for side in (width, height))
    boxes = torch.tensor(NO_BOX).repeat(count, 2, 1)
    boxes[:, 0] = torch.stack([left, top, left + wide, top + tall, torch.full((count,), 7), wide % 2], dim=1).float()
    x, y = torch.arange(width).view(1, 1, -1), torch.arange(height).view(1, -1, 1)
    corners = boxes[:, 0, :4].unbind(1)
    x1, y1, x2, y2 = (each.view(-1, 1, 1) for each in corners)
    images = 0.2 + 0.8 * ((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).float()
    return Batch(
        images.unsqueeze(1).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last), {"boxes": boxes}
    )


def extent(shown: Tensor) -> Tensor:
    """The bounds of the pixels that are shown, (N, H, W): float32 (N, 4)."""
    found = []
    for side in (1, 2):
        row = shown.any(dim=side).int()
        found.append((row.argmax(dim=1), row.shape[1] - row.flip(1).argmax(dim=1)))
    (left, right), (top, bottom) = found
    return torch.stack([left, top, right, bottom], dim=1).float()


def are_none(rows: Tensor) -> Tensor:
    return (rows == torch.tensor(NO_BOX)).all(dim=-1)
