"""Loading of an experiment's file. All mistakes in it are reported at once, each with file, line and column."""

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
from tuner.spec.checks import check_sections
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.source import key_of, read
from tuner.spec.validation_errors import problems_of


def load(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Load an experiment's YAML file.

    Args:
        path: The file.
        overrides: Overrides of keys, as ``trial.epochs=1``.

    Raises:
        UserError: The file is not valid; the error has all mistakes in it.
    """
    source = read(Path(path), overrides)
    user_code.add_folder(source.path.parent, Path.cwd())
    try:
        spec = ExperimentSpec.model_validate(source.data)
    except ValidationError as error:
        problems = [_as_written(problem, source.data) for problem in problems_of(error, ExperimentSpec)]
        if any(details["loc"] for details in error.errors()):
            problems += _check_valid_sections(source.data, problems)
        places = {problem: source.where(key_of(problem.key, source.data)) for problem in problems}
        raise UserError(*(replace(problem, where=where) for problem, where in places.items())) from None
    return _resolve_storage(spec, source.path, source.where(("storage",)))


def _as_written(problem: Problem, data: dict[str, Any]) -> Problem:
    """Move a mistake in a single objective from ``objective.0``, where pydantic finds it, to ``objective``."""
    if isinstance(data.get("objective"), list):
        return problem
    return replace(problem, key=re.sub(r"^objective\.0\b", "objective", problem.key))


def _check_valid_sections(data: dict[str, Any], mistakes: Iterable[Problem]) -> list[Problem]:
    """Check the valid sections against each other, which pydantic skips if another section is not valid."""
    data = copy.deepcopy(data)
    for problem in mistakes:
        _remove(data, key_of(problem.key, data))
    sections = {}
    for name, field in ExperimentSpec.model_fields.items():
        key = field.alias or name
        if key in data:
            with contextlib.suppress(ValidationError):  # reported already
                sections[name] = TypeAdapter(field.rebuild_annotation()).validate_python(data[key])
    return list(check_sections({name: section for name, section in sections.items() if section is not None}))


def _remove(data: Any, key: Key) -> None:
    """Remove a wrong value from the trial, so that the trial can be checked with the default value.

    Mappings and kinds are not removed, because the validity of other keys depends on them.
    """
    for name in key[:-1]:
        data = data.get(name) if isinstance(data, dict) else None
    is_value = isinstance(data, dict) and bool(key) and not isinstance(data.get(key[-1]), dict | list)
    if is_value and key[:1] == ("trial",) and key[-1] != "kind":
        data.pop(key[-1], None)


def _resolve_storage(spec: ExperimentSpec, path: Path, where: str) -> ExperimentSpec:
    """Make the storage absolute. A path in a file is relative to the folder of that file."""
    if "://" in spec.storage:
        return spec
    base = path.parent if "storage" in spec.model_fields_set else Path()
    try:
        storage = (base / Path(spec.storage).expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:  # an unknown user's home; a cycle of links; a null character
        raise UserError(Problem(f"{spec.storage!r} is not a folder: {error}", "storage", where)) from None
    return spec.model_copy(update={"storage": str(storage)})
