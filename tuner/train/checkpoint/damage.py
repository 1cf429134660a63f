"""The error of a checkpoint that cannot be read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from tuner.errors import Damaged, Mistakes, Problem


@contextlib.contextmanager
def errors_as_damage(folder: Path, name: str, *, is_code: bool = False, hint: str = "") -> Iterator[None]:
    """Turn errors of the body into Damaged: the file is damaged, or the user's code is missing or does not fit.

    Args:
        folder: The checkpoint.
        name: The file that the body reads.
        is_code: Whether the body calls the user's code.
        hint: A further hint if that code fails.
    """
    try:
        yield
    except (ValidationError, Mistakes) as error:
        where = str(folder)
        if is_code:
            problems = [
                Problem(
                    f"cannot be loaded: {each.message}", where=where, hint="; ".join(filter(None, (each.hint, hint)))
                )
                for each in _problems(error)
            ]
        else:
            problems = [Problem(f"is a damaged checkpoint: {name}: {each}", where=where) for each in _problems(error)]
        raise Damaged(*problems) from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError, RuntimeError) as error:
        raise Damaged(Problem(f"is a damaged checkpoint: {name}: {error}", where=str(folder))) from None


def _problems(error: ValidationError | Mistakes) -> list[Problem]:
    """The single problems of an error."""
    if isinstance(error, Mistakes):
        return error.problems
    problems = []
    for each in error.errors():
        cause = each.get("ctx", {}).get("error")
        key = ".".join(map(str, each["loc"]))
        problems += (
            cause.problems if isinstance(cause, Mistakes) else [Problem(each["msg"].removeprefix("Value error, "), key)]
        )
    return problems
