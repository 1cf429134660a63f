"""The specification of an experiment: what one YAML file says."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from torch import nn

from tuner.config import Config
from tuner.data import DataConfig
from tuner.device import Precision
from tuner.errors import Mistakes, Problem, UserError, allowed
from tuner.metrics import EPOCH_METRICS, mode_of
from tuner.models import ModelConfig
from tuner.optim import SGD, Constant, OptimizerConfig, ScheduleConfig
from tuner.scoring import Objective
from tuner.search import SearchConfig
from tuner.source import put, read, split
from tuner.space import Assignment, Space
from tuner.tasks import Classification, TaskConfig
from tuner.validation import problems_of


@contextlib.contextmanager
def _under(key: str, problems: list[Problem]) -> Iterator[None]:
    """Collect the mistakes found inside, at keys below `key`."""
    try:
        yield
    except Mistakes as mistakes:
        problems += [replace(p, key=".".join(filter(None, (key, p.key)))) for p in mistakes.problems]


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
        what_is_set = self.model_dump(mode="json", exclude_defaults=True)
        digest = hashlib.sha256(json.dumps([experiment_seed, what_is_set], sort_keys=True).encode()).digest()
        return self.model_copy(update={"seed": int.from_bytes(digest[:4], "big")})

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrialConfig":
        problems: list[Problem] = []
        with _under("task", problems):
            outputs = self.task.outputs(self.data.targets)
        if not problems:
            with _under("model", problems):
                self.model.check(self.data.image, outputs)
        watched = self.early_stopping and self.early_stopping.metric
        if not problems and watched:
            with _under("early_stopping.metric", problems):
                _check_metric(watched, self)
        if problems:
            raise Mistakes(*problems)
        return self


def _check_metric(name: str, trial: TrialConfig) -> None:
    """Raise Mistakes unless a trial can be judged by this metric."""
    judging = [metric for metric in trial.metrics if not metric.startswith("train_") and mode_of(metric) is not None]
    if name not in judging:
        message = f"{name!r} is not measured by this trial"
        if name.startswith("test_"):
            message = f"{name!r}: the test set is touched once, by the winner, and never chooses"
        elif name in trial.metrics:
            message = f"{name!r} does not judge a trial"
        raise Mistakes(Problem(message, hint=allowed(name, judging)))


def _seconds(value: Any) -> Any:
    """``90``, ``90s``, ``15m``, ``2h``, ``1d`` or ``1h30m`` in seconds."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
    if not parts or "".join(number + unit for number, unit in parts) != value.replace(" ", ""):
        raise ValueError(f"{value!r} is not a time; write 90s, 15m, 2h or 1h30m")
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for number, unit in parts)


def _objective(value: Any) -> Any:
    """A bare metric name stands for the metric with its own direction."""
    if not isinstance(value, str):
        return value
    try:
        mode = mode_of(value)
    except KeyError:
        mode = None
    return {"metric": value, "mode": mode or "max"}  # a name that is not measured is refused with the names that are


class Resources(Config):
    """What one trial takes of the machine or cluster."""

    cpu: float = Field(1, gt=0)
    """CPU cores a trial; it computes on as many threads."""
    gpu: float | Annotated[str, Field(pattern="^auto$")] = "auto"
    """GPUs a trial: 0.25 is four trials a GPU; auto takes a share of what there is, none where there is none."""

    @model_validator(mode="after")
    def _share(self) -> "Resources":
        if isinstance(self.gpu, float | int) and (self.gpu < 0 or (self.gpu > 1 and self.gpu % 1)):
            message = f"{self.gpu:g} is no share of a GPU and no number of GPUs"
            raise Mistakes(Problem(message, key="gpu", hint="allowed: auto, 0, a share such as 0.25, or 1, 2, 3, ..."))
        return self


class Tracking(Config):
    """Where MLflow keeps the record."""

    uri: str | None = None
    """Tracking URI; null for MLFLOW_TRACKING_URI, else MLflow's own default (sqlite:///mlflow.db)."""


