"""Random numbers for the images of a batch, on its device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_rows: ContextVar[tuple[int, Sequence[slice]] | None] = ContextVar("_rows", default=None)


@contextmanager
def for_rows(count: int, rows: Sequence[slice]) -> Iterator[None]:
    """Draw in the body for some images of a batch what would be drawn for them if the whole batch were there.

    Args:
        count: Images of the whole batch.
        rows: The places in it of those that are there.
    """
    token = _rows.set((count, rows))
    try:
        yield
    finally:
        _rows.reset(token)


def drawn(images: Tensor) -> Tensor:
    """Draw a number from [0, 1) for each image: float32 (N,)."""
    part = _rows.get()
    if part is None:
        return torch.rand(len(images), device=images.device)
    count, rows = part
    numbers = torch.rand(count, device=images.device)
    return torch.cat([numbers[each] for each in rows])


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw a number from [low, high) for each image: float32 (N,)."""
    return drawn(images) * (high - low) + low


def chosen(images: Tensor, share: float) -> Tensor:
    """Choose a share of the images: booleans (N,)."""
    return drawn(images) < share


def others(images: Tensor) -> Tensor:
    """Draw another image of the batch for each one, so that each is drawn once: int64 (N,); of one image, itself."""
    order = torch.randperm(len(images), device=images.device)
    return torch.empty_like(order).scatter_(0, order, order.roll(1))
