"""One trial that has the GPU to itself: the textbook loop, the eager loop, recorded steps, compiled steps."""

from collections.abc import Iterator
from statistics import median

from benchmarks.gpu.figures import Figure, Ratios
from benchmarks.gpu.setting import Setting, compiled
from benchmarks.gpu.training import Training, by_textbook, ours
from benchmarks.gpu.workloads import CNN, MLP, Workload, resnet18
from benchmarks.tables import spread

_TEXTBOOK, _EAGER, _RECORDED, _COMPILED = "textbook loop", "`graph: off`", "`graph: auto`", "`compile: on`"
_LEAST, _TIMES = 200_000, 8
"""Images per second of an H100, and how many times the eager loop, that are aimed at."""


def measure(setting: Setting) -> Iterator[Figure]:
    """Compare the loops with the main job's CNN."""
    loops = _in_turns(setting, CNN, setting.sized(3, 1))
    speeds = {name: [each.speed for each in turns] for name, turns in loops.items()}
    setting.once("references-cnn", lambda: {"textbook": speeds[_TEXTBOOK], "eager": speeds[_EAGER]})
    yield from _figures(setting, loops, "", aims=True)


def others(setting: Setting) -> Iterator[Figure]:
    """Compare them with other models."""
    for workload in (MLP, resnet18(setting, 16), resnet18(setting, 64)):
        yield from _figures(setting, _in_turns(setting, workload, 1), f"{workload.name}, ")


def _in_turns(setting: Setting, workload: Workload, turns: int) -> dict[str, list[Training]]:
    images = setting.sized(10_000, 128)
    eager = workload.trial(setting, epochs=3, limit=3 * images, graph="off")
    recorded = workload.trial(setting, epochs=3, limit=3 * images)
    loops: dict[str, list[Training]] = {_TEXTBOOK: [], _EAGER: [], _RECORDED: [], _COMPILED: []}
    for turn in setting.turns(turns):
        loops[_TEXTBOOK].append(by_textbook(setting, workload, epochs=2, limit=images, seed=turn))
        loops[_EAGER].append(ours(setting, eager, turn))
        loops[_RECORDED].append(ours(setting, recorded, turn))
        if not setting.is_tiny:  # compiling takes as long for what is tiny: rows of whole jobs do it
            loops[_COMPILED].append(ours(setting, compiled(recorded), turn))
    return {name: of_it for name, of_it in loops.items() if of_it}


def _figures(
    setting: Setting, loops: dict[str, list[Training]], prefix: str, *, aims: bool = False
) -> Iterator[Figure]:
    speeds = {name: [each.speed for each in turns] for name, turns in loops.items()}
    for name, of_it in speeds.items():
        textbook, eagerly = (
            [mine / base for mine, base in zip(of_it, speeds[reference], strict=True)]
            for reference in (_TEXTBOOK, _EAGER)
        )
        target, reached = "", None
        if aims and name == _RECORDED:
            target = f"{_TIMES} times the eager loop ({_LEAST:,} on an H100)"
            reached = None if setting.is_tiny else median(eagerly) >= _TIMES
        first = f"first epoch {spread([each.first for each in loops[name]], '.1f')} s"
        yield Figure(
            f"{prefix}{name}",
            "images/s",
            of_it,
            **Ratios(times_textbook=textbook, times_eager=eagerly),
            target=target,
            reached=reached,
            note="; ".join(filter(None, (first, loops[name][-1].how))),
        )
    differences = [
        max(float((mine.weights[name] - base.weights[name]).abs().max()) for name in base.weights)
        for mine, base in zip(loops[_RECORDED], loops[_EAGER], strict=True)
    ]
    yield Figure(
        f"{prefix}{_RECORDED}: largest difference of a weight from {_EAGER}",
        "",
        differences,
        target="0",
        reached=None if setting.is_tiny else max(differences) == 0,
    )
