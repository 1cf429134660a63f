"""What a task is: heads, and from them the loss that is trained and the metrics that are measured."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from tuner.config import Config
from tuner.errors import Mistakes, Problem
from tuner.interfaces import Output, Outputs, Target, Targets
from tuner.tasks.head import Head


class Task(Config):
    """Losses and metrics as pure functions of (outputs, targets): no state, no side effects."""

    @property
    @abstractmethod
    def named_heads(self) -> Mapping[str, Head]:
        """The heads by name. A single head named ``""`` learns from a model that returns one bare tensor."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured on the validation and test sets, without the set's prefix."""
        return self._names(lambda head: head.metrics)

    @property
    def train_metrics(self) -> tuple[str, ...]:
        """Names of what is measured on the training set, without the set's prefix."""
        return self._names(lambda head: head.train_metrics)

    def outputs(self, targets: Mapping[str, Target]) -> dict[str, Output]:
        """What is asked of the model, by head, given what the dataset offers.

        Raises:
            Mistakes: A head's target is not there, or its loss does not fit the target.
        """
        outputs = {}
        problems: list[Problem] = []
        for name, head in self.named_heads.items():
            try:
                outputs[name] = head.output(targets)
            except Mistakes as mistakes:
                below = f"heads.{name}." if name else ""
                problems += [Problem(p.message, key=f"{below}{p.key}", hint=p.hint) for p in mistakes.problems]
        if problems:
            raise Mistakes(*problems)
        return outputs

    def training_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The loss that is trained: the heads' losses by their weights, a scalar."""
        losses = [head.weight * head.loss(output, target) for _, head, output, target in self._heads(outputs, targets)]
        return sum(losses[1:], start=losses[0])

    def measure(self, outputs: Outputs, targets: Targets, *, training: bool = False) -> dict[str, float]:
        """`metrics` (`train_metrics` where `training`) of a whole set, given its outputs and targets."""
        total = 0.0
        measured: dict[str, float] = {}
        for name, head, output, target in self._heads(outputs, targets):
            of_head = head.measure(output, target, training=training)
            total += of_head["loss"]
            measured |= {f"{name}_{metric}" if name else metric: value for metric, value in of_head.items()}
        return {"loss": total} | measured

    def confusion(self, outputs: Outputs, targets: Targets) -> dict[str, list[list[int]]]:
        """The confusion matrix of each head over classes, by the head's target, rows the true class."""
        return {
            name or head.target: head.confusion(output, target)
            for name, head, output, target in self._heads(outputs, targets)
            if head.is_class
        }

    def _heads(self, outputs: Outputs, targets: Targets) -> Iterator[tuple[str, Head, Tensor, Tensor]]:
        for name, head in self.named_heads.items():
            output = outputs if isinstance(outputs, Tensor) else outputs[name]
            yield name, head, output, targets[head.target]

    def _names(self, of: Callable[[Head], tuple[str, ...]]) -> tuple[str, ...]:
        names = [
            f"{name}_{metric}" if name else metric for name, head in self.named_heads.items() for metric in of(head)
        ]
        return tuple(dict.fromkeys(["loss", *names]))
