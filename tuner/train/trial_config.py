"""The configuration of one training: the section ``trial`` of the file."""

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
    """End a trial that no longer improves. The checkpoint of its best epoch is kept, as for every trial."""

    patience: int = Field(3, ge=1)
    """Epochs without improvement after which the trial ends."""
    min_delta: float = Field(0.0, ge=0)
    """Change of the metric that an improvement must exceed."""
    metric: str | None = None
    """Metric to monitor; null for the experiment's objective."""


class TrialConfig(AnyTrial):
    """One training: the task, the data, the model and how the model is optimised."""

    tag: ClassVar[str] = "training"

    task: TaskConfig = Classification()
    """Task to learn, with its loss and metrics."""
    data: DataConfig
    """Dataset to train and validate on."""
    model: ModelConfig
    """Model to train."""
    optimizer: OptimizerConfig = SGD()
    """Optimizer."""
    schedule: ScheduleConfig = Constant()
    """Learning-rate schedule."""
    epochs: int = Field(1, ge=1)
    """Number of epochs, that is passes over the training set."""
    early_stopping: EarlyStopping | None = None
    """Early stopping; null for none."""
    clip_norm: float | None = Field(None, gt=0)
    """Norm to which the gradient is clipped; null for no clipping."""
    precision: Precision = "auto"
    """Type of matrix arithmetic; auto is bfloat16 if the hardware supports it, else float32."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of weights, sample order and dropout; null derives it from the experiment's seed and this configuration."""

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
        """The `targets` in these sections of a trial that is not validated yet, because validation calls them."""
        sections = [data.get(name) for name in names] if isinstance(data, dict) else []
        return [str(section["target"]) for section in sections if isinstance(section, dict) and "target" in section]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Full names of the metrics of each epoch."""
        train = [f"train_{name}" for name in self.task.train_metrics]
        return (*train, *(f"val_{name}" for name in self.task.metrics), *EPOCH_METRICS)

    def build_model(self) -> nn.Module:
        """Build the model for this dataset and task, with new weights."""
        return self.model.build(self.data.image, self.task.outputs(self.data.targets))

    def check_metric(self, name: str) -> None:
        candidates = [m for m in self.metrics if not m.startswith("train_") and mode_of(m) is not None]
        if name not in candidates:
            message = f"{name!r} is not measured by this trial"
            if name.startswith("test_"):
                message = f"{name!r}: the test set is evaluated once, for the winner, and cannot select it"
            elif name in self.metrics:
                message = f"{name!r} cannot be an objective"
            raise Mistakes(Problem(message, hint=allowed(name, candidates)))

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
        if self._needs_import:
            return None
        with torch.device("meta"):  # shapes only: no memory is allocated and no random number drawn
            return sum(parameter.numel() for parameter in self.build_model().parameters())

    def why_not_resumable_as(self, other: "TrialConfig") -> str:
        data, others = (config.data.model_dump(exclude={"batch_size"}) for config in (self, other))
        if data != others:
            return "the validation set would change, and might contain images that the model was trained on"
        reason = self.optimizer.why_not_resumable_as(other.optimizer)
        if reason:
            return reason
        if self.epochs != other.epochs:
            return "all trials of a population have the same number of epochs"
        if self.seed != other.seed:
            return "a trial keeps its seed"
        mine, theirs = self._shapes(), other._shapes()
        name = next((name for name in (*mine, *theirs) if mine.get(name) != theirs.get(name)), "")
        if name:
            return f"the shape of {name} would be {theirs.get(name)} instead of {mine.get(name)}"
        return ""

    @property
    def _needs_import(self) -> bool:
        """Whether the model and the data cannot be checked without importing code, which is not allowed now."""
        return bool(self.targets) and not imports_allowed()

    def _shapes(self) -> dict[str, list[int]]:
        if self._needs_import:
            return {}
        with torch.device("meta"):
            return {name: list(tensor.shape) for name, tensor in self.build_model().state_dict().items()}

    @model_validator(mode="after")
    def _sections_fit(self) -> "TrialConfig":
        problems: list[Problem] = []
        if not self._needs_import:
            with collecting("task", problems):
                outputs = self.task.outputs(self.data.targets)
            if not problems:
                with collecting("model", problems):
                    self.model.check(self.data.image, outputs)
        monitored = self.early_stopping and self.early_stopping.metric
        if not problems and monitored:
            with collecting("early_stopping.metric", problems):
                self.check_metric(monitored)
        if problems:
            raise Mistakes(*problems)
        return self