class ExperimentSpec(Config):
    """An experiment: one trial, what to vary in it, and how."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the experiment: of its folder and in MLflow. Letters, digits, '.', '_' and '-'."""
    objective: Annotated[Objective, BeforeValidator(_objective)]
    """The metric that decides, measured on validation. A name of METRICS knows its direction itself."""
    trial: TrialConfig
    """One complete training run."""
    space: Space = Field(default_factory=dict)
    """Dotted key of the trial, to what to try for it."""
    search: SearchConfig
    """How configurations are found."""
    resources: Resources = Resources()
    """What one trial takes."""
    timeout: Annotated[float | None, BeforeValidator(_seconds)] = Field(None, gt=0)
    """Time after which the job ends, in seconds or as 90s, 15m, 2h; null for none."""
    storage: str = "runs"
    """Folder, or URI of one, for checkpoints; relative to this file. The default is `runs` where the job is started."""
    tracking: Tracking = Tracking()
    """The record."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "ExperimentSpec":
        problems = list(_cross_checks(self.__dict__))
        if problems:
            raise Mistakes(*problems)
        return self

    def plan(self) -> list[Assignment]:
        """What each trial takes for the searched keys, in order."""
        return self.search.plan(self.space)

    def trial_config(self, assignment: Assignment) -> TrialConfig:
        """One trial whole: the trial of the file with `assignment` merged in, its seed explicit."""
        return _merge(self.trial, assignment).with_seed(self.search.seed)

    def to_yaml(self) -> str:
        """The specification as YAML, as resolved: it runs again to the same plan."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _merge(trial: TrialConfig, assignment: Assignment) -> TrialConfig:
    """`trial` with dotted keys set in it, validated. Raises ValidationError or UserError."""
    data = trial.model_dump()
    for name, value in assignment.items():
        put(data, tuple(name.split(".")), value)
    return TrialConfig.model_validate(data)


def _cross_checks(parts: dict[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong between the parts of an experiment, as far as the parts are there."""
    trial, space, search = (parts.get(name) for name in ("trial", "space", "search"))
    if trial is not None and "objective" in parts:
        problems: list[Problem] = []
        with _under("objective", problems):
            _check_metric(parts["objective"].metric, trial)
        yield from problems
    if search is not None and space is not None:
        yield from search.check(space)
    if trial is not None and space is not None:
        yield from _check_space(trial, space)


def _check_space(trial: TrialConfig, space: Space) -> Iterator[Problem]:
    """Each value that decides whether a distribution is allowed, merged into the trial and validated."""
    first = {name: distribution.corners()[0] for name, distribution in space.items()}
    for name, distribution in space.items():
        told: set[str] = set()
        for corner in distribution.corners():
            try:
                _merge(trial, first | {name: corner})
            except UserError as error:
                problems = error.problems
            except ValidationError as error:
                # A mistake of another key is told at that key.
                problems = [p for p in problems_of(error, TrialConfig) if p.key == name or p.key not in space]
            else:
                continue
            for problem in problems:
                if problem.message not in told:
                    told.add(problem.message)
                    inside = "" if problem.key in (name, "") else f" ({problem.key})"
                    yield Problem(f"{problem.message}{inside}", key=f"space.{name}", hint=problem.hint)


def load(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Read an experiment's YAML file, with dotted ``key=value`` overrides.

    Raises:
        UserError: Something in it is wrong; it names everything that is.
    """
    source = read(Path(path), overrides)
    try:
        spec = ExperimentSpec.model_validate(source.data)
    except ValidationError as error:
        problems = problems_of(error, ExperimentSpec)
        if any(details["loc"] for details in error.errors()):
            problems += _checks_of_sound_parts(source.data)
        places = {problem: source.where(split(problem.key, source.data)) for problem in problems}
        raise UserError(*(replace(problem, where=where) for problem, where in places.items())) from None
    return _resolve_storage(spec, source.path)


def _checks_of_sound_parts(data: dict[str, Any]) -> list[Problem]:
    """The checks between parts that a mistake elsewhere kept from running, so that all mistakes are told at once."""
    parts = {}
    for name, field in ExperimentSpec.model_fields.items():
        with contextlib.suppress(ValidationError):  # its own mistakes are told already
            parts[name] = TypeAdapter(field.rebuild_annotation()).validate_python(data[name]) if name in data else None
    return list(_cross_checks({name: part for name, part in parts.items() if part is not None}))


def _resolve_storage(spec: ExperimentSpec, path: Path) -> ExperimentSpec:
    """Paths are relative to the file that holds them; from here on they are absolute."""
    if "://" in spec.storage:
        return spec
    base = path.parent if "storage" in spec.model_fields_set else Path()
    return spec.model_copy(update={"storage": str((base / Path(spec.storage).expanduser()).resolve())})
