"""The program of the process that measures: it answers each size of a batch with its images per second.

A process of its own is thrown away with all that it holds, such as the CUDA context of a driver that trains nothing.
Where memory runs out for good, the system ends it and no other.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from tuner import user_code
from tuner.data.images import ImageData, Images
from tuner.data.loading.source import LoaderResources
from tuner.error_text import summary_of
from tuner.errors import Mistakes, UserError
from tuner.process.out_of_memory import is_out_of_memory
from tuner.process.startup import resume_collection
from tuner.storage.temporary import shorten_sockets
from tuner.train.device import keep_freed_memory, trial_device, use_threads
from tuner.train.fitting.step_speed import Speedometer
from tuner.train.fitting.task import Ready, Task
from tuner.train.teacher import load_teacher
from tuner.train.trial_config import TrialConfig

_SAMPLES, _SAMPLE_BYTES = 256, 2**28
"""Most training images that batches are made of, and most bytes of them."""
_CONTEXT = 2**29
"""Bytes of a GPU's memory that the context of CUDA takes in each process."""
_SHARE = 0.95
"""Share of a GPU's free memory that is used: blocks are of different sizes."""
_ROOM = 2**26
"""Least bytes that a step is measured with. The system is asked for as many; glibc's malloc has none of that size in
store."""


def main(answers: int) -> None:
    """Answer the requests of standard input: a line with the task, then a line for each size.

    Args:
        answers: File descriptor of the answers, lines of JSON; the user's code may print to standard output.
    """
    with os.fdopen(answers, "w", buffering=1) as stream:

        def answer(ask: Callable[[], dict[str, Any]]) -> bool:
            try:
                told, is_answered = ask(), True
            except (UserError, Mistakes) as error:
                told, is_answered = {"problems": [asdict(each) for each in error.problems]}, False
            except Exception as error:
                is_short = is_out_of_memory(error) or not _has_room()
                told = {"out_of_memory": True} if is_short else {"error": summary_of(error)}
                is_answered = False
            stream.write(f"{json.dumps(told)}\n")
            return is_answered

        task = Task.of(json.loads(sys.stdin.readline()))
        meters: list[Speedometer] = []
        with contextlib.ExitStack() as stack:
            is_ready = answer(lambda: _begin(task, stack, meters))
            for line in sys.stdin if is_ready else ():
                answer(lambda line=line: {"speed": meters[0].measure(int(line))})  # type: ignore[misc]


def _begin(task: Task, stack: contextlib.ExitStack, meters: list[Speedometer]) -> dict[str, Any]:
    """Read what is needed, and limit the memory to what a trial has; append the meter, and return `Ready`."""
    if task.folders:
        user_code.add_folder(*map(Path, task.folders))
    config = TrialConfig.model_validate(task.trial)
    resume_collection()
    keep_freed_memory()
    shorten_sockets()
    use_threads(task.threads)
    if config.targets:
        stack.enter_context(user_code.in_experiment_folder())
    device = trial_device(task.has_gpu)
    sample = _sample(config.data)
    mixes = config.data.augment.mixes
    several = mixes or config.model.needs_several(config.data.image, config.task.outputs(config.data.targets))
    sizes = config.data.describe().sizes
    held = (sizes.get("train", 0) + sizes.get("validation", 0)) * sample.image_bytes
    held = held if config.data.stays_in_memory(device, task.loading) else 0
    teacher = load_teacher(task.teacher, config)
    meters.append(Speedometer(config, sample.to(device), teacher))
    if device.type == "cuda":
        stack.callback(list[Any]([_hold(held, device)]).clear)
        _limit_gpu(device, task.loading)
    else:
        _limit_host(task.memory - held)
    return asdict(Ready(sizes.get("train") or len(sample), 2 if several else 1, device.type))


def _has_room() -> bool:
    """Whether there is memory left. Without it CPython raises any exception, as there is none for the one it means."""
    try:
        bytearray(_ROOM)
    except (MemoryError, SystemError):
        return False
    return True


def _sample(data: ImageData) -> Images:
    """Some training images, in memory."""
    few = data.first(1)
    return data.first(max(1, min(_SAMPLES, _SAMPLE_BYTES // max(1, few.image_bytes))))


def _hold(size: int, device: torch.device) -> torch.Tensor:
    """Take the memory of the device that the images of a trial will take."""
    return torch.empty(size, dtype=torch.uint8, device=device)


def _limit_gpu(device: torch.device, loading: LoaderResources) -> None:
    """Allow this process as much of the GPU's memory as a trial has beside the others."""
    free, total = torch.cuda.mem_get_info(device)
    others = loading.trials_per_gpu - 1
    own = _SHARE * max(0, free - others * _CONTEXT) / loading.trials_per_gpu
    # Of the current device, which is the only one: torch takes no device without a number here.
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(device) + own) / total))


def _limit_host(size: float) -> None:
    """Allow this process so many bytes of memory, where the system has such a limit: Linux.

    Raises:
        MemoryError: It has as many already, or nearly so: what is too little for Python itself ends it in any way.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return
    import resource

    torch.ones(2**20).add_(1)  # torch starts its threads now, whose stacks count, too
    reserved = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData"))
    left = size - psutil.Process().memory_info().rss
    if left < _ROOM:
        raise MemoryError
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = 1024 * reserved + int(left)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
