"""Functions with a known minimum, each with its space as a file of tuner has it and as code for plain Optuna."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks import digits_table
from tuner.search.conditions import draw
from tuner.search.space import Space

if TYPE_CHECKING:
    from optuna import Trial

Values = Mapping[str, Any]
"""A configuration: the values of its keys."""

_DRAWS = 10_000


@dataclass(frozen=True)
class Function:
    """A function to minimise.

    Args:
        name: The function's name.
        space: The space as in an experiment's file.
        suggest: The same space in Optuna's define-by-run style.
        value: Returns the value of a configuration; NaN if the trial fails.
        optimum: The smallest value.
    """

    name: str
    space: Space
    suggest: "Callable[[Trial], Values]"
    value: Callable[[Values], float]
    optimum: float

    def typical(self) -> float:
        """Return the median value of 10,000 random configurations; failures count as infinity."""
        rng = np.random.default_rng(0)
        drawn = (draw(self.space, lambda name, what: what.sample(rng)) for _ in range(_DRAWS))
        values = map(self.value, drawn)
        return median(math.inf if math.isnan(value) else value for value in values)


def _space(**given: Any) -> Space:
    return TypeAdapter(Space).validate_python({name.replace("__", "."): what for name, what in given.items()})


def _box(count: int, low: float, high: float) -> "tuple[Space, Callable[[Trial], Values]]":
    """Return a space of `count` real numbers x0, x1, ... with the same range, for tuner and for Optuna."""
    names = [f"x{i}" for i in range(count)]
    space = _space(**{name: {"uniform": [low, high]} for name in names})
    return space, lambda trial: {name: trial.suggest_float(name, low, high) for name in names}


def _vector(values: Values) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([values[name] for name in sorted(values)])


# Two real numbers, three equal minima.
def _branin(values: Values) -> float:
    x, y = float(values["x"]), float(values["y"])
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def _suggest_branin(trial: "Trial") -> Values:
    return {"x": trial.suggest_float("x", -5, 10), "y": trial.suggest_float("y", 0, 15)}


# Six real numbers, six local minima.
_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_SCALES = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_CENTRES = np.array(
    [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ]
)


def _hartmann6(values: Values) -> float:
    distances = (_HARTMANN_SCALES * np.square(_vector(values) - _HARTMANN_CENTRES)).sum(axis=1)
    return -float(_HARTMANN_WEIGHTS @ np.exp(-distances))


# Four real numbers, many local minima; the optimum is not at the centre of the range, which samplers favour.
def _ackley4(values: Values) -> float:
    x = _vector(values)
    far = -20 * math.exp(-0.2 * math.sqrt(float(np.mean(x**2))))
    return far - math.exp(float(np.mean(np.cos(2 * math.pi * x)))) + 20 + math.e


# Four real numbers, one bent valley.
def _rosenbrock4(values: Values) -> float:
    x = _vector(values)
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


# A space like that of a network: an optimizer with conditional keys, log scales, integers, categories.
_MIXED = _space(
    kind={"choice": ["sgd", "adam", "rmsprop"]},
    sgd__lr={"loguniform": [1e-4, 1.0], "when": {"kind": "sgd"}},
    sgd__momentum={"uniform": [0.0, 0.99], "when": {"kind": "sgd"}},
    adam__lr={"loguniform": [1e-5, 1e-1], "when": {"kind": "adam"}},
    adam__beta1={"uniform": [0.5, 0.99], "when": {"kind": "adam"}},
    rmsprop__lr={"loguniform": [1e-5, 1e-1], "when": {"kind": "rmsprop"}},
    layers={"int": [1, 6]},
    width={"logint": [16, 512]},
    activation={"choice": ["relu", "gelu", "tanh", "elu"]},
    dropout={"uniform": [0.0, 0.6]},
)
_ACTIVATIONS = {"relu": 0.05, "gelu": 0.0, "tanh": 0.3, "elu": 0.15}


def _mixed(values: Values) -> float:
    """0 at adam, lr 10^-2.5, beta1 0.9, 4 layers, width 128, gelu, dropout 0.3; sgd: at least 0.02, rmsprop: 0.2."""
    kind = values["kind"]
    lr, dropout = math.log10(values[f"{kind}.lr"]), float(values["dropout"])
    if kind == "adam":
        optimizer = 0.15 * (lr + 2.5) ** 2 + 2 * float(values["adam.beta1"] - 0.9) ** 2
    elif kind == "sgd":
        # The best learning rate falls with the momentum.
        momentum = float(values["sgd.momentum"])
        optimizer = 0.02 + 0.15 * (lr - math.log10(1 - momentum) - 0.3) ** 2 + 0.2 * (momentum - 0.9) ** 2
    else:
        optimizer = 0.2 + 0.15 * (lr + 3) ** 2
    # The best dropout rises with the width.
    width = math.log2(values["width"]) - 7
    network = 0.03 * int(values["layers"] - 4) ** 2 + 0.03 * width**2 + 3 * (dropout - 0.3 - 0.08 * width) ** 2
    return optimizer + network + _ACTIVATIONS[values["activation"]]


def _suggest_mixed(trial: "Trial") -> Values:
    values: dict[str, Any] = {"kind": trial.suggest_categorical("kind", ["sgd", "adam", "rmsprop"])}
    if values["kind"] == "sgd":
        values["sgd.lr"] = trial.suggest_float("sgd.lr", 1e-4, 1.0, log=True)
        values["sgd.momentum"] = trial.suggest_float("sgd.momentum", 0.0, 0.99)
    elif values["kind"] == "adam":
        values["adam.lr"] = trial.suggest_float("adam.lr", 1e-5, 1e-1, log=True)
        values["adam.beta1"] = trial.suggest_float("adam.beta1", 0.5, 0.99)
    else:
        values["rmsprop.lr"] = trial.suggest_float("rmsprop.lr", 1e-5, 1e-1, log=True)
    values["layers"] = trial.suggest_int("layers", 1, 6)
    values["width"] = trial.suggest_int("width", 16, 512, log=True)
    values["activation"] = trial.suggest_categorical("activation", ["relu", "gelu", "tanh", "elu"])
    values["dropout"] = trial.suggest_float("dropout", 0.0, 0.6)
    return values


# The measured function: a table of trained networks.
@lru_cache(maxsize=1)
def _digits_table() -> dict[tuple[float, ...], float]:
    return digits_table.read()


def _digits(values: Values) -> float:
    return _digits_table()[tuple(float(values[name]) for name in digits_table.SPACE)]


def _suggest_places(trial: "Trial") -> Values:
    """Suggest ordered values by their index in the list, as tuner does and as an expert writes it."""
    return {name: values[trial.suggest_int(name, 0, len(values) - 1)] for name, values in digits_table.SPACE.items()}


def _suggest_lists(trial: "Trial") -> Values:
    """Suggest from a list of values as categories, as Optuna's examples do."""
    return {name: trial.suggest_categorical(name, values) for name, values in digits_table.SPACE.items()}


def functions() -> dict[str, Function]:
    """Return all functions by name; those of the digits only if their table is complete."""
    box6, box4, valley = _box(6, 0, 1), _box(4, -15, 30), _box(4, -5, 10)
    branin = _space(x={"uniform": [-5, 10]}, y={"uniform": [0, 15]})
    every = [
        Function("branin", branin, _suggest_branin, _branin, 0.39788735772973816),
        Function("hartmann6", *box6, _hartmann6, -3.322368011415515),
        Function("ackley4", *box4, _ackley4, 0.0),
        Function("rosenbrock4", *valley, _rosenbrock4, 0.0),
        Function("mixed", _MIXED, _suggest_mixed, _mixed, 0.0),
    ]
    if digits_table.is_whole():
        grid = _space(**{name: {"grid": values} for name, values in digits_table.SPACE.items()})
        best = min(filter(math.isfinite, _digits_table().values()))
        every.append(Function("digits", grid, _suggest_places, _digits, best))
        every.append(Function("digits-lists", grid, _suggest_lists, _digits, best))
    return {function.name: function for function in every}
