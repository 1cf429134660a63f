"""The specification of an experiment: the content of one YAML file."""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from tuner.config import Config
from tuner.config_keys import Assignment
from tuner.errors import Mistakes, Problem, UserError
from tuner.formatting import parse_duration
from tuner.models.imported import without_checks
from tuner.objectives import Objective, is_measured, objectives_of
from tuner.search import SearchConfig
from tuner.search.schedulers import Fifo, SchedulerConfig
from tuner.search.space import Space
from tuner.spec.auto_space import WrittenSpace, is_auto, named_keys, written_out
from tuner.spec.checks import check_sections
from tuner.spec.constraints import Constraint, ConstraintSet
from tuner.spec.preparation import prepare_choices
from tuner.spec.sections import Budget, Checkpoints, FailAfter, Resources, Retry, Tracking
from tuner.spec.space_checks import refusal
from tuner.spec.validation_errors import problems_of
from tuner.storage.uris import holds_secret, masked
from tuner.storage.yaml import write_yaml
from tuner.train.function_trial import TargetTrial
from tuner.train.trial_base import AnyTrial, merge
from tuner.train.trial_config import TrialConfig

if TYPE_CHECKING:
    from tuner.search.adaptive import Adaptive
    from tuner.search.searcher import Searcher


_Seconds = Annotated[float | None, BeforeValidator(parse_duration, json_schema_input_type=float | str | None)]


def _which_trial(value: Any) -> str:
    is_target = "target" in value if isinstance(value, dict) else getattr(value, "is_function", False)
    return TargetTrial.tag if is_target else TrialConfig.tag


AnyTrialConfig = Annotated[
    Annotated[TrialConfig, Tag(TrialConfig.tag)] | Annotated[TargetTrial, Tag(TargetTrial.tag)],
    Discriminator(_which_trial),
]


