"""The training of many trials in the threads of one process."""

import math
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import torch

from tuner.error_text import message_of
from tuner.formatting import counted
from tuner.objectives import Objective
from tuner.process.generators import OfThread
from tuner.process.out_of_memory import is_out_of_memory, release
from tuner.ray_backend.host.admission import Admission
from tuner.ray_backend.host.printed import PrintedByThread
from tuner.ray_backend.host.proxied import Proxied
from tuner.ray_backend.host.shared_images import SharedImages
from tuner.ray_backend.worker.session import Lost, Stopped
from tuner.ray_backend.worker.training import outcome_of, train_task
from tuner.report_keys import BESIDE
from tuner.train.checkpoint import Save
from tuner.train.device import keep_freed_memory, trial_device, use_threads
from tuner.train.loop import Report, fit
from tuner.train.parallel.launch import RankLost
from tuner.train.step import streams
from tuner.train.trial_config import TrialConfig

_PATIENCE = 5.0
"""Seconds after which a trial says that it waits for its place."""


class CrowdedOut(Exception):
    """Memory ran out while other trials took some of it: the trial is to go on with fewer beside it.

    Args:
        others: How many there were.
    """

    def __init__(self, others: int) -> None:
        super().__init__(f"memory ran out beside {counted(others, 'other trial')}: it goes on with fewer")
        self.allowed = others // 2


class Host:
    """Trains trials at the same time, each in the thread that calls `train`.

    They share the device, its images and nothing else: each has a random state, graphs, a stream and memory of its own.

    Args:
        end: Ends the process with a status: the device has failed, and computes nothing more for this process.
    """

    def __init__(self, end: Callable[[int], object]) -> None:
        self._end = end
        self._lock = Lock()
        self._images = SharedImages()
        self._admission: Admission | None = None

    def train(self, task: dict[str, Any], proxied: Proxied) -> None:
        """Train a trial for a proxy; send it what the trial prints, its reports and its outcome."""
        unsent: dict[str, Any] = {}
        with suppress(Lost, RankLost):  # nobody is there any more whom it concerns
            try:
                last = outcome_of(partial(self._train, task, proxied, unsent), PrintedByThread.to(proxied.print))
            except Stopped:
                proxied.end(None)
            else:
                proxied.end({**last, **unsent})

    def _train(self, task: dict[str, Any], proxied: Proxied, unsent: dict[str, Any]) -> str:
        admission = self._admission_of(task)
        allowed = math.inf
        while True:
            try:
                return train_task(task, proxied, unsent, fit={"fit": partial(self._fit, admission, proxied, allowed)})
            except CrowdedOut as error:
                print(error)
                allowed = error.allowed
            except Exception as error:
                if _has_failed(error):
                    traceback.print_exc(file=sys.__stderr__)  # the log of this process, where the others look for it
                    try:
                        traceback.print_exc()
                    finally:  # also if nobody is there any more to print to
                        self._end(1)
                raise
            release()

    def _fit(
        self,
        admission: Admission,
        proxied: Proxied,
        allowed: float,
        config: TrialConfig,
        objective: Objective,
        report: Report,
        *,
        device: torch.device,
        before_batch: Callable[[], None],
        **arguments: Any,
    ) -> str:
        """Train as `tuner.train.loop.fit` does, as soon as there is room."""
        said = False

        def wait(seconds: float) -> None:
            nonlocal said
            proxied.look()
            if seconds > _PATIENCE and not said:
                said = True
                print("it waits for a place on the GPU, whose memory or time the trials take that train now")

        proxied.wait_for_place()
        with admission.entered(wait, allowed) as place:
            proxied.begin()

            def look() -> None:
                proxied.look()
                before_batch()
                admission.step(place)

            def report_beside(metrics: dict[str, Any], save: Save) -> None:
                report({**metrics, BESIDE: f"up to {counted(place.others, 'other')}"}, save)

            try:
                return fit(
                    config,
                    objective,
                    report_beside,
                    device=device,
                    before_batch=look,
                    observer=self._images,
                    generators=OfThread(device),
                    **arguments,
                )
            except Exception as error:
                if not place.others or not is_out_of_memory(error):
                    raise
        raise CrowdedOut(place.others)  # not within the handler, as a consequence of the error

    def _admission_of(self, task: dict[str, Any]) -> Admission:
        with self._lock:
            if self._admission is None:
                use_threads(task["threads"])
                keep_freed_memory()
                device = trial_device(task["gpu"] > 0)
                is_gpu = device.type == "cuda"
                memory = _MemoryOfGpu(device, self._images) if is_gpu else None
                # More would find no stream of their own, and compute without graphs.
                limit = streams.MOST if is_gpu else math.inf
                self._admission = Admission(memory, measures=task["measures"], limit=limit)
            return self._admission


@dataclass(frozen=True)
class _MemoryOfGpu:
    """The memory of a GPU; see `tuner.ray_backend.host.admission.Memory`."""

    device: torch.device
    images: SharedImages

    def free(self) -> int:
        # Without what torch has reserved and does not use: graphs use it, and so do the next steps of a trial.
        free, _ = torch.cuda.mem_get_info(self.device)
        return free

    def taken(self) -> int:
        return max(0, torch.cuda.memory_reserved(self.device) - self.images.bytes)


def _has_failed(error: BaseException) -> bool:
    """Whether an error says that the device computes nothing more for this process, whatever the trial."""
    kind = getattr(torch, "AcceleratorError", None)
    is_error = isinstance(error, RuntimeError) and "CUDA error" in message_of(error)
    return (is_error or (kind is not None and isinstance(error, kind))) and not is_out_of_memory(error)
