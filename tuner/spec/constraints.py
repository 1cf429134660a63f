"""Constraints: comparisons that a configuration, or what is measured of its trial, has to satisfy.

``parameters <= 500000`` and ``model.width1 <= model.width2`` are decided before training and cost nothing;
``latency_ms < 2`` needs a trial, and the sampler is told by how much it was missed.
"""

import ast
import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from tuner.config_keys import Assignment
from tuner.errors import Problem, UserError, allowed
from tuner.search.space import Space
from tuner.spec.space_checks import resolved
from tuner.train.trial_base import AnyTrial, merge

_Number = float
_BINARY: dict[type[ast.operator], Callable[[_Number, _Number], _Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,  # which has no complex numbers
}
_FUNCTIONS: dict[str, Callable[..., _Number]] = {"min": min, "max": max, "abs": abs, "log": math.log, "sqrt": math.sqrt}
_ARGUMENTS = {
    "min": (2, math.inf, "two numbers or more"),
    "max": (2, math.inf, "two numbers or more"),
    "abs": (1, 1, "one number"),
    "log": (1, 2, "one number, or one and the base"),
    "sqrt": (1, 1, "one number"),
}
_COMPARISONS = (ast.LtE, ast.Lt, ast.GtE, ast.Gt)


@dataclass(frozen=True)
class Constraint:
    """One comparison of sums, products and powers of names and numbers.

    Args:
        text: As the user wrote it.
        names: The dotted names in it: keys of the trial, or metrics.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.Compare

    @classmethod
    def parse(cls, text: str) -> "Constraint":
        """The constraint that `text` states. Raises ValueError where it states none."""
        how = "write it as parameters <= 500000, or 1 <= model.width1 * model.width2 <= 4096"
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError:
            raise ValueError(f"{text!r} cannot be read; {how}") from None
        if not isinstance(tree, ast.Compare) or not all(isinstance(sign, _COMPARISONS) for sign in tree.ops):
            raise ValueError(f"{text!r} is no comparison with <=, <, >= or >; {how}")
        names: list[str] = []
        for side in (tree.left, *tree.comparators):
            _collect(side, names, text)
        if not names:
            raise ValueError(f"{text!r} names nothing; {how}")
        return cls(text, tuple(dict.fromkeys(names)), tree)

    def violation(self, values: Mapping[str, float]) -> float:
        """By how much it is missed: above 0 where it is, in the unit of its sides. Raises KeyError, ArithmeticError."""
        sides = [_evaluate(side, values) for side in (self._tree.left, *self._tree.comparators)]
        missed = []
        for (left, right), sign in zip(pairwise(sides), self._tree.ops, strict=True):
            by = left - right if isinstance(sign, ast.Lt | ast.LtE) else right - left
            if math.isnan(by):
                by = math.inf
            strictly = isinstance(sign, ast.Lt | ast.Gt)
            missed.append(math.ulp(right) if strictly and by == 0 else by)
        return max(missed)


def _collect(node: ast.expr, names: list[str], text: str) -> None:
    """Gather the names below `node`; raise ValueError at what is neither name, number nor arithmetic."""
    name = _dotted(node)
    if name:
        names.append(name)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        _collect(node.left, names, text)
        _collect(node.right, names, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        _collect(node.operand, names, text)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        least, most, takes = _ARGUMENTS[node.func.id]
        if node.keywords or not least <= len(node.args) <= most:
            raise ValueError(f"{ast.unparse(node)!r} in {text!r}: {node.func.id} takes {takes}")
        for argument in node.args:
            _collect(argument, names, text)
    elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        known = f"numbers, names, + - * / **, {', '.join(_FUNCTIONS)}"
        raise ValueError(f"{ast.unparse(node)!r} in {text!r} is not understood; there are: {known}")


def _evaluate(node: ast.expr, values: Mapping[str, float]) -> float:
    name = _dotted(node)
    if name:
        return float(values[name])
    match node:
        case ast.BinOp():
            return _BINARY[type(node.op)](_evaluate(node.left, values), _evaluate(node.right, values))
        case ast.UnaryOp():
            value = _evaluate(node.operand, values)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.Call(func=ast.Name(id=function)):
            return _FUNCTIONS[function](*(_evaluate(argument, values) for argument in node.args))
        case ast.Constant(value=int() | float() as number):
            return float(number)
    raise AssertionError(f"parse lets no {ast.dump(node)} through")


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` as it is written; empty for anything but a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted(node.value)
        return f"{above}.{node.attr}" if above else ""
    return ""


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
