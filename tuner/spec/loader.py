"""An experiment's file as a specification: everything that is wrong with it is told at once, where it stands."""

import contextlib
import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tuner import user_code
from tuner.config_keys import Key
from tuner.errors import Problem, UserError
from tuner.spec.checks import check_parts
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.source import read, split
from tuner.spec.validation_errors import problems_of


def load(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Read an experiment's YAML file, with dotted ``key=value`` overrides.

    Raises:
        UserError: Something in it is wrong; it names everything that is.
    """
    source = read(Path(path), overrides)
    user_code.add_folder(source.path.parent, Path.cwd())
    try:
        spec = ExperimentSpec.model_validate(source.data)
    except ValidationError as error:
        problems = [_as_written(problem, source.data) for problem in problems_of(error, ExperimentSpec)]
        if any(details["loc"] for details in error.errors()):
            problems += _checks_of_sound_parts(source.data, problems)
        places = {problem: source.where(split(problem.key, source.data)) for problem in problems}
        raise UserError(*(replace(problem, where=where) for problem, where in places.items())) from None
    return _resolve_storage(spec, source.path, source.where(("storage",)))


def _as_written(problem: Problem, data: dict[str, Any]) -> Problem:
    """A mistake in the only objective, at the key that the user wrote."""
    if isinstance(data.get("objective"), list):
        return problem
    return replace(problem, key=re.sub(r"^objective\.0\b", "objective", problem.key))


def _checks_of_sound_parts(data: dict[str, Any], mistakes: Iterable[Problem]) -> list[Problem]:
    """The checks between parts that a mistake elsewhere kept from running, so that all mistakes are told at once."""
    data = copy.deepcopy(data)
    for problem in mistakes:
        _leave_out(data, split(problem.key, data))
    parts = {}
    for name, field in ExperimentSpec.model_fields.items():
        key = field.alias or name
        with contextlib.suppress(ValidationError):  # its own mistakes are told already
            parts[name] = TypeAdapter(field.rebuild_annotation()).validate_python(data[key]) if key in data else None
    return list(check_parts({name: part for name, part in parts.items() if part is not None}))


def _leave_out(data: Any, key: Key) -> None:
    """Take a single wrong value out of the trial: its default, or its absence, lets the other keys be checked.

    A whole mapping or a kind stays, wrong as it is: what else is right depends on it.
    """
    for part in key[:-1]:
        data = data.get(part) if isinstance(data, dict) else None
    is_value = isinstance(data, dict) and bool(key) and not isinstance(data.get(key[-1]), dict | list)
    if is_value and key[:1] == ("trial",) and key[-1] != "kind":
        data.pop(key[-1], None)


def _resolve_storage(spec: ExperimentSpec, path: Path, where: str) -> ExperimentSpec:
    """Paths are relative to the file that holds them; from here on they are absolute."""
    if "://" in spec.storage:
        return spec
    base = path.parent if "storage" in spec.model_fields_set else Path()
    try:
        storage = (base / Path(spec.storage).expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:  # nobody's home; links in a circle; no character of a path
        raise UserError(Problem(f"{spec.storage!r} is no folder: {error}", "storage", where)) from None
    return spec.model_copy(update={"storage": str(storage)})
