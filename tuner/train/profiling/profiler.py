"""A training that is profiled: a bounded part of the training that a file describes."""

import math
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import nn

from tuner.data.loading.source import ALONE, LoaderResources
from tuner.formatting import counted
from tuner.objectives import Objective
from tuner.report_keys import GRAPH
from tuner.storage import temporary
from tuner.train import checkpoint
from tuner.train.device import autocast_dtype, pick_device
from tuner.train.loop import Report, fit
from tuner.train.profiling.measuring import HOST, WAIT, WAIT_IN_EVALUATION, Course, Measuring, Opened
from tuner.train.profiling.profile import Part, Profile
from tuner.train.profiling.trace import Window, read, window_of
from tuner.train.trial_config import TrialConfig

_EPOCH, _EVALUATION, _TRACED = 10.0, 5.0, 1.0
"""About the most seconds of the steps of an epoch, of an evaluation, and of the steps that are traced."""
_LEAST = 2.0
"""Seconds that the measured epochs take at the least, together."""
_PROBED, _FEWEST = 4, 4
"""Steps of the training that finds out how long a step takes, and the fewest steps of an epoch after that."""
_MOST_EPOCHS, _MOST_TRACED = 20, 50

_DEFINED = "epoch_seconds"
"""A metric that is a number whatever the validation images: a part of them may lack what the objective needs."""


class Profiler:
    """Profiles a training.

    Args:
        trace: The file to write the trace to: JSON in Chrome's format, gzipped.
        say: Is called with a line for the user, of what is done and of each epoch.
    """

    def __init__(self, trace: Path, say: Callable[[str], object]) -> None:
        self.profile: Profile | None = None
        """What was measured; None before a training has ended."""
        self._trace, self._say, self._how = trace, say, ""

    def fit(
        self,
        config: TrialConfig,
        objective: Objective,
        report: Report,
        *,
        device: torch.device | None = None,
        micro_batches: int = 1,
        loading: LoaderResources = ALONE,
        teacher: nn.Module | None = None,
        others: Sequence[str] = (),
        costly: Collection[str] = (),
    ) -> str:
        """Train some epochs, measure them, and write the trace; see `tuner.train.loop.fit` for what it takes.

        A step that takes long has short epochs: of as many steps as fit into about 10 s, and of as many validation
        images as fit into 5 s. What is measured is scaled to whole epochs. Each epoch writes a checkpoint, as in a job.
        Early stopping is off, and metrics that a trial measures once are not measured. A report is a line for the user.

        Raises:
            Diverged: The loss became NaN or infinite.
            UserError: The images cannot be read.
        """
        device = device or pick_device()
        whole = config.model_copy(update={"early_stopping": None})

        def train(observer: Measuring, epochs: int, say: Callable[[str], object]) -> None:
            def with_checkpoint(metrics: dict[str, Any], save: checkpoint.Save) -> None:
                with observer.phase("checkpoint"), temporary.folder() as folder:
                    save(folder)
                self._how = str(metrics.get(GRAPH, ""))
                say(f"epoch {metrics['epoch']} of {epochs}  {metrics['epoch_seconds']:.2f} s")

            try:
                fit(
                    whole.model_copy(update={"epochs": epochs}),
                    Objective.of_metric(_DEFINED),
                    with_checkpoint,
                    before_batch=observer.before_batch,
                    device=device,
                    micro_batches=micro_batches,
                    loading=loading,
                    teacher=teacher,
                    observer=observer,
                )
            finally:
                observer.close()

        with Opened() as opened:
            of_step = config.data.images_per_batch * config.accumulate
            probe = Measuring(opened, Course(_PROBED * of_step, 1, epochs=0, traced=0), device, None)
            probe.stopwatch.start()
            train(probe, 1, lambda line: None)
            probe.stopwatch.stop()
            course = _course(probe, opened, of_step, device)
            measured = Measuring(opened, course, device, self._trace)
            self._say(_said(course, opened, of_step))
            train(measured, course.last, self._say)
            profile = _profile(config, device, measured, course, opened, window_of(read(self._trace)))
            self.profile = replace(profile, how=self._how)
        return ""


def _said(course: Course, opened: Opened, of_step: int) -> str:
    """A line that says what is measured."""
    train, _ = opened.sizes
    steps, whole = (math.ceil(images / of_step) for images in (course.train or train, train))
    of = "" if steps == whole else f" of {whole:,}"
    first = course.warm_up + 1
    middle = f"epoch {first} is" if course.epochs == 1 else f"epochs {first} to {course.last - 1} are"
    return (
        f"profile: epochs of {counted(steps, 'step')}{of}; {middle} measured, the end of epoch {course.last} is traced"
    )


