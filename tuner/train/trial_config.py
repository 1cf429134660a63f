"""The configuration of one training: the section ``trial`` of the file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from pydantic import Field, model_validator
from torch import nn

from tuner.config import Config
from tuner.data import DataConfig
from tuner.data.images import Description
from tuner.data.loading.source import LoaderResources
from tuner.errors import Mistakes, Problem, allowed, collecting
from tuner.interfaces import ImageShape, Model, Output
from tuner.models import ModelConfig
from tuner.objectives import mode_of
from tuner.tasks import Classification, TaskConfig
from tuner.tasks.metrics import COSTLY_METRICS, EPOCH_METRICS
from tuner.train import demands
from tuner.train.device import Precision
from tuner.train.distillation import Distillation, Distilled
from tuner.train.ema import EMA, PREFIX
from tuner.train.optim.lr_schedules import Constant, ScheduleConfig
from tuner.train.optim.optimizers import SGD, OptimizerConfig
from tuner.train.parallel.settings import Parallel
from tuner.train.step.compiled import Compile
from tuner.train.step.recording import Graph
from tuner.train.trial_base import AnyTrial
from tuner.user_code import folders, imports_allowed


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
    without_influence: ClassVar[dict[str, set[str] | bool]] = {"data": {"cache"}, "graph": True}

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
    distillation: Distillation | None = None
    """A trained model that the model learns from beside the targets; null for none."""
    epochs: int = Field(1, ge=1)
    """Number of epochs, that is passes over the training set."""
    accumulate: int = Field(1, ge=1, le=2**16)
    """Batches for each step of the optimizer, which takes the mean of their gradients, as one larger batch has it."""
    early_stopping: EarlyStopping | None = None
    """Early stopping; null for none."""
    clip_norm: float | None = Field(None, gt=0)
    """Norm to which the gradient is clipped; null for no clipping."""
    ema: EMA | None = None
    """Moving average of the weights, which is measured, too, as ``val_ema_accuracy``; null for none."""
    precision: Precision = "auto"
    """Type of matrix arithmetic; auto is bfloat16 if the hardware supports it, else float32."""
    graph: Graph = "auto"
    """Whether the training step is recorded as a CUDA graph, which a GPU repeats without waiting for Python: auto where
    that can be, on to fail where it cannot be, or off. It changes no numbers."""
    compile: Compile = "auto"
    """Whether the model is compiled for training: auto on a GPU where that saves clearly more time than it takes, on to
    fail where it cannot be, or off. Compiled numbers differ by rounding."""
    parallel: Parallel = Parallel()
    """How it trains in several processes, one a GPU, if `resources` give a trial several."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of weights, sample order and dropout; null derives it from the experiment's seed and this configuration."""

    @property
    def length(self) -> int | None:
        return self.epochs

    @property
    def targets(self) -> list[str]:
        return [*self.model.user_code, *self.data.user_code]

    @property
    def teacher(self) -> str:
        return self.distillation.teacher if self.distillation else ""

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
        measured = self.task.metrics(None if self._needs_import else self.data.targets)
        prefixes = ("val_", f"val_{PREFIX}") if self.ema else ("val_",)
        return (*train, *(f"{prefix}{name}" for prefix in prefixes for name in measured), *EPOCH_METRICS)

    @property
    def watched_metric(self) -> str:
        return (self.early_stopping and self.early_stopping.metric) or ""

    @property
    def costly_metrics(self) -> tuple[str, ...]:
        return COSTLY_METRICS

    def build_model(self) -> nn.Module:
        """Build the model for this dataset and task, with new weights."""
        return self.model.build(self.data.image, self.task.outputs(self.data.targets))

    def training_task(self, teacher: Model | None = None) -> TaskConfig | Distilled:
        """The task as it is trained: with class weights as numbers, which the training set may decide.

        Args:
            teacher: What computes the outputs of the teacher, if the trial has one.
        """
        task = self.task.weighted(self.data.class_counts, balance=self.data.balances_loss)
        if self.distillation is None:
            return task
        assert teacher is not None, "the trial has a teacher"
        return Distilled(task, self.distillation, teacher)

    @property
    def why_not_compiled(self) -> str:
        """Why the model cannot be compiled, in words that follow "since"; empty if it can be."""
        return "" if self.task.has_losses else "detectors compute their losses themselves, which tuner does not compile"

    def check_resources(self, gpu: float, ranks: int) -> None:
        demands.check_resources(self.graph, self.compile, gpu, ranks)

    def check_node(self, gpu: float) -> None:
        super().check_node(gpu)
        demands.check_node(self.compile, self.precision, gpu)

    def check_metric(self, name: str) -> None:
        measured = (*self.metrics, *self.costly_metrics)
        candidates = [m for m in measured if not m.startswith("train_") and mode_of(m) is not None]
        if name not in candidates:
            message = f"{name!r} is not measured by this trial"
            if name.startswith("test_"):
                message = f"{name!r}: the test set is evaluated once, for the winner, and cannot select it"
            elif name in measured:
                message = f"{name!r} cannot be an objective"
            raise Mistakes(Problem(message, hint=allowed(name, candidates)))

    def prepare(self) -> "tuple[TrialConfig, str]":
        data, message = self.data.prepare()
        model, told = self.model.prepare(data.image, self.task.outputs(data.targets))
        changed = data != self.data or model != self.model
        trial = self.model_copy(update={"data": data, "model": model}) if changed else self
        return trial, "\n".join(filter(None, (message, told)))

    @property
    def measures_batch_size(self) -> bool:
        return self.data.batch_size == "auto"

    def with_batch_size(self, images: int) -> "TrialConfig":
        return self.model_copy(update={"data": self.data.model_copy(update={"batch_size": images})})

    @property
    def data_is_available(self) -> bool:
        return self.data.is_available and self.model.is_available

    def data_location(self) -> str:
        return self.data.location()

    def data_plan(self, device: torch.device, resources: LoaderResources | None) -> str:
        return self.data.plan(device, resources)

    def describe_data(self) -> Description | None:
        return self.data.describe()

    def class_names(self, head: str) -> tuple[str, ...]:
        heads = {name or each.target: each.target for name, each in self.task.named_heads.items()}
        return self.data.targets[heads[head]].classes

    def count_parameters(self) -> int | None:
        if self._needs_import:
            return None
        outputs = tuple(self.task.outputs(self.data.targets).items())
        return _parameters(self.model, self.data.image, outputs, folders()[0])

    def why_not_resumable_as(self, other: "TrialConfig") -> str:
        may_change = {"batch_size", "augment", "balance", "cache"}
        data, others = (config.data.model_dump(exclude=may_change) for config in (self, other))
        if data != others:
            return "the validation set would change, and might contain images that the model was trained on"
        reason = self.optimizer.why_not_resumable_as(other.optimizer)
        if reason:
            return reason
        if self.epochs != other.epochs:
            return "all trials of a population have the same number of epochs"
        if self.seed != other.seed:
            return "a trial keeps its seed"
        mine, theirs = self._tensors(), other._tensors()
        for name in dict.fromkeys((*mine, *theirs)):
            shape, is_trained = mine.get(name, (None, False))
            other_shape, is_other_trained = theirs.get(name, (None, False))
            if shape != other_shape:
                return f"the shape of {name} would be {other_shape} instead of {shape}"
            if is_trained != is_other_trained:
                change = "trained" if is_other_trained else "frozen"
                return f"{name} would be {change}, and the optimizer's state is that of the trained parameters"
        return ""

    def _check_form(self, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model has outputs of another form."""
        forms = {"per_pixel": "one for each pixel", "boxes": "boxes of objects", "masks": "masks of objects"}
        for form, needed in forms.items():
            if getattr(self.model, form) or not any(getattr(output, form) for output in outputs.values()):
                continue
            models = get_args(get_args(ModelConfig)[0])
            able = ", ".join(each.model_fields["kind"].default for each in models if getattr(each, form))
            message = f"{self.model.kind} has other outputs, and the task needs {needed}"
            raise Mistakes(Problem(message, "kind", hint=f"allowed: {able}"))

    @property
    def _needs_import(self) -> bool:
        """Whether checks of the model and the data need the user's code or files, which is not allowed now."""
        return (bool(self.targets) or self.data.needs_files) and not imports_allowed()

    def _tensors(self) -> dict[str, tuple[list[int], bool]]:
        """The shape of each tensor of the model's state, and whether it is trained."""
        if self._needs_import:
            return {}
        with torch.device("meta"):
            state = self.build_model().state_dict(keep_vars=True)
        return {name: (list(tensor.shape), tensor.requires_grad) for name, tensor in state.items()}

    @model_validator(mode="after")
    def _sections_fit(self) -> "TrialConfig":
        problems: list[Problem] = []
        if not self._needs_import:
            with collecting("data.augment", problems):
                self.data.check_augment()
            with collecting("task", problems):
                outputs = self.task.outputs(self.data.targets)
            if self.data.balances_loss and not self.task.can_balance:
                message = "weights has no effect: no loss of the task can weigh its classes"
                hint = "use cross_entropy, focal, nll or binary_cross_entropy, or balance: sampler"
                problems.append(Problem(message, "data.balance", hint=hint))
            if not problems:
                with collecting("model", problems):
                    self._check_form(outputs)
                    self.model.check(self.data.image, outputs)
            if not problems and self.data.batch_size == 1 and self.model.needs_several(self.data.image, outputs):
                message = "the model's batch normalization cannot be trained on one image"
                problems.append(Problem(message, key="data.batch_size", hint="allowed: 2 or more"))
        if self.distillation is not None and not self.task.has_losses:
            message = "the task has a loss that the model computes itself, which knows no teacher"
            problems.append(Problem(message, key="distillation", hint="leave it out for tasks with boxes"))
        if self.compile == "on" and (why := self.why_not_compiled):
            message = f"on: the model cannot be compiled, since {why}"
            problems.append(Problem(message, key="compile", hint="set it to auto or to off"))
        problems += _at("model", self.model.why_not_for(self.epochs))
        problems += _at("optimizer", self.optimizer.why_not_for(self.model.has_stages))
        taken = [name for name in self.task.named_heads if f"{name}_".startswith(PREFIX)]
        if self.ema and taken:
            message = f"{PREFIX} begins the names of the average's metrics, and of those of a head: {', '.join(taken)}"
            problems.append(Problem(message, key="ema", hint="give that head another name"))
        if not problems and self.watched_metric:
            with collecting("early_stopping.metric", problems):
                self.check_metric(self.watched_metric)
        if problems:
            raise Mistakes(*problems)
        return self


@lru_cache(maxsize=4096)  # a constraint asks for it again and again while a searcher suggests configurations
def _parameters(model: ModelConfig, image: ImageShape, outputs: tuple[tuple[str, Output], ...], folder: Path) -> int:
    """The number of trained parameters of a model; `folder` is that of the user's code, and part of the cache's key."""
    with torch.device("meta"):  # shapes only: no memory is allocated and no random number drawn
        module = model.build(image, dict(outputs))
    return sum(each.numel() for each in module.parameters() if each.requires_grad)


def _at(section: str, problem: Problem | None) -> list[Problem]:
    return [] if problem is None else [replace(problem, key=f"{section}.{problem.key}")]
