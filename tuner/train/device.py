"""The device of a trial, its precision, and its memory allocator."""

import contextlib
import ctypes
import platform
from typing import Literal

import torch

from tuner.errors import Problem, UserError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

BFLOAT16 = (8, 0)
"""Compute capability from which on NVIDIA's GPUs compute in bfloat16."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes: glibc's maximum on 64-bit systems


def pick_device() -> torch.device:
    """CUDA if this process sees a GPU, else MPS if available, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_devices() -> list[torch.device]:
    """All GPUs that this process sees, else the device of `pick_device`."""
    if torch.cuda.is_available():
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [pick_device()]


def trial_device(has_gpu: bool) -> torch.device:
    """The best device for a trial: CUDA only where it was given a GPU or a share of one.

    Ray hides no GPU from a worker that was given none.
    """
    return pick_device() if has_gpu or not torch.cuda.is_available() else torch.device("cpu")


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The data type for autocast; ``auto`` is bfloat16 if the hardware supports it, else float32."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    native = {
        "cuda": lambda: torch.cuda.get_device_capability(device) >= BFLOAT16,
        "cpu": torch.cpu._is_avx512_bf16_supported,
    }.get(device.type)
    return torch.bfloat16 if native is not None and native() else torch.float32


def check_precision(precision: Precision, device: torch.device) -> None:
    """Check that a GPU computes in a precision.

    Raises:
        UserError: The GPU is too old for it.
    """
    if precision == "bfloat16" and device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < BFLOAT16:
            raise UserError(without_bfloat16(torch.cuda.get_device_name(device), capability))


def without_bfloat16(name: str, capability: tuple[int, int]) -> Problem:
    """The problem that a GPU of a name and a compute capability has no bfloat16."""
    major, minor = capability
    message = f"bfloat16: {name} has no arithmetic in it (compute capability {major}.{minor}; from 8.0 on GPUs have it)"
    return Problem(message, "trial.precision", hint="use auto, which is float32 on such a GPU, or float16")


def use_threads(count: int) -> None:
    """Let torch use `count` threads: the number of cores of the trial, so that concurrent trials do not share cores."""
    torch.set_num_threads(max(1, count))


def keep_freed_memory() -> None:
    """Configure glibc's malloc to keep freed memory instead of returning it to the system.

    The activations of a batch take megabytes; if they are mapped anew for each batch, every page causes a page fault.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):  # without it training is only slower
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
