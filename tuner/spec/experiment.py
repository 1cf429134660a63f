"""The specification of an experiment: what one YAML file says."""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from tuner.config import Config
from tuner.config_keys import Assignment
from tuner.errors import Mistakes, Problem, UserError
from tuner.formatting import parse_duration
from tuner.objectives import Objective, is_measured, objectives_of
from tuner.search import SearchConfig
from tuner.search.schedulers import Fifo, SchedulerConfig
from tuner.search.space import Space
from tuner.spec.checks import check_parts
from tuner.spec.constraints import Constraint, Limits
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
    """An experiment: one trial, what to vary in it, and how."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the experiment: of its folder and in MLflow. Letters, digits, '.', '_' and '-'."""
    objectives: Annotated[
        tuple[Objective, ...],
        BeforeValidator(objectives_of, json_schema_input_type=Objective | str | list[Objective | str]),
    ] = Field(alias="objective")
    """The metric that decides, measured on validation, or several. A name of METRICS knows its direction itself."""
    trial: AnyTrialConfig
    """One complete training run."""
    space: Space = Field(default_factory=dict)
    """Dotted key of the trial, to what to try for it."""
    search: SearchConfig
    """How configurations are found."""
    repeat: int = Field(1, ge=1, le=1000)
    """Trains each configuration so many times, each time with another seed: the best one is that of the best mean."""
    scheduler: SchedulerConfig = Fifo()
    """Which running trials go on."""
    constraints: list[str] = Field(default_factory=list)
    """What a trial has to satisfy, such as ``parameters <= 500000``."""
    stop: dict[str, float] = Field(default_factory=dict)
    """Metric and value: the job ends when a trial is as good."""
    budget: Budget = Budget()
    """What the job may cost."""
    fail_after: FailAfter | None = None
    """How many failed trials end the job as failed; null for none: it has failed where no trial has a result."""
    resources: Resources = Resources()
    """What one trial takes."""
    timeout: _Seconds = Field(None, gt=0)
    """Time after which the job ends, in seconds or as 90s, 15m, 2h; null for none."""
    trial_timeout: _Seconds = Field(None, gt=0)
    """Time without a report after which a trial is taken to hang and ended; given as `timeout` is."""
    storage: str = "runs"
    """Folder, or URI of one, for checkpoints; relative to this file. The default is `runs` where the job is started.

    Of an object store elsewhere than at its maker's: ``s3://bucket/runs?endpoint_override=host:9000&scheme=http``.
    """
    checkpoints: Checkpoints = Checkpoints()
    """What is kept of the trials' files."""
    retry: Retry = Retry()
    """Which trials begin again."""
    tracking: Tracking = Tracking()
    """The record."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "ExperimentSpec":
        problems = list(check_parts(self.__dict__))
        if problems:
            raise Mistakes(*problems)
        return self

    @model_validator(mode="before")
    @classmethod
    def _directions_are_known(cls, data: Any) -> Any:
        """Of a function of the user's own nobody but the user knows which direction of a metric is better."""
        if isinstance(data, dict) and isinstance(data.get("trial"), dict) and "target" in data["trial"]:
            said = data.get("objective")
            problems = [
                Problem(
                    f"whether more or less of {each!r} is better is not known",
                    f"objective.{place}" if isinstance(said, list) else "objective",
                    hint=f"write {{metric: {each}, mode: max}} or {{metric: {each}, mode: min}}",
                )
                for place, each in enumerate(said if isinstance(said, list) else [said])
                if isinstance(each, str) and not is_measured(each)
            ]
            if problems:
                raise Mistakes(*problems)
        return data

    @field_validator("storage")
    @classmethod
    def _holds_no_secret(cls, storage: str) -> str:
        if "://" in storage and holds_secret(storage):
            hint = "give it to all machines in their environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise Mistakes(Problem(f"a name or password has no place in it: {masked(storage)}", hint=hint))
        return storage

    @field_validator("constraints")
    @classmethod
    def _are_comparisons(cls, constraints: list[str]) -> list[str]:
        problems = []
        for place, text in enumerate(constraints):
            try:
                Constraint.parse(text)
            except ValueError as error:
                problems.append(Problem(str(error), key=str(place)))
        if problems:
            raise Mistakes(*problems)
        return constraints

    @field_serializer("objectives")
    def _one_as_itself(self, objectives: tuple[Objective, ...]) -> Any:
        plain = [objective.model_dump() for objective in objectives]
        return plain if len(plain) > 1 else plain[0]

    @property
    def objective(self) -> Objective:
        """The first objective: it decides which report of a trial is its best, and which trial is the winner."""
        return self.objectives[0]

    @cached_property
    def limits(self) -> Limits:
        """Its constraints."""
        return Limits(self.trial, self.space, self.constraints)

    def allows(self, assignment: Assignment) -> bool:
        """Whether a configuration may be tried: the trial and the constraints allow it."""
        return self.limits.allows(assignment) and not refusal(self.trial, assignment)

    def plan(self) -> list[Assignment] | None:
        """What each trial takes for the searched keys, in order; None where the search is adaptive."""
        return self.search.plan(self.space, self.limits.allows)

    def count(self) -> int:
        """How many trials there will be at most."""
        plan = self.plan()
        return self.repeat * (len(plan) if plan is not None else getattr(self.search, "trials", 0))

    def searcher(self, previous_trials: int = 0) -> "Searcher":
        """Where the configurations come from. `previous_trials`: trials that an earlier run of the job asked for."""
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
        """What the user should know of choices that were made for them; empty where there were none."""
        return self.search.explain(self.space, len(self.objectives), self.scheduler.prunes)

    def direction(self, metric: str) -> Objective:
        """A metric with the direction that is better: that of the objective of its name, else its own."""
        return next((o for o in self.objectives if o.metric == metric), None) or Objective.of_metric(metric)

    def trial_config(self, assignment: Assignment, repeat: int = 0) -> AnyTrial:
        """One trial whole: the trial of the file with `assignment` merged in, its seed explicit."""
        return merge(self.trial, assignment).with_seed(self.search.seed, repeat)

    def prepare(self) -> "tuple[ExperimentSpec, str]":
        """Make the data available on this machine.

        Returns:
            The experiment with the data that there is, and what the user must be told about it.

        Raises:
            UserError: There is none, or the space asks for what the other dataset does not have.
        """
        trial, message = self.trial.prepare()
        if trial == self.trial:
            return self, message
        try:
            given = {name: getattr(self, name) for name in self.model_fields_set} | {"trial": trial}
            return ExperimentSpec.model_validate(given), message
        except ValidationError as error:
            data = trial.describe_data()
            about = f"with {data.name} as data: " if data else ""
            problems = problems_of(error, ExperimentSpec)
            raise UserError(*(replace(p, message=f"{about}{p.message}") for p in problems)) from None

    def to_yaml(self) -> str:
        """The specification as YAML, as resolved: it runs again to the same plan."""
        return write_yaml(self.model_dump(mode="json", exclude_none=True))
