"""The GPUs of this node: why there is none, and what NVIDIA's management library (NVML) says of them.

NVML takes no memory of a GPU and starts nothing of CUDA, so that a driver may ask it, which forks later.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from tuner.error_text import message_of, one_line
from tuner.errors import Problem, UserError
from tuner.formatting import byte_size

_NOTABLE = 0.1
"""Share of a GPU's memory from which on another program is named."""


_CONTEXT = 2**29
"""Bytes of a GPU's memory that a process takes at the least, before its model: CUDA's context and torch's kernels. It
is an assumption, on the low side."""


@dataclass(frozen=True)
class Gpu:
    """A GPU of this node.

    Args:
        name: Its name.
        capability: Its compute capability.
        memory: Bytes of its memory.
    """

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Program:
    """A process that has memory of a GPU.

    Args:
        pid: Its id.
        name: Its name; empty if it cannot be seen from here, such as from a container.
        memory: Bytes of the GPU.
    """

    pid: int
    name: str
    memory: int

    def __str__(self) -> str:
        return f"{self.name or 'a program'} (process {self.pid}) has {byte_size(self.memory)}"


def why_none() -> str:
    """Why torch computes on no GPU of this node, with what to do about it, as a clause; empty if it does."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return "the installed torch is built without CUDA: install one with it, see pytorch.org/get-started"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides all: unset it"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # of several types
        said = one_line(message_of(error)).removesuffix(".")
    else:
        said = "CUDA finds none"
    if "driver" in said and "too old" in said:
        needed = f"this torch, which is made for CUDA {torch.version.cuda}"
        return f"NVIDIA's driver is too old for {needed}: update it, or install a torch for an older CUDA ({said})"
    return said


def installed() -> list[Gpu]:
    """The NVIDIA GPUs of this node, also those that this process is not to see; empty if there is no driver."""
    with _library() as nvml:
        if nvml is None:
            return []
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
            return [
                Gpu(
                    str(nvml.nvmlDeviceGetName(each)),
                    tuple(nvml.nvmlDeviceGetCudaComputeCapability(each)),
                    nvml.nvmlDeviceGetMemoryInfo(each).total,
                )
                for each in handles
            ]
        except nvml.NVMLError:
            return []


def check_share(gpu: float) -> None:
    """Check that the processes that share a GPU fit into its memory, of the smallest GPU of this node.

    Args:
        gpu: The share of each process.

    Raises:
        UserError: They do not fit, whatever they compute.
    """
    smallest = min(installed(), key=lambda each: each.memory, default=None)
    if smallest is None or not 0 < gpu < 1:
        return
    count, room = round(1 / gpu), smallest.memory // _CONTEXT
    if count > room:
        each = f"each takes about {byte_size(_CONTEXT)} before its model"
        has = f"{smallest.name} has {byte_size(smallest.memory)}, which is room for {room} at most: {each}"
        message = f"{gpu:g}: {count} processes would share a GPU, and {has}"
        least = math.ceil(1000 / room) / 1000
        hint = f"allowed: {least:g} or more; trials without code of your own share one process and need less"
        raise UserError(Problem(message, "resources.gpu", hint=hint))


def others_on(device: torch.device) -> list[Program]:
    """Programs that have much of the memory of a GPU and are neither this process nor one of its trials' siblings.

    Args:
        device: The GPU, on which this process computes.

    Returns:
        Those with a tenth of the memory or more, the largest first; empty if NVML does not know.
    """
    with _library() as nvml:
        if nvml is None:
            return []
        try:
            identity = torch.cuda.get_device_properties(device).uuid
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}")
            total = nvml.nvmlDeviceGetMemoryInfo(handle).total
            running = [
                Program(each.pid, _name_of(each.pid), each.usedGpuMemory or 0)  # None where the system hides it
                for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            ]
        except (nvml.NVMLError, RuntimeError, AttributeError):  # such as a part of a GPU (MIG)
            return []
    found = [each for each in running if each.memory >= _NOTABLE * total and not _is_ours(each.pid)]
    return sorted(found, key=lambda each: -each.memory)


@contextmanager
def _library() -> Iterator[Any]:
    """NVML, or None if it is not there."""
    try:
        import pynvml
    except ImportError:  # it is not installed on macOS
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _name_of(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def _is_ours(pid: int) -> bool:
    """Whether a process is this one, one that it started, or a worker that Ray has started as it has this one."""
    own = psutil.Process()
    if pid == own.pid or pid in {each.pid for each in own.children(recursive=True)}:
        return True
    try:
        other = psutil.Process(pid)
        return other.ppid() == own.ppid() and other.name().startswith("ray::")
    except psutil.Error:
        return False