class ExperimentSpec(Config):
    """An experiment: a trial, the hyperparameters to search, and how to search them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the experiment, also in MLflow, and of its folder. Letters, digits, '.', '_' and '-'."""
    objectives: Annotated[
        tuple[Objective, ...],
        BeforeValidator(objectives_of, json_schema_input_type=Objective | str | list[Objective | str]),
    ] = Field(alias="objective")
    """Validation metric to optimise, or a list: the first one selects the winner. Built-in metrics need no mode."""
    trial: AnyTrialConfig
    """One training, with defaults for everything that is not searched."""
    space: Annotated[Space, BeforeValidator(lambda space: space, json_schema_input_type=WrittenSpace)] = Field(
        default_factory=dict
    )
    """Search space: dotted keys of the trial and their distributions; auto, or auto: true among them, adds the fields
    that are worth tuning and that the trial does not set."""
    search: SearchConfig
    """Search algorithm."""
    repeat: int = Field(1, ge=1, le=1000)
    """Number of trials of each configuration, with different seeds; configurations are compared by their means."""
    scheduler: SchedulerConfig = Fifo()
    """Scheduler, which may prune running trials or change their hyperparameters."""
    constraints: list[str] = Field(default_factory=list)
    """Conditions that a trial must satisfy, such as ``parameters <= 500000``."""
    stop: dict[str, float] = Field(default_factory=dict)
    """Metrics and values: the job ends when a trial reaches one of the values."""
    budget: Budget = Budget()
    """Limits on trials and epochs."""
    fail_after: FailAfter | None = None
    """Failed trials after which the job fails; null for no limit. A job also fails if no trial has a result."""
    resources: Resources = Resources()
    """Resources of one trial."""
    timeout: _Seconds = Field(None, gt=0)
    """Time after which the job ends, in seconds or as 90s, 15m, 2h; null for none."""
    trial_timeout: _Seconds = Field(None, gt=0)
    """Time without a report after which a trial fails because it hangs; written like `timeout`; null for none."""
    storage: str = "runs"
    """Folder or URI for checkpoints and journals, relative to this file; by default `runs` in the working directory.

    An object store with its own endpoint: ``s3://bucket/runs?endpoint_override=host:9000&scheme=http``.
    """
    checkpoints: Checkpoints = Checkpoints()
    """Which checkpoints stay in `storage`."""
    retry: Retry = Retry()
    """Which trials are retried."""
    tracking: Tracking = Tracking()
    """Tracking with MLflow."""

    @model_validator(mode="after")
    def _sections_fit(self) -> "ExperimentSpec":
        problems = list(check_sections(self.__dict__))
        if problems:
            raise Mistakes(*problems)
        return self

    @model_validator(mode="before")
    @classmethod
    def _auto_is_written_out(cls, data: Any) -> Any:
        """Replace ``space: auto`` by what it stands for, so that what is recorded and resumed does not change."""
        if not isinstance(data, dict) or not is_auto(data.get("space")):
            return data
        space = data["space"]
        try:
            trial: AnyTrial = TypeAdapter(AnyTrialConfig).validate_python(data.get("trial"))
        except ValidationError:  # reported where it stands
            return data | {"space": named_keys(space)}
        return data | {"space": written_out(space, trial, data.get("scheduler"))}

    @model_validator(mode="before")
    @classmethod
    def _directions_are_known(cls, data: Any) -> Any:
        """Require a mode for the metrics of a user's function that are not metrics of METRICS."""
        if isinstance(data, dict) and isinstance(data.get("trial"), dict) and "target" in data["trial"]:
            objective = data.get("objective")
            problems = [
                Problem(
                    f"it is unknown whether a higher or a lower {each!r} is better",
                    f"objective.{index}" if isinstance(objective, list) else "objective",
                    hint=f"write {{metric: {each}, mode: max}} or {{metric: {each}, mode: min}}",
                )
                for index, each in enumerate(objective if isinstance(objective, list) else [objective])
                if isinstance(each, str) and not is_measured(each)
            ]
            if problems:
                raise Mistakes(*problems)
        return data

    @field_validator("storage")
    @classmethod
    def _holds_no_secret(cls, storage: str) -> str:
        if "://" in storage and holds_secret(storage):
            hint = "set environment variables on all nodes, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise Mistakes(Problem(f"must not contain a user name or password: {masked(storage)}", hint=hint))
        return storage

    @field_validator("constraints")
    @classmethod
    def _are_comparisons(cls, constraints: list[str]) -> list[str]:
        problems = []
        for index, text in enumerate(constraints):
            try:
                Constraint.parse(text)
            except ValueError as error:
                problems.append(Problem(str(error), key=str(index)))
        if problems:
            raise Mistakes(*problems)
        return constraints

    @field_serializer("objectives")
    def _one_as_itself(self, objectives: tuple[Objective, ...]) -> Any:
        plain = [objective.model_dump() for objective in objectives]
        return plain if len(plain) > 1 else plain[0]

    @property
    def objective(self) -> Objective:
        """The first objective, which selects the best report of a trial and the winner."""
        return self.objectives[0]

    @property
    def costly_metrics(self) -> list[str]:
        """The metrics that trials measure because objectives, constraints, `stop` or their early stopping name them."""
        named = {name for constraint in self.constraint_set.measured for name in constraint.names}
        named |= {*self.stop, *(each.metric for each in self.objectives), self.trial.watched_metric}
        return [name for name in self.trial.costly_metrics if name in named]

    @cached_property
    def constraint_set(self) -> ConstraintSet:
        """The parsed constraints."""
        return ConstraintSet(self.trial, self.space, self.constraints)

    def allows(self, assignment: Assignment) -> bool:
        """Whether a configuration is a valid trial and satisfies the constraints that are decided before training."""
        return self.constraint_set.allows(assignment) and not refusal(self.trial, assignment)

    def plan(self) -> list[Assignment] | None:
        """The configurations in order, without repetitions; None if the search is adaptive."""
        return self.search.plan(self.space, self.constraint_set.allows)

    def count(self) -> int:
        """The largest number of trials."""
        plan = self.plan()
        return self.repeat * (len(plan) if plan is not None else getattr(self.search, "trials", 0))

    def searcher(self, previous_trials: int = 0) -> "Searcher":
        """Create the searcher.

        Args:
            previous_trials: Number of trials that the job asked for before it was resumed.
        """
        from tuner.search.repeated_searcher import Repeated

        searcher = self._configurations(-(-previous_trials // self.repeat))
        return Repeated(searcher, self.repeat) if self.repeat > 1 else searcher

    def _configurations(self, previous_trials: int) -> "Searcher":
        from tuner.search.optuna_searcher import Study
        from tuner.search.searcher import Plan

        plan = self.plan()
        if plan is not None:
            return Plan(plan)
        modes = [objective.mode for objective in self.objectives]
        search = cast("Adaptive", self.search)
        return Study(
            search, self.space, modes, allows=self.allows, prunes=self.scheduler.prunes, previous_trials=previous_trials
        )

    def explain(self) -> str:
        """A sentence on the sampler that was chosen automatically, and why; empty if none was."""
        return self.search.explain(self.space, len(self.objectives), self.scheduler.prunes)

    def direction(self, metric: str) -> Objective:
        """A metric with its direction: that of the objective with this name, else that of METRICS."""
        return next((o for o in self.objectives if o.metric == metric), None) or Objective.of_metric(metric)

    def trial_config(self, assignment: Assignment, repeat: int = 0) -> AnyTrial:
        """The complete configuration of a trial, for which the user's model is not run.

        Args:
            assignment: The values of the searched keys.
            repeat: Number of earlier trials with the same configuration; it changes the seed.
        """
        with without_checks():
            return merge(self.trial, assignment).with_seed(self.search.seed, repeat)

    def with_batch_size(self, images: int) -> "ExperimentSpec":
        """The experiment with so many images in the batches of its trials, for ``data.batch_size: auto``."""
        return self._with_trial(self.trial.with_batch_size(images))

    def prepare(self, *, choices: bool = True) -> "tuple[ExperimentSpec, str]":
        """Make the dataset and the pretrained weights available on this node.

        Args:
            choices: Whether to make available what only some trials of the space need, too.

        Returns:
            The experiment with the dataset to use, and a message for the user, or ``""``.

        Raises:
            UserError: Something cannot be downloaded, or the space does not fit the dataset that replaces it.
        """
        spec, message = self._prepare_trial()
        messages = prepare_choices(spec.trial, spec.space, spec.allows) if choices else []
        return spec, "\n".join(filter(None, (message, *messages)))

    def _prepare_trial(self) -> "tuple[ExperimentSpec, str]":
        trial, message = self.trial.prepare()
        if trial == self.trial:
            return self, message
        try:
            return self._with_trial(trial), message
        except ValidationError as error:
            data = trial.describe_data()
            prefix = f"with {data.name} as data: " if data else ""
            problems = problems_of(error, ExperimentSpec)
            raise UserError(*(replace(p, message=f"{prefix}{p.message}") for p in problems)) from None

    def _with_trial(self, trial: AnyTrial) -> "ExperimentSpec":
        fields = {name: getattr(self, name) for name in self.model_fields_set} | {"trial": trial}
        return ExperimentSpec.model_validate(fields)

    def to_yaml(self) -> str:
        """The resolved specification as YAML, from which the same experiment can be run again."""
        return write_yaml(self.model_dump(mode="json", exclude_none=True))
