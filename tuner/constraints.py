"""Constraints: comparisons that a configuration, or what is measured of its trial, has to satisfy.

``parameters <= 500000`` and ``model.width1 <= model.width2`` are decided before training and cost nothing;
``latency_ms < 2`` needs a trial, and the sampler is told by how much it was missed.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

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
