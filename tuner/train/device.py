"""What a trial trains on: the device, its precision, its memory allocator."""

import contextlib
import ctypes
import platform
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts at most on 64-bit machines


def pick_device() -> torch.device:
    """CUDA where a GPU is visible to this process, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of matrix arithmetic; ``auto`` takes bfloat16 where the device computes in it, else float32."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    native = {
        "cuda": lambda: torch.cuda.get_device_capability(device) >= (8, 0),
        "cpu": torch.cpu._is_avx512_bf16_supported,
    }.get(device.type)
    return torch.bfloat16 if native is not None and native() else torch.float32


def use_threads(count: int) -> None:
    """Compute on `count` cores: as many as the trial was given, so that trials side by side do not fight for them."""
    torch.set_num_threads(max(1, count))


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep freed memory instead of giving it back to the system after every batch.

    A batch's activations are megabytes; mapped afresh each time, every page of them costs a fault.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):  # only slower without it
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
