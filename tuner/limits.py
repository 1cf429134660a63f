"""The limits of an experiment: its constraints, and which trials satisfy them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tuner.config_keys import Assignment
from tuner.constraints import Constraint
from tuner.errors import Problem, UserError, allowed
from tuner.feasibility import resolved
from tuner.search.space import Space
from tuner.train.trial_base import AnyTrial, merge


class Limits:
    """The constraints of an experiment, told apart by when they are decided."""

    def __init__(self, trial: AnyTrial, space: Space, texts: Sequence[str]) -> None:
        self._trial = trial
        self._space = space
        self._keys = {*space, *resolved(trial, {})}
        self._all = list(_sound(texts))
        self.static = [c for _, c in self._all if all(map(self._is_static, c.names))]
        """Those that are decided before training: every name is a key of the trial, or its number of parameters."""
        self.measured = [c for _, c in self._all if c not in self.static]
        """Those that need a trial."""

    def _is_static(self, name: str) -> bool:
        return name in self._keys or (name == "parameters" and self._trial.metrics is not None)

    def check(self) -> Iterator[Problem]:
        """Whether each name is a key of the trial or something that is measured."""
        values = resolved(self._trial, {})
        for place, constraint in self._all:
            key = f"constraints.{place}"
            for name in constraint.names:
                taken = [values.get(name), *(self._space[name].corners() if name in self._space else ())]
                word = next((value for value in taken if value is not None and not _is_number(value)), None)
                if word is not None:
                    yield Problem(f"{name} is {word!r}, no number", key)
                elif not self._is_static(name) and self._trial.metrics is not None and name not in self._trial.metrics:
                    there = [
                        *self._space,
                        *(m for m in self._trial.metrics if not m.startswith("train_")),
                        "parameters",
                    ]
                    hint = allowed(name, dict.fromkeys(there))
                    yield Problem(f"{name!r} is neither measured nor a key of the trial", key, hint=hint)

    def allows(self, assignment: Assignment) -> bool:
        """Whether a configuration satisfies what is decided before training."""
        if not self.static:
            return True
        config: AnyTrial | None = None
        try:
            config = merge(self._trial, assignment)
            values = resolved(config, {})
        except (ValidationError, UserError):  # a constraint may be there to exclude just this
            values = resolved(self._trial, {}) | assignment
        if any("parameters" in c.names for c in self.static):
            values["parameters"] = config.count_parameters() if config is not None else None
        return all(self._violation(c, values) <= 0 for c in self.static)

    def violations(self, config: AnyTrial, report: Mapping[str, Any]) -> dict[str, float]:
        """By how much a report misses each measured constraint; above 0 where it does."""
        values = resolved(config, {}) | {name: value for name, value in report.items() if _is_number(value)}
        return {c.text: self._violation(c, values) for c in self.measured}

    def _violation(self, constraint: Constraint, values: Mapping[str, Any]) -> float:
        missing = [name for name in constraint.names if values.get(name) is None]
        if missing:  # of a key that this configuration does not have, nothing is asked; what was not measured is missed
            return 0.0 if all(map(self._is_static, missing)) else float("inf")
        try:
            return constraint.violation(values)
        except (ArithmeticError, ValueError, TypeError):  # what cannot be computed; a word or a list, told by `check`
            return float("inf")


def _sound(texts: Sequence[str]) -> Iterator[tuple[int, Constraint]]:
    """The constraints and their places; one that cannot be read is told when its own text is validated."""
    for place, text in enumerate(texts):
        with contextlib.suppress(ValueError):
            yield place, Constraint.parse(text)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
