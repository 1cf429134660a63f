"""Errors about what the user wrote: in a file, on the command line or in a call."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from tuner import aliases

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Problem:
    """One mistake, as it is shown to the user.

    Args:
        message: What is wrong, with the value that was given.
        key: Dotted key of the file, such as ``trial.optimizer.lr``; empty if the mistake is not at a key.
        where: ``file:line:column``, or ``command line``; empty if unknown.
        hint: What is allowed, or what to do.
        items: Everything of which the message names the first few, such as all files that cannot be read.
    """

    message: str
    key: str = ""
    where: str = ""
    hint: str = ""
    items: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ": ".join(text for text in (self.where, self.key, self.message) if text)
        return f"{head}\n    {self.hint}" if self.hint else head


class UserError(Exception):
    """One or several mistakes of the user's. They are found before anything is started; the exit status is 2."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = [Problem(p) if isinstance(p, str) else p for p in problems]
        super().__init__("\n".join(map(str, self.problems)))

    @property
    def in_a_line(self) -> str:
        """The mistakes as one line of text."""
        return "; ".join(str(problem).replace("\n    ", "; ") for problem in self.problems)

    def elsewhere(self, path: str, name: str) -> Self:
        """The same mistakes, where a path that means nothing to the user is replaced by the name of what lay there."""
        return type(self)(*(replace(each, where=each.where.replace(path, name)) for each in self.problems))


class Mistakes(ValueError):
    """Mistakes that the validator of a configuration found, each at a key relative to that configuration.

    A pydantic validator can raise only one error; this error carries many. `tuner.spec.validation_errors` unpacks it.
    """

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(": ".join(filter(None, (p.key, p.message))) for p in problems))


def mistakes_in(error: "ValidationError") -> list[Problem]:
    """The problems of the `Mistakes` that a configuration's own validators raised, out of pydantic's error."""
    return [problem for details in error.errors() for problem in mistakes_of(details)]


def mistakes_of(details: "ErrorDetails") -> list[Problem]:
    """The problems of the `Mistakes` in one of the errors in pydantic's; none if a validator of pydantic raised it."""
    raised = details.get("ctx", {}).get("error")
    return raised.problems if isinstance(raised, Mistakes) else []


@contextlib.contextmanager
def collecting(key: str, problems: list[Problem]) -> Iterator[None]:
    """Append the `Mistakes` that the body raises to `problems`, their keys prefixed with `key`."""
    try:
        yield
    except Mistakes as mistakes:
        problems += [replace(p, key=".".join(filter(None, (key, p.key)))) for p in mistakes.problems]


def allowed(word: str, candidates: Iterable[str]) -> str:
    """A hint that lists the candidates and, if `word` is similar to one of them, suggests that one."""
    names = sorted(candidates)
    similar = aliases.nearest(word, names)
    listing = f"allowed: {', '.join(names)}"
    return f"did you mean {similar}? {listing}" if similar else listing


class Damaged(UserError):
    """A checkpoint, or one of its files, is missing or cannot be read."""

    @property
    def why(self) -> str:
        """What is wrong with the checkpoint, without its path."""
        return "; ".join(problem.message for problem in self.problems)
