"""The evaluation of a model while it is trained, whose steps are recorded, too, where that can be and helps."""

from dataclasses import dataclass

import torch
from torch import nn

from tuner.data.loading.source import Source
from tuner.interfaces import Batch, Model
from tuner.process.generators import OF_PROCESS, Generators
from tuner.process.out_of_memory import is_out_of_memory, release
from tuner.tasks import TaskConfig
from tuner.tasks.base import TaskMeter
from tuner.train.evaluation import images_at_once, in_precision, measure
from tuner.train.step.feed import StepBatch
from tuner.train.step.recorded import Steps
from tuner.train.step.recording import Recorder

_MOST = 8
"""Largest batch that is recorded, in batches of the training. Larger ones keep a GPU busy without records, which would
hold the memory of their layers' outputs for good; so many need about as much as a step, which keeps all of them."""


@dataclass
class _Step:
    """Computes the outputs of a batch and adds them to a meter; a `tuner.train.step.recorded.Computation`."""

    model: nn.Module
    device: torch.device
    task: TaskConfig
    forward: Model
    meter: TaskMeter

    def begin_epoch(self) -> None:
        self.meter.reset()
        self.model.eval()

    @torch.no_grad()  # a scripted module that was run in inference mode cannot be trained
    def compute(self, batch: Batch) -> None:
        self.meter.add(self.task.predict(self.forward, batch), batch.targets)

    def counted(self, samples: int) -> None:
        self.meter.count(samples)


class Evaluator:
    """Measures a model on sets, as `tuner.train.evaluation.measure` does and with the same numbers.

    The weights are read where they lie: a record measures those that are trained and their averages alike.

    Args:
        task: The task.
        model: The model, on its device.
        device: The device.
        dtype: The data type of matrices.
        batch_size: Samples of the training that are computed at once.
        recorder: What records the steps.
        generators: The random state of the training.
    """

    def __init__(
        self,
        task: TaskConfig,
        model: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        recorder: Recorder,
        generators: Generators = OF_PROCESS,
    ) -> None:
        self._task, self._model, self._dtype = task, model, dtype
        self._most = _MOST * batch_size
        meter = task.meter()
        self._step = _Step(model, device, task, in_precision(model, device, dtype), meter)
        self._steps = Steps(self._step, recorder, "auto", generators)
        self._why_not = "" if meter.can_be_recorded else "its metrics are computed on the host"

    @property
    def how(self) -> str:
        """How batches are computed, in words: recorded, or eagerly and why."""
        return f"eagerly, since {self._why_not}" if self._why_not else self._steps.how

    def measure(self, data: Source) -> TaskMeter:
        """Compute the outputs of the model on a set.

        Returns:
            The meter that has seen them all; the next call may reset it.
        """
        size = images_at_once(data.image_bytes, data.device)
        if not self._why_not and min(size, len(data)) > self._most:
            self._why_not = f"its batches are larger than {self._most} samples, and keep a GPU busy without a graph"
        if not self._why_not and not self._steps.why_not:
            try:
                self._steps.begin_epoch()
                for batch in data.batches(size):
                    self._steps(StepBatch.of(batch, len(batch)))
                return self._step.meter
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._why_not = "memory ran out"
            release()
        return measure(self._task, self._model, data, self._dtype)  # which splits what does not fit
