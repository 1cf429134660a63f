"""What a user reads when something that they gave is wrong."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tuner import aliases


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the terms of the file that the user wrote.

    Args:
        message: What is wrong, with the value it had.
        key: Dotted key of the file, such as ``trial.optimizer.lr``; empty where there is none.
        where: ``file:line:column``, or ``command line``; empty where there is none.
        hint: What is allowed, or what to do.
    """

    message: str
    key: str = ""
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.where, self.key, self.message) if part)
        return f"{head}\n    {self.hint}" if self.hint else head


class UserError(Exception):
    """Everything that is wrong with what the user gave. Nothing was started. Exit status 2."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = [Problem(p) if isinstance(p, str) else p for p in problems]
        super().__init__("\n".join(map(str, self.problems)))


class Mistakes(ValueError):
    """Several mistakes found by one check of a typed part, each at a key relative to that part.

    A pydantic validator can raise only one error; this one carries many, and `tuner.spec.experiment` unpacks it.
    """

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(": ".join(filter(None, (p.key, p.message))) for p in problems))


@contextlib.contextmanager
def collecting(key: str, problems: list[Problem]) -> Iterator[None]:
    """Collect the mistakes found inside, at keys below `key`."""
    try:
        yield
    except Mistakes as mistakes:
        problems += [replace(p, key=".".join(filter(None, (key, p.key)))) for p in mistakes.problems]


def allowed(word: str, candidates: Iterable[str]) -> str:
    """A hint that lists what is allowed and, where one is near, the candidate that `word` was meant to be."""
    names = sorted(candidates)
    near = aliases.nearest(word, names)
    listing = f"allowed: {', '.join(names)}"
    return f"did you mean {near}? {listing}" if near else listing
