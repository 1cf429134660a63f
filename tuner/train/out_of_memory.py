"""Memory that runs out: how that shows itself, on whatever way it comes, and how it is got back."""

import contextlib
import ctypes
import errno
import gc
import platform

import torch

from tuner.error_text import message_of

OUT_OF_MEMORY = "out of memory"
"""Why a trial failed that asked for more than there was."""

_WORDS = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # torch's allocator for the CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_OF_RAY = ("OutOfMemoryError", "running low on memory", "OUT_OF_MEMORY")
"""What Ray says of a worker that it has killed before the machine ran out of memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was no memory left, of the machine or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and any(words in message_of(error) for words in _WORDS):
        return True
    earlier = error.__cause__ or error.__context__
    return earlier is not None and is_out_of_memory(earlier)


def killed_for_memory(error: str) -> bool:
    """Whether Ray's text about a worker that was lost says that it was killed for the memory that it took."""
    return any(words in error for words in _OF_RAY)


def release() -> None:
    """Give back what nobody refers to any more: to other processes, too, on the GPU and on the machine."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # `tuner.train.device` has told it to keep what is freed
