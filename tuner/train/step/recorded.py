"""Steps that are recorded where they can be, and then repeated without Python."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from tuner.errors import Problem, UserError
from tuner.interfaces import Batch
from tuner.process.generators import OF_PROCESS, Generators
from tuner.train.step import watch
from tuner.train.step.feed import StepBatch
from tuner.train.step.recording import Graph, Recorder, Unrecordable, Unrecorded

RECORDED = "recorded"
"""How the steps of a training are computed that repeats a record."""


class Computation(Protocol):
    """What a step computes."""

    model: nn.Module

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    def begin_epoch(self) -> None:
        """Prepare the steps of an epoch."""

    def compute(self, batch: Batch) -> None:
        """Compute a step."""

    def counted(self, samples: int) -> None:
        """Note on the host that a step of so many samples was computed: by Python or by a record."""


class Steps:
    """Computes steps. Those of batches of one form are recorded after a few, and repeated from then on.

    The first steps are computed by Python, which also finds out whether all steps compute the same, so that they can be
    recorded at all. They are steps of the training like all others: its numbers are the same with and without records.

    Args:
        step: The step.
        recorder: What records it.
        graph: Whether steps are to be recorded.
        generators: The random state of the training, from which all but a record draw within `own`.

    Raises:
        UserError: They are to be recorded in any case, and cannot be. The other methods raise it, too.
    """

    def __init__(
        self, step: Computation, recorder: Recorder, graph: Graph, generators: Generators = OF_PROCESS
    ) -> None:
        self._step, self._recorder, self._is_required = step, recorder, graph == "on"
        self._generators = generators
        self.why_not = ""
        """Why steps are not recorded, in words that follow "eagerly, since"; empty if they are, or may be."""
        self._seen: Counter[Hashable] = Counter()
        self._watched: list[watch.Operations] = []
        """What two steps of one form have computed."""
        self._watched_form: Hashable = None
        self._records: dict[Hashable, _Record] = {}
        self._modes: list[bool] = []
        if isinstance(recorder, Unrecorded):
            self._give_up(recorder.why)

    @property
    def how(self) -> str:
        """How the steps are computed, in words: recorded, or eagerly and why."""
        if self.why_not:
            return f"eagerly, since {self.why_not}"
        return RECORDED if self._records else "eagerly, since there are too few steps"

    def begin_epoch(self) -> None:
        """Prepare the steps of an epoch."""
        self._step.begin_epoch()
        model = self._step.model
        modes = [each.requires_grad for each in model.parameters()] + [each.training for each in model.modules()]
        if modes != self._modes:  # layers were frozen or thawed: what was recorded is no longer what is computed
            self._modes = modes
            self._records.clear()
            self._watched.clear()
            self._seen.clear()

    def __call__(self, batch: StepBatch) -> None:
        """Make a step."""
        form = batch.form
        record = self._records.get(form)
        if record is None:
            with self._generators.own():
                record = self._computed(form, batch)
        if record is not None:
            record(batch.given)
        self._seen[form] += 1
        self._step.counted(batch.samples)

    def _computed(self, form: Hashable, batch: StepBatch) -> "_Record | None":
        """Compute a step that has no record, or return one of it that has been made."""
        is_known = self._seen[form] > 0
        record = None
        if not self.why_not and len(self._watched) == 2 and is_known:
            record = self._record(form, batch)
        if record is None:
            is_other = bool(self._watched) and form != self._watched_form
            if self.why_not or len(self._watched) == 2 or not is_known or is_other:
                self._compute(batch.make, batch.given)
            else:
                self._compute_watched(batch)
        return record

    def _compute_watched(self, batch: StepBatch) -> None:
        """Compute a step, and find out whether it can be recorded. Steps of a form before have allocated what stays."""
        operations = watch.watched(partial(self._compute, batch.make, batch.given), self._step.device)
        self._watched.append(operations)
        self._watched_form = batch.form
        if why := operations.why_not or (self._watched[0].why_not_as(operations) if len(self._watched) == 2 else ""):
            self._give_up(why)

    def _compute(self, make: Callable[[Sequence[Tensor]], Batch], given: Sequence[Tensor]) -> None:
        """Compute a step with the batch that is made of tensors."""
        self._step.compute(make(given))

    def _record(self, form: Hashable, batch: StepBatch) -> "_Record | None":
        """Record the steps of batches of a form; None if that cannot be."""
        buffers = [each.clone() for each in batch.given]
        try:
            repeat = self._recorder.record(partial(self._compute, batch.make, buffers))
        except Unrecordable as error:
            self._give_up(str(error))
            return None
        self._records[form] = _Record(buffers, repeat)
        return self._records[form]

    def _give_up(self, why: str) -> None:
        """Compute all further steps by Python."""
        if self._is_required:
            message = f"on: the steps of this trial cannot be recorded, since {why}"
            hint = "set it to auto, which computes such steps eagerly, or to off"
            raise UserError(Problem(message, "trial.graph", hint=hint))
        self.why_not = why
        self._records.clear()


@dataclass(frozen=True)
class _Record:
    """The recorded step of batches of one form.

    Args:
        buffers: The tensors that it makes the batch of.
        repeat: Computes it.
    """

    buffers: Sequence[Tensor]
    repeat: Callable[[], None]

    def __call__(self, given: Sequence[Tensor]) -> None:
        """Make a step with the batch that is made of tensors."""
        for own, new in zip(self.buffers, given, strict=True):
            own.copy_(new, non_blocking=True)
        self.repeat()
