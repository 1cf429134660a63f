"""Recognition of out-of-memory errors, and release of memory."""

import contextlib
import ctypes
import errno
import gc
import platform

import torch

from tuner.error_text import message_of
from tuner.process.generators import undisturbed

OUT_OF_MEMORY = "out of memory"
"""The reason that is recorded for a trial that ran out of memory."""

_WORDS = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # torch's allocator for the CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_OF_RAY = ("OutOfMemoryError", "running low on memory", "OUT_OF_MEMORY")
"""Texts in Ray's errors about workers that it killed because the node was low on memory."""


class DoesNotFit(Exception):
    """Memory ran out, its cause, and splitting batches does not help. Its text says why, behind `OUT_OF_MEMORY`."""


def reason_of(error: BaseException) -> str:
    """The reason that is recorded for a trial that ran out of memory by an error, in a line."""
    return f"{OUT_OF_MEMORY}: {error}" if isinstance(error, DoesNotFit) else OUT_OF_MEMORY


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that the CPU's or a GPU's memory was exhausted."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and any(words in message_of(error) for words in _WORDS):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_out_of_memory(cause)


def killed_for_memory(error: str) -> bool:
    """Whether the text of Ray's error about a lost worker says that Ray killed it to free memory."""
    return any(words in error for words in _OF_RAY)


def release() -> None:
    """Return unused memory of the CPU and the GPU to the system, so that other processes can use it."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with undisturbed():  # it is an error while a training of another thread records a step
            torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # `tuner.train.device` configures malloc to keep freed memory
