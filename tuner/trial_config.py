"""One complete training run, typed: what stands under ``trial`` in the file."""

import copy
import hashlib
import json
from typing import Any

from pydantic import Field, model_validator
from torch import nn

from tuner.config import Config
from tuner.data import DataConfig
from tuner.device import Precision
from tuner.errors import Mistakes, Problem, allowed, collecting
from tuner.metrics import EPOCH_METRICS, mode_of
from tuner.models import ModelConfig
from tuner.optim import SGD, Constant, OptimizerConfig, ScheduleConfig
from tuner.source import put
from tuner.space import Assignment
from tuner.tasks import Classification, TaskConfig


class EarlyStopping(Config):
    """End a trial that no longer improves. Its best weights are kept, as every trial's are."""

    patience: int = Field(3, ge=1)
    """Epochs without improvement after which the trial ends."""
    min_delta: float = Field(0.0, ge=0)
    """By how much a value must be better to count as an improvement."""
    metric: str | None = None
    """The metric that is watched; null for the experiment's objective."""


class TrialConfig(Config):
    """One complete training run."""

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
    def metrics(self) -> tuple[str, ...]:
        """Full names of what each epoch measures."""
        train = [f"train_{name}" for name in self.task.train_metrics]
        return (*train, *(f"val_{name}" for name in self.task.metrics), *EPOCH_METRICS)

    def build_model(self) -> nn.Module:
        """The model, for this data and task, with fresh weights."""
        return self.model.build(self.data.image, self.task.outputs(self.data.targets))

    def with_seed(self, experiment_seed: int) -> "TrialConfig":
        """The same with its seed made explicit: from the experiment's seed and what is set here, and nothing else."""
        if self.seed is not None:
            return self
        what_is_set = _set(self.model_dump(mode="json"), self.model_dump(mode="json", exclude_defaults=True))
        digest = hashlib.sha256(json.dumps([experiment_seed, what_is_set], sort_keys=True).encode()).digest()
        return self.model_copy(update={"seed": int.from_bytes(digest[:4], "big")})

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrialConfig":
        problems: list[Problem] = []
        with collecting("task", problems):
            outputs = self.task.outputs(self.data.targets)
        if not problems:
            with collecting("model", problems):
                self.model.check(self.data.image, outputs)
        watched = self.early_stopping and self.early_stopping.metric
        if not problems and watched:
            with collecting("early_stopping.metric", problems):
                check_metric(watched, self)
        if problems:
            raise Mistakes(*problems)
        return self


def check_metric(name: str, trial: TrialConfig) -> None:
    """Raise Mistakes unless a trial can be judged by this metric."""
    judging = [metric for metric in trial.metrics if not metric.startswith("train_") and mode_of(metric) is not None]
    if name not in judging:
        message = f"{name!r} is not measured by this trial"
        if name.startswith("test_"):
            message = f"{name!r}: the test set is touched once, by the winner, and never chooses"
        elif name in trial.metrics:
            message = f"{name!r} does not judge a trial"
        raise Mistakes(Problem(message, hint=allowed(name, judging)))


def _set(whole: dict[str, Any], without_defaults: dict[str, Any]) -> dict[str, Any]:
    """`without_defaults` and, in each part of it, the kind: Adam as it comes is not AdamW as it comes."""
    kept = {
        key: _set(whole[key], value) if isinstance(value, dict) else value for key, value in without_defaults.items()
    }
    return kept | ({"kind": whole["kind"]} if "kind" in whole else {})


def merge(trial: TrialConfig, assignment: Assignment) -> TrialConfig:
    """`trial` with dotted keys set in it, validated. Raises ValidationError or UserError."""
    data = trial.model_dump()
    # The whole before its parts, whatever their order, and a copy: a part set in it is not set for the next trial.
    for name in sorted(assignment, key=lambda name: name.count(".")):
        put(data, tuple(name.split(".")), copy.deepcopy(assignment[name]))
    return TrialConfig.model_validate(data)
