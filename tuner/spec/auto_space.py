"""What ``space: auto`` stands for: the fields of a trial that are worth tuning, which say so with `Tunable`."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from tuner.config import Tunable
from tuner.config_keys import Assignment
from tuner.errors import Mistakes, Problem
from tuner.search.schedulers import SchedulerConfig
from tuner.search.space import Distribution
from tuner.spec.space_checks import check_mutations, refusal
from tuner.train.trial_base import AnyTrial
from tuner.train.trial_config import TrialConfig

_AUTO = "auto"
_DISTRIBUTION: TypeAdapter[Any] = TypeAdapter(Distribution)
_SCHEDULER: TypeAdapter[Any] = TypeAdapter(SchedulerConfig)

WrittenSpace = dict[str, Distribution | bool] | str
"""A space as a file has it: distributions by key, with ``auto: true`` among them; or ``auto``."""


def is_auto(space: Any) -> bool:
    """Whether a space of a file has keys that it does not name.

    Raises:
        Mistakes: It says so in a way that has no meaning.
    """
    if isinstance(space, Mapping) and not isinstance(space.get(_AUTO, False), bool):
        raise Mistakes(Problem(f"{space[_AUTO]!r} is not allowed", "space.auto", hint="allowed: true, false"))
    return space == _AUTO or (isinstance(space, Mapping) and _AUTO in space)


def named_keys(space: Any) -> dict[str, Any]:
    """The keys that a space names, with their distributions."""
    return {key: value for key, value in space.items() if key != _AUTO} if isinstance(space, Mapping) else {}


def written_out(space: Any, trial: AnyTrial, scheduler: Any) -> dict[str, Any]:
    """Write out a space for which `is_auto` holds.

    A field of the trial is searched if it is worth tuning, the file does not set it, and all of its values are allowed
    in this trial, also with each value of the keys that the file searches, such as other models. The fields of a
    section whose kind is searched are not, because the kinds differ in them.

    Args:
        space: The space of the file.
        trial: The trial of the file.
        scheduler: The scheduler of the file; None for none.

    Raises:
        Mistakes: There is nothing to tune.
    """
    named = named_keys(space)
    if space != _AUTO and not space[_AUTO]:
        return named
    if not isinstance(trial, TrialConfig):
        hint = "write the keys of trial.config to search, such as lr: {loguniform: [1e-4, 1e-1]}"
        raise Mistakes(Problem("auto does not know what a function of your own has to tune", "space", hint=hint))
    found: dict[str, Any] = {}
    contexts = list(_contexts(named, trial))
    mutates = _mutates(scheduler)
    for key, tunable in _tunables(trial, ""):
        if not _is_covered(key, named):
            values = _values(tunable, trial)
            if _is_possible(key, values, trial, contexts, mutates):
                found[key] = values
    if not found and not named:
        hint = "leave out of trial what is to be searched, or write the keys and their distributions"
        raise Mistakes(
            Problem("auto has nothing to tune: the file sets every field that is worth it", "space", hint=hint)
        )
    return found | named


def _tunables(section: BaseModel, prefix: str) -> Iterator[tuple[str, Tunable]]:
    """The fields of a section, and of those in it, that are worth tuning and have their default values."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        tunable = next((each for each in field.metadata if isinstance(each, Tunable)), None)
        if tunable is not None and name not in section.model_fields_set:
            yield f"{prefix}{name}", tunable
        elif isinstance(value, BaseModel):
            yield from _tunables(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            for key, each in value.items():
                if isinstance(each, BaseModel):
                    yield from _tunables(each, f"{prefix}{name}.{key}.")


def _is_covered(key: str, named: Mapping[str, Any]) -> bool:
    """Whether the keys that the file searches decide this one, too: itself, its section, or the kind of its section."""
    return any(key == other or key.startswith(f"{other.removesuffix('.kind')}.") for other in named)


def _contexts(named: Mapping[str, Any], trial: TrialConfig) -> Iterator[Assignment]:
    """The trial of the file, and with each corner of each key that the file searches, where that is a trial."""
    yield {}
    for key, written in named.items():
        try:
            corners = _DISTRIBUTION.validate_python(written).corners()
        except ValidationError:  # reported where it stands
            continue
        yield from ({key: corner} for corner in corners if not refusal(trial, {key: corner}))


def _values(tunable: Tunable, trial: TrialConfig) -> dict[str, Any]:
    values = tunable.fine_tuning if tunable.fine_tuning and trial.model.is_pretrained else tunable.values
    if tunable.is_share_of_epochs:
        return {name: [bound * trial.epochs for bound in bounds] for name, bounds in values.items()}
    return dict(values)


def _mutates(scheduler: Any) -> bool:
    """Whether the scheduler of a file changes running trials."""
    try:
        return scheduler is not None and bool(_SCHEDULER.validate_python(scheduler).mutates)
    except ValidationError:  # reported where it stands
        return False


def _is_possible(
    key: str, values: dict[str, Any], trial: TrialConfig, contexts: list[Assignment], mutates: bool
) -> bool:
    """Whether a trial may have any of these values, and may change among them if its scheduler does that."""
    distribution = _DISTRIBUTION.validate_python(values)
    if any(refusal(trial, {**each, key: corner}) for each in contexts for corner in distribution.corners()):
        return False
    return not (mutates and any(check_mutations(trial, {key: distribution})))
