"""The base class of tasks: the training loss and the metrics of all heads together."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

from tuner.config import Config
from tuner.errors import Mistakes, Problem
from tuner.interfaces import Batch, ClassCounts, Model, Output, Outputs, Target, Targets, WithAuxiliary
from tuner.interfaces.placement import Placement
from tuner.tasks.head import Head
from tuner.tasks.metrics.meter import ByClass, ErrorKind
from tuner.tasks.metrics.samples import Array
from tuner.tasks.predictions.base import Options, Prediction


class Task(Config):
    """A task has one or several heads. Its loss is a pure function of outputs and targets, its metrics are meters."""

    @property
    @abstractmethod
    def named_heads(self) -> Mapping[str, Head]:
        """The heads by name. If the model returns a single tensor, the only head is named ``""``."""

    @abstractmethod
    def with_heads(self, heads: Mapping[str, Head]) -> Self:
        """A copy with other heads of the same names."""

    def weighted(self, class_counts: Callable[[], Mapping[str, ClassCounts]], *, balance: bool) -> Self:
        """The task with the weights of classes as numbers, for training; what is measured has no weights.

        Args:
            class_counts: Returns how often the classes of each target occur in the training set.
            balance: Whether rare classes weigh more in the losses that have no weights of their own.
        """
        if not balance and not any(head.loss.needs_counts for head in self.named_heads.values()):
            return self
        counts = class_counts()
        return self.with_heads(
            {
                name: head.model_copy(update={"loss": head.loss.weighted(counts[head.target], balance=balance)})
                if head.target in counts
                else head
                for name, head in self.named_heads.items()
            }
        )

    @property
    def can_balance(self) -> bool:
        """Whether the loss of a head can weigh rare classes more."""
        return any(head.loss.can_balance for head in self.named_heads.values())

    def metrics(self, targets: Mapping[str, Target] | None = None) -> tuple[str, ...]:
        """Names of the metrics on the validation and test sets, without prefix.

        Args:
            targets: The targets of the dataset, on whose sizes they depend; None if they are unknown, for all that
                there may be.
        """
        return self._names(lambda head: head.metrics(targets[head.target].size if targets else None))

    @property
    def train_metrics(self) -> tuple[str, ...]:
        """Names of the metrics on the training set, without prefix."""
        return self._names(lambda head: head.train_metrics)

    def outputs(self, targets: Mapping[str, Target]) -> dict[str, Output]:
        """The outputs that the heads need from the model, by head.

        Args:
            targets: The targets of the dataset, by name.

        Raises:
            Mistakes: The dataset lacks the target of a head, or the loss of a head does not fit its target.
        """
        outputs = {}
        problems: list[Problem] = []
        for name, head in self.named_heads.items():
            try:
                outputs[name] = head.output(targets)
            except Mistakes as mistakes:
                prefix = f"heads.{name}." if name else ""
                problems += [Problem(p.message, key=f"{prefix}{p.key}", hint=p.hint) for p in mistakes.problems]
        if problems:
            raise Mistakes(*problems)
        return outputs

    @property
    def has_losses(self) -> bool:
        """Whether the loss of each head can be computed from outputs of a model in eval mode."""
        return not any(head.loss.is_of_model for head in self.named_heads.values())

    def predict(self, model: Model, batch: Batch) -> Outputs:
        """Compute the outputs of a model in eval mode for a batch."""
        returned = model(batch.inputs)
        return returned.outputs if isinstance(returned, WithAuxiliary) else returned

    def predictions(
        self, outputs: Outputs, targets: Mapping[str, Target], placements: Sequence[Placement], options: Options
    ) -> Iterator[dict[str, Prediction]]:
        """Read what the outputs of a model say of each image of a batch, by head, one image after another.

        Args:
            outputs: The outputs, as `predict` returns them, for N images.
            targets: What each head predicts, by head.
            placements: How each of the images was placed in the model's input.
            options: What is asked.
        """
        of_heads = [
            head.predictions(_of(outputs, name), targets[name], placements, options)
            for name, head in self.named_heads.items()
        ]
        for each in zip(*of_heads, strict=True):
            yield dict(zip(self.named_heads, each, strict=True))

    def training_loss(self, model: Model, batch: Batch) -> tuple[Tensor, Outputs]:
        """Compute the loss of a model in training mode for a batch.

        Returns:
            The weighted sum of the losses of the heads, a scalar that is a mean over the samples, and the outputs. The
            losses of auxiliary outputs are part of the sum.
        """
        of_model = {
            name: batch.targets[head.target] for name, head in self.named_heads.items() if head.loss.is_of_model
        }
        returned = model(batch.inputs, of_model) if of_model else model(batch.inputs)
        if not isinstance(returned, WithAuxiliary):
            return self._loss(returned, batch), returned
        loss = self._loss(returned.outputs, batch)
        for auxiliary in returned.auxiliary:
            loss = loss + returned.weight * self._loss(auxiliary, batch)
        return loss, returned.outputs

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Compute how far outputs are from those of a teacher, as `training_loss` does from the targets.

        Args:
            outputs: The outputs.
            wanted: Those of the teacher, which have no gradient.
            temperature: What logits are divided by.
        """
        distances = [
            head.weight * head.loss.distance(_of(outputs, name), _of(wanted, name), temperature)
            for name, head in self.named_heads.items()
        ]
        return sum(distances[1:], start=distances[0])

    def _loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        loss = self._loss_of(outputs, batch.targets)
        if batch.mixed is not None:
            loss = torch.lerp(self._loss_of(outputs, batch.mixed.targets), loss, batch.mixed.share)
        return loss

    def _loss_of(self, outputs: Outputs, targets: Targets) -> Tensor:
        by_head = pairs(self.named_heads, outputs, targets)
        losses = [head.weight * head.loss(*by_head[name]) for name, head in self.named_heads.items()]
        return sum(losses[1:], start=losses[0])

    def meter(self, *, training: bool = False) -> "TaskMeter":
        """Return a new meter of the `metrics`, or of the `train_metrics`."""
        return TaskMeter(self.named_heads, training)

    def _names(self, of: Callable[[Head], tuple[str, ...]]) -> tuple[str, ...]:
        names = [
            f"{name}_{metric}" if name else metric for name, head in self.named_heads.items() for metric in of(head)
        ]
        measured = any("loss" in of(head) for head in self.named_heads.values())
        return tuple(dict.fromkeys([*(["loss"] if measured else []), *names]))


