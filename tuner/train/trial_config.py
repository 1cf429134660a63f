"""One complete training run, typed: what stands under ``trial`` in the file."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn

from tuner.config import Config
from tuner.data import DataConfig
from tuner.data.images import Description
from tuner.errors import Mistakes, Problem, allowed, collecting
from tuner.models import ModelConfig
from tuner.objectives import mode_of
from tuner.tasks import Classification, TaskConfig
from tuner.tasks.metrics import EPOCH_METRICS
from tuner.train.device import Precision
from tuner.train.lr_schedules import Constant, ScheduleConfig
from tuner.train.optimizers import SGD, OptimizerConfig
from tuner.train.trial_base import AnyTrial
from tuner.user_code import imports_allowed


class EarlyStopping(Config):
    """End a trial that no longer improves. Its best weights are kept, as every trial's are."""

    patience: int = Field(3, ge=1)
    """Epochs without improvement after which the trial ends."""
    min_delta: float = Field(0.0, ge=0)
    """By how much a value must be better to count as an improvement."""
    metric: str | None = None
    """The metric that is watched; null for the experiment's objective."""


class TrialConfig(AnyTrial):
    """One complete training run."""

    tag: ClassVar[str] = "training"

    task: TaskConfig = Classification()
    """What is learnt."""
    data: DataConfig
    """What it is learnt from."""
    model: ModelConfig
    """What learns."""
    optimizer: OptimizerConfig = SGD()
    """How it learns."""
    schedule: ScheduleConfig = Constant()
    """How the learning rate moves."""
    epochs: int = Field(1, ge=1)
    """Times that the training set is seen."""
    early_stopping: EarlyStopping | None = None
    """When to end before that; null for never."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the gradient; null for no clipping."""
    precision: Precision = "auto"
    """Type of matrix arithmetic; auto is bfloat16 where the device computes in it, else float32."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of weights, order and dropout; null derives it from the experiment's seed and this configuration."""

    @property
    def length(self) -> int | None:
        return self.epochs

    @property
    def targets(self) -> list[str]:
        return [*self.model.user_code, *self.data.user_code]

    @property
    def loading_targets(self) -> list[str] | None:
        return self.model.user_code

    @staticmethod
    def targets_in(data: Any, names: Sequence[str] = ("model", "data")) -> list[str]:
        """The `targets` of these parts of a trial that is yet to be validated: that calls them."""
        parts = [data.get(name) for name in names] if isinstance(data, dict) else []
        return [str(part["target"]) for part in parts if isinstance(part, dict) and "target" in part]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Full names of what each epoch measures."""
        train = [f"train_{name}" for name in self.task.train_metrics]
        return (*train, *(f"val_{name}" for name in self.task.metrics), *EPOCH_METRICS)

    def build_model(self) -> nn.Module:
        """The model, for this data and task, with fresh weights."""
        return self.model.build(self.data.image, self.task.outputs(self.data.targets))

    def check_metric(self, name: str) -> None:
        judging = [metric for metric in self.metrics if not metric.startswith("train_") and mode_of(metric) is not None]
        if name not in judging:
            message = f"{name!r} is not measured by this trial"
            if name.startswith("test_"):
                message = f"{name!r}: the test set is touched once, by the winner, and never chooses"
            elif name in self.metrics:
                message = f"{name!r} does not judge a trial"
            raise Mistakes(Problem(message, hint=allowed(name, judging)))

    def prepare(self) -> "tuple[TrialConfig, str]":
        data, message = self.data.prepare()
        return (self if data == self.data else self.model_copy(update={"data": data})), message

    @property
    def data_is_available(self) -> bool:
        return self.data.is_available

    def data_location(self) -> str:
        return self.data.location()

    def describe_data(self) -> Description | None:
        return self.data.describe()

    def count_parameters(self) -> int | None:
        if self._is_taken_at_its_word:
            return None
        with torch.device("meta"):  # shapes alone: nothing is allocated, no random number drawn
            return sum(parameter.numel() for parameter in self.build_model().parameters())

    def why_not_resumable_as(self, other: "TrialConfig") -> str:
        data, others = (config.data.model_dump(exclude={"batch_size"}) for config in (self, other))
        if data != others:
            return "the validation set would be another one, and may hold images that were trained on"
        reason = self.optimizer.why_not_resumable_as(other.optimizer)
        if reason:
            return reason
        if self.epochs != other.epochs:
            return "trials of a population are equally long"
        if self.seed != other.seed:
            return "the seed is that of the whole trial"
        mine, yours = self._shapes(), other._shapes()
        name = next((name for name in (*mine, *yours) if mine.get(name) != yours.get(name)), "")
        if name:
            return f"the shape of {name} would be {yours.get(name)} instead of {mine.get(name)}"
        return ""

    @property
    def _is_taken_at_its_word(self) -> bool:
        """Whether only code knows more of it, which is not to be called."""
        return bool(self.targets) and not imports_allowed()

    def _shapes(self) -> dict[str, list[int]]:
        if self._is_taken_at_its_word:
            return {}
        with torch.device("meta"):
            return {name: list(tensor.shape) for name, tensor in self.build_model().state_dict().items()}

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrialConfig":
        problems: list[Problem] = []
        if not self._is_taken_at_its_word:
            with collecting("task", problems):
                outputs = self.task.outputs(self.data.targets)
            if not problems:
                with collecting("model", problems):
                    self.model.check(self.data.image, outputs)
        watched = self.early_stopping and self.early_stopping.metric
        if not problems and watched:
            with collecting("early_stopping.metric", problems):
                self.check_metric(watched)
        if problems:
            raise Mistakes(*problems)
        return self
