"""The specification of an experiment: what one YAML file says."""

import contextlib
import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from tuner.config import Config
from tuner.data.images import ImageData
from tuner.errors import Mistakes, Problem, UserError, collecting
from tuner.feasibility import check_plan, check_space
from tuner.metrics import mode_of
from tuner.scoring import Objective
from tuner.search import SearchConfig
from tuner.source import Key, read, split
from tuner.space import Assignment, Space
from tuner.trial_config import TrialConfig, check_metric, merge
from tuner.validation import problems_of


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
    if not isinstance(value, str | dict | Objective):
        raise ValueError(f"{value!r} is not the name of a metric, such as val_accuracy")
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
    objective: Annotated[Objective, BeforeValidator(_objective, json_schema_input_type=Objective | str)]
    """The metric that decides, measured on validation. A name of METRICS knows its direction itself."""
    trial: TrialConfig
    """One complete training run."""
    space: Space = Field(default_factory=dict)
    """Dotted key of the trial, to what to try for it."""
    search: SearchConfig
    """How configurations are found."""
    resources: Resources = Resources()
    """What one trial takes."""
    timeout: Annotated[float | None, BeforeValidator(_seconds, json_schema_input_type=float | str | None)] = Field(
        None, gt=0
    )
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
        return merge(self.trial, assignment).with_seed(self.search.seed)

    def with_data(self, data: ImageData) -> "ExperimentSpec":
        """The same with another dataset in its trial.

        Raises:
            UserError: The space asks for what the other dataset does not have.
        """
        if data == self.trial.data:
            return self
        try:
            return ExperimentSpec.model_validate(
                {name: getattr(self, name) for name in self.model_fields_set}
                | {"trial": self.trial.model_copy(update={"data": data})}
            )
        except ValidationError as error:
            about = f"with {data.describe().name} as data: "
            problems = problems_of(error, ExperimentSpec)
            raise UserError(*(replace(p, message=f"{about}{p.message}") for p in problems)) from None

    def to_yaml(self) -> str:
        """The specification as YAML, as resolved: it runs again to the same plan."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _cross_checks(parts: dict[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong between the parts of an experiment, as far as the parts are there."""
    trial, space, search = (parts.get(name) for name in ("trial", "space", "search"))
    if trial is not None and "objective" in parts:
        problems: list[Problem] = []
        with collecting("objective", problems):
            check_metric(parts["objective"].metric, trial)
        yield from problems
    refused = list(search.check(space)) if search is not None and space is not None else []
    if trial is not None and space is not None:
        refused += check_space(trial, space)
    if not refused and trial is not None and space is not None and search is not None:
        refused += check_plan(trial, search.plan(space))
    yield from refused


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
            problems += _checks_of_sound_parts(source.data, problems)
        places = {problem: source.where(split(problem.key, source.data)) for problem in problems}
        raise UserError(*(replace(problem, where=where) for problem, where in places.items())) from None
    return _resolve_storage(spec, source.path)


def _checks_of_sound_parts(data: dict[str, Any], mistakes: Iterable[Problem]) -> list[Problem]:
    """The checks between parts that a mistake elsewhere kept from running, so that all mistakes are told at once."""
    data = copy.deepcopy(data)
    for problem in mistakes:
        _leave_out(data, split(problem.key, data))
    parts = {}
    for name, field in ExperimentSpec.model_fields.items():
        with contextlib.suppress(ValidationError):  # its own mistakes are told already
            parts[name] = TypeAdapter(field.rebuild_annotation()).validate_python(data[name]) if name in data else None
    return list(_cross_checks({name: part for name, part in parts.items() if part is not None}))


def _leave_out(data: Any, key: Key) -> None:
    """Take a single wrong value out of the trial: its default, or its absence, lets the other keys be checked.

    A whole mapping or a kind stays, wrong as it is: what else is right depends on it.
    """
    for part in key[:-1]:
        data = data.get(part) if isinstance(data, dict) else None
    is_value = isinstance(data, dict) and not isinstance(data.get(key[-1]), dict | list)
    if is_value and key[:1] == ("trial",) and key[-1] != "kind":
        data.pop(key[-1], None)


def _resolve_storage(spec: ExperimentSpec, path: Path) -> ExperimentSpec:
    """Paths are relative to the file that holds them; from here on they are absolute."""
    if "://" in spec.storage:
        return spec
    base = path.parent if "storage" in spec.model_fields_set else Path()
    return spec.model_copy(update={"storage": str((base / Path(spec.storage).expanduser()).resolve())})