class TaskMeter:
    """The metrics of all heads, computed from one batch after another.

    Args:
        heads: The heads by name.
        training: Whether to compute the `train_metrics` instead of the `metrics`.
    """

    def __init__(self, heads: Mapping[str, Head], training: bool) -> None:
        self._heads = heads
        self._meters = {name: head.meter(training=training) for name, head in heads.items()}

    def update(self, outputs: Outputs, targets: Targets) -> None:
        """Add a batch. Nothing waits for its device."""
        for name, (output, target) in pairs(self._heads, outputs, targets).items():
            self._meters[name].update(output, target)

    @property
    def can_be_recorded(self) -> bool:
        """Whether steps that `add` to it can be recorded."""
        return all(meter.can_be_recorded for meter in self._meters.values())

    def add(self, outputs: Outputs, targets: Targets) -> None:
        """Add a batch as `update` does, without counting its samples; see `tuner.tasks.metrics.meter.Meter.add`."""
        for name, (output, target) in pairs(self._heads, outputs, targets).items():
            self._meters[name].add(output, target)

    def count(self, samples: int) -> None:
        """Count samples that `add` has added, or a record of it."""
        for meter in self._meters.values():
            meter.count(samples)

    def reset(self) -> None:
        """Forget all samples, in place."""
        for meter in self._meters.values():
            meter.reset()

    def merge(self, other: Self) -> None:
        """Add the samples of another meter, such as that of another process."""
        for name, meter in self._meters.items():
            meter.merge(other._meters[name])

    def keep_samples(self) -> None:
        """Keep from now on what each sample adds; see `tuner.tasks.metrics.meter.Meter.keep_samples`."""
        for meter in self._meters.values():
            meter.keep_samples()

    def weighted(self, counts: Array) -> "TaskMeter":
        """A meter that has seen each sample another number of times.

        Args:
            counts: How often it has seen each sample, int64 (samples,).
        """
        other = copy(self)
        other._meters = {name: meter.weighted(counts) for name, meter in self._meters.items()}
        return other

    def right(self) -> dict[str, Array]:
        """Whether the answer for each sample is right, booleans, of the heads whose answers are right or wrong.

        Returns:
            They are by the name of the head; by its target if the head has no name.
        """
        answers = {name or self._heads[name].target: meter.right for name, meter in self._meters.items()}
        return {name: right for name, right in answers.items() if right is not None}

    def compute(self) -> dict[str, float]:
        """Return the metrics of all samples so far by name.

        The ``loss`` is the sum of those of the heads; of the ones that have a loss, if some have none.
        """
        by_head = {name: meter.compute() for name, meter in self._meters.items()}
        losses = [metrics["loss"] for metrics in by_head.values() if "loss" in metrics]
        total = {"loss": sum(losses)} if losses else {}
        return total | {
            f"{name}_{metric}" if name else metric: value
            for name, metrics in by_head.items()
            for metric, value in metrics.items()
        }

    def by_class(self) -> dict[str, ByClass]:
        """The metrics of single classes of the heads that predict classes, in the order of the classes.

        Returns:
            They are by the name of the head; by its target if the head has no name.
        """
        tables = {name or self._heads[name].target: meter.by_class() for name, meter in self._meters.items()}
        return {name: table for name, table in tables.items() if table}

    def errors(self) -> dict[str, list[ErrorKind]]:
        """The kinds of errors of the heads that tell them apart.

        Returns:
            They are by the name of the head; by its target if the head has no name.
        """
        kinds = {name or self._heads[name].target: meter.errors() for name, meter in self._meters.items()}
        return {name: each for name, each in kinds.items() if each}

    def confusion(self) -> dict[str, list[list[int]]]:
        """The confusion matrices of the heads that predict classes: rows are true classes, columns predicted ones.

        Returns:
            A matrix of counts by the name of the head; by its target if the head has no name.
        """
        matrices = {name or self._heads[name].target: meter.confusion for name, meter in self._meters.items()}
        return {name: matrix for name, matrix in matrices.items() if matrix is not None}


def pairs(heads: Mapping[str, Head], outputs: Outputs, targets: Targets) -> dict[str, tuple[Tensor, Tensor]]:
    """The output and the target of each head, by its name."""
    return {name: (_of(outputs, name), targets[head.target]) for name, head in heads.items()}


def _of(outputs: Outputs, head: str) -> Tensor:
    """The output of a head."""
    return outputs if isinstance(outputs, Tensor) else outputs[head]
