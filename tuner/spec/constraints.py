"""Constraints: comparisons that a configuration, or the metrics of its trial, have to satisfy.

``parameters <= 500000`` and ``model.width1 <= model.width2`` are decided before the training, at no cost. For
``latency_ms < 2`` a trial is needed; the sampler then gets the violation of the constraint.
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
    ast.Pow: math.pow,  # unlike `**`, it never returns complex numbers
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
    """A comparison of arithmetic expressions of names and numbers.

    Args:
        text: The text that the user wrote.
        names: The dotted names in it: keys of the trial, or metrics.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.Compare

    @classmethod
    def parse(cls, text: str) -> "Constraint":
        """Parse a constraint.

        Raises:
            ValueError: The text is not a comparison of arithmetic expressions.
        """
        example = "write it as parameters <= 500000, or 1 <= model.width1 * model.width2 <= 4096"
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError:
            raise ValueError(f"{text!r} is not an expression; {example}") from None
        if not isinstance(tree, ast.Compare) or not all(isinstance(sign, _COMPARISONS) for sign in tree.ops):
            raise ValueError(f"{text!r} is not a comparison with <=, <, >= or >; {example}")
        names: list[str] = []
        for side in (tree.left, *tree.comparators):
            _collect(side, names, text)
        if not names:
            raise ValueError(f"{text!r} contains neither a key nor a metric; {example}")
        return cls(text, tuple(dict.fromkeys(names)), tree)

    def violation(self, values: Mapping[str, float]) -> float:
        """The amount by which the constraint is violated, in the unit of its sides; at most 0 if it is satisfied.

        Args:
            values: The value of each name.

        Raises:
            KeyError: A value is missing.
            ArithmeticError: An expression cannot be computed, such as a division by 0.
        """
        sides = [_evaluate(side, values) for side in (self._tree.left, *self._tree.comparators)]
        violations = []
        for (left, right), sign in zip(pairwise(sides), self._tree.ops, strict=True):
            excess = left - right if isinstance(sign, ast.Lt | ast.LtE) else right - left
            if math.isnan(excess):
                excess = math.inf
            is_strict = isinstance(sign, ast.Lt | ast.Gt)
            violations.append(math.ulp(right) if is_strict and excess == 0 else excess)
        return max(violations)


def _collect(node: ast.expr, names: list[str], text: str) -> None:
    """Append the names in an expression to `names`.

    Raises:
        ValueError: The expression contains something else than names, numbers and arithmetic.
    """
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
        raise ValueError(f"{ast.unparse(node)!r} in {text!r} is not supported; allowed: {known}")


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
    """The dotted name that an expression consists of; empty if it is not a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        parent = _dotted(node.value)
        return f"{parent}.{node.attr}" if parent else ""
    return ""


class ConstraintSet:
    """The constraints of an experiment, separated into those that need a trial and those that do not."""

    def __init__(self, trial: AnyTrial, space: Space, texts: Sequence[str]) -> None:
        self._trial = trial
        self._metrics = None if trial.metrics is None else (*trial.metrics, *trial.costly_metrics)
        self._space = space
        self._keys = {*space, *resolved(trial, {})}
        self._all = list(_valid(texts))
        self.static = [c for _, c in self._all if all(map(self._is_static, c.names))]
        """The constraints on keys of the trial and on its number of parameters, which are decided before training."""
        self.measured = [c for _, c in self._all if c not in self.static]
        """The constraints on metrics, which need a trial."""

    def _is_static(self, name: str) -> bool:
        return name in self._keys or (name == "parameters" and self._metrics is not None)

    def check(self) -> Iterator[Problem]:
        """Check that each name is a numeric key of the trial or a metric."""
        values = resolved(self._trial, {})
        for index, constraint in self._all:
            key = f"constraints.{index}"
            for name in constraint.names:
                possible = [values.get(name), *(self._space[name].corners() if name in self._space else ())]
                other = next((value for value in possible if value is not None and not _is_number(value)), None)
                if other is not None:
                    yield Problem(f"{name} is {other!r}, not a number", key)
                elif not self._is_static(name) and self._metrics is not None and name not in self._metrics:
                    candidates = [
                        *self._space,
                        *(m for m in self._metrics if not m.startswith("train_")),
                        "parameters",
                    ]
                    hint = allowed(name, dict.fromkeys(candidates))
                    yield Problem(f"{name!r} is neither a metric nor a key of the trial", key, hint=hint)

    def allows(self, assignment: Assignment) -> bool:
        """Whether a configuration satisfies the static constraints."""
        if not self.static:
            return True
        config: AnyTrial | None = None
        try:
            config = merge(self._trial, assignment)
            values = resolved(config, {})
        except (ValidationError, UserError):  # a constraint may exclude configurations that are not valid
            values = resolved(self._trial, {}) | assignment
        if any("parameters" in c.names for c in self.static):
            values["parameters"] = None if config is None else _count_of(config)
        return all(self._violation(c, values) <= 0 for c in self.static)

    def violations(self, config: AnyTrial, report: Mapping[str, Any]) -> dict[str, float]:
        """The violation of each measured constraint by a report, by its text; above 0 if it is violated."""
        values = resolved(config, {}) | {name: value for name, value in report.items() if _is_number(value)}
        return {c.text: self._violation(c, values) for c in self.measured}

    def _violation(self, constraint: Constraint, values: Mapping[str, Any]) -> float:
        missing = [name for name in constraint.names if values.get(name) is None]
        if missing:  # a constraint on inactive keys is satisfied; one on a metric that was not reported is violated
            return 0.0 if all(map(self._is_static, missing)) else float("inf")
        try:
            return constraint.violation(values)
        except (ArithmeticError, ValueError, TypeError):  # not computable; or not a number, which `check` reports
            return float("inf")


def _count_of(config: AnyTrial) -> int | None:
    try:
        return config.count_parameters()
    except Exception:  # of a model of the user's own that cannot be built: its trial tells it
        return None


def _valid(texts: Sequence[str]) -> Iterator[tuple[int, Constraint]]:
    """The valid constraints and their indices; `ExperimentSpec` reports the others."""
    for index, text in enumerate(texts):
        with contextlib.suppress(ValueError):
            yield index, Constraint.parse(text)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
