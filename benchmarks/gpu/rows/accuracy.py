"""Whether recorded steps reach what eager ones reach, over several seeds."""

import math
from collections.abc import Iterator
from statistics import mean, variance

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.setting import Setting, compiled
from benchmarks.gpu.training import ours
from benchmarks.gpu.workloads import CNN

_EAGER = "`graph: off`"


def measure(setting: Setting) -> Iterator[Figure]:
    """Train each seed with each kind of steps."""
    trial = CNN.trial(setting, epochs=2, limit=setting.sized(10_000, 128))
    kinds = {_EAGER: {**trial, "graph": "off"}, "`graph: auto`": trial}
    if not setting.is_tiny:
        kinds["`compile: on`"] = compiled(trial)
    reached: dict[str, list[float]] = {name: [] for name in kinds}
    for seed in setting.turns(setting.sized(10, 2)):
        for name, each in kinds.items():
            reached[name].append(ours(setting, each, seed).accuracy)
    for name, of_it in reached.items():
        yield Figure(f"val_accuracy, {name}", "", of_it, repeats="seed")
    for name, of_it in list(reached.items())[1:]:
        errors = standard_errors(of_it, reached[_EAGER])
        is_equal = None if setting.is_tiny else errors <= 2
        yield Figure(
            f"difference of {name} from {_EAGER}",
            "standard errors",
            [errors],
            target="at most 2",
            reached=is_equal,
            repeats="comparison",
        )


def standard_errors(values: list[float], others: list[float]) -> float:
    """The difference of two means, in standard errors of it; 0 for equal means, infinite if none of them varies."""
    difference = abs(mean(values) - mean(others))
    if len(values) < 2 or not difference:
        return 0.0 if not difference else math.inf
    error = math.sqrt(variance(values) / len(values) + variance(others) / len(others))
    return difference / error if error else math.inf
