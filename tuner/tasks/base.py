"""The base class of tasks: the training loss and the metrics of all heads together."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from tuner.config import Config
from tuner.errors import Mistakes, Problem
from tuner.interfaces import Output, Outputs, Target, Targets
from tuner.tasks.head import Head


class Task(Config):
    """A task has one or several heads. Its loss and metrics are pure functions of (outputs, targets)."""

    @property
    @abstractmethod
    def named_heads(self) -> Mapping[str, Head]:
        """The heads by name. If the model returns a single tensor, the only head is named ``""``."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics on the validation and test sets, without prefix."""
        return self._names(lambda head: head.metrics)

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

    def training_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The loss that is minimized: the weighted sum of the losses of the heads, a scalar."""
        losses = [head.weight * head.loss(output, target) for _, head, output, target in self._heads(outputs, targets)]
        return sum(losses[1:], start=losses[0])

    def measure(self, outputs: Outputs, targets: Targets, *, training: bool = False) -> dict[str, float]:
        """Compute the `metrics`, or the `train_metrics`, of a set.

        Args:
            outputs: Outputs of the model for all samples of the set.
            targets: Targets of these samples.
            training: Whether to compute the `train_metrics`.
        """
        total = 0.0
        metrics: dict[str, float] = {}
        for name, head, output, target in self._heads(outputs, targets):
            head_metrics = head.measure(output, target, training=training)
            total += head_metrics["loss"]
            metrics |= {f"{name}_{metric}" if name else metric: value for metric, value in head_metrics.items()}
        return {"loss": total} | metrics

    def confusion(self, outputs: Outputs, targets: Targets) -> dict[str, list[list[int]]]:
        """The confusion matrices of the heads that predict classes: rows are true classes, columns predicted ones.

        Returns:
            A matrix of counts by the name of the head; by its target if the head has no name.
        """
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