def _course(probe: Measuring, opened: Opened, of_step: int, device: torch.device) -> Course:
    """How much to measure, by how long the first steps and the first evaluation took."""
    train, validation = opened.sizes
    seconds = probe.stopwatch.seconds
    step = median(probe.steps[1:] or probe.steps or [seconds["training"] + seconds[WAIT]])
    step = max(step, 1e-6)
    evaluated = probe.measured[1].images // probe.measured[1].passes
    evaluation = max(seconds["evaluation"] + seconds[WAIT_IN_EVALUATION], 1e-6) / evaluated
    steps = math.ceil(train / of_step)
    most_steps = max(_FEWEST, int(_EPOCH / step))
    most_images = max(2 * evaluated, int(_EVALUATION / evaluation))
    # A set that is little larger is measured whole.
    short = most_steps if steps > 1.5 * most_steps else None
    few = most_images if validation > 1.5 * most_images else None
    epoch = step * (short or steps) + evaluation * (few or validation)
    epochs = min(_MOST_EPOCHS, max(1, math.ceil(_LEAST / epoch)))
    traced = min(_MOST_TRACED, max(2, int(_TRACED / step)))
    # On a GPU, the step of the last, smaller batch of an epoch is recorded in the second one.
    warm_up = 2 if device.type == "cuda" else 1
    return Course(short and short * of_step, few, epochs, traced, warm_up)


def _profile(
    config: TrialConfig, device: torch.device, measured: Measuring, course: Course, opened: Opened, window: Window
) -> Profile:
    """Put together what was measured, scaled to a whole epoch."""
    seconds = {name: value / course.epochs for name, value in measured.stopwatch.seconds.items()}
    images, validation = opened.sizes
    of_step = config.data.images_per_batch * config.accumulate
    steps = measured.planned if course.train is None else math.ceil(images / of_step)
    train_read, validation_read = measured.measured
    passes = validation_read.passes / course.epochs  # averaged weights are evaluated, too
    seen = validation_read.images / validation_read.passes
    waiting = train_read.scaled(measured.stopwatch.seconds[WAIT], images)
    waiting_in_evaluation = passes * validation_read.scaled(measured.stopwatch.seconds[WAIT_IN_EVALUATION], validation)
    training = seconds["training"] * steps / measured.planned
    parts, note = _parts(training, waiting, steps, window, device)
    parts["host"] += seconds.get(HOST, 0.0)
    parts["evaluation"] = seconds["evaluation"] * validation / seen + waiting_in_evaluation
    parts |= {"checkpoint": seconds["checkpoint"], "report": seconds["report"]}
    per_step = (seconds["training"] + seconds.get(WAIT, 0.0)) / measured.planned
    is_part = course.train is not None or course.validation is not None
    return Profile(
        config=config,
        device=_name(device),
        seconds=parts,
        steps=steps,
        images=images,
        waiting_in_evaluation=waiting_in_evaluation,
        operators=window.operators,
        launches=window.launches / window.steps if window.launches else None,
        slowdown=window.seconds / window.steps / per_step,
        measured=(measured.planned, round(seen)) if is_part else None,
        epochs=course.epochs,
        precision=str(autocast_dtype(config.precision, device)).removeprefix("torch."),
        note=note,
    )


def _parts(
    training: float, waiting: float, steps: int, window: Window, device: torch.device
) -> tuple[dict[Part, float], str]:
    """Split the time of the training as the traced steps were split.

    Args:
        training: Seconds of the training in an epoch, without waiting for data.
        waiting: Seconds in which the training waited for data.
        steps: Steps of an epoch.
        window: The traced steps.
        device: The device.

    Returns:
        The seconds of each part, and what could not be measured.
    """
    host = window.in_torch + window.on_host
    in_torch = window.in_torch / host if host else 0.0
    if device.type == "cuda" and window.launches:
        # The profiler slows the host down, not the kernels: they are taken as they are, and the rest is split. While
        # the GPU computes, the host may wait for data: nothing is lost by that.
        kernels = min(training + waiting, window.on_gpu / window.steps * steps)
        rest = training + waiting - kernels
        waiting = min(waiting, rest)
        rest -= waiting
        return {
            "kernels": kernels,
            "launches": rest * in_torch,
            "host": rest * (1 - in_torch),
            "waiting for data": waiting,
        }, ""
    notes = {
        "cuda": "the trace has no kernels, since CUPTI gives this user none: operators are what the host does for them",
        "mps": "the trace has no kernels of this GPU: operators are what the host does for them",
    }
    parts: dict[Part, float] = {
        "operators": training * in_torch,
        "host": training * (1 - in_torch),
        "waiting for data": waiting,
    }
    return parts, notes.get(device.type, "")


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    cores = psutil.cpu_count() or threads
    name = {"cpu": platform.machine()}.get(device.type, device.type)
    return f"CPU ({name}, {threads} of {cores} cores)" if device.type == "cpu" else name
