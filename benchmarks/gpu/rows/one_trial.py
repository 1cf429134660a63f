"""One trial of the main job's CNN: the textbook loop, the eager loop, recorded steps, compiled steps."""

from collections.abc import Iterator
from statistics import median

from benchmarks.gpu.figures import Figure, Ratios
from benchmarks.gpu.setting import Setting, can_compile, compiled
from benchmarks.gpu.training import Training, by_textbook, ours
from benchmarks.gpu.workloads import CNN

_TEXTBOOK, _EAGER, _RECORDED, _COMPILED = "textbook loop", "`graph: off`", "`graph: auto`", "`compile: on`"
_LEAST, _TIMES = 200_000, 8
"""Images per second of an H100, and how many times the eager loop, that are aimed at."""


def measure(setting: Setting) -> Iterator[Figure]:
    """Let all loops train in turns; ratios are taken within a turn."""
    images = setting.sized(10_000, 128)
    eager = CNN.trial(setting, epochs=3, limit=3 * images, graph="off")
    recorded = CNN.trial(setting, epochs=5, limit=5 * images)
    loops: dict[str, list[Training]] = {_TEXTBOOK: [], _EAGER: [], _RECORDED: []}
    if can_compile() and not setting.is_tiny:
        loops[_COMPILED] = []
    for turn in setting.turns(setting.sized(3, 1)):
        loops[_TEXTBOOK].append(by_textbook(setting, CNN, epochs=2, limit=images, seed=turn))
        loops[_EAGER].append(ours(setting, eager, turn))
        loops[_RECORDED].append(ours(setting, recorded, turn))
        if _COMPILED in loops:
            loops[_COMPILED].append(ours(setting, compiled(recorded), turn))
    speeds = {name: [each.speed for each in turns] for name, turns in loops.items()}
    setting.once("references-cnn", lambda: {"textbook": speeds[_TEXTBOOK], "eager": speeds[_EAGER]})
    for name, of_it in speeds.items():
        textbook, eagerly = (
            [mine / base for mine, base in zip(of_it, speeds[reference], strict=True)]
            for reference in (_TEXTBOOK, _EAGER)
        )
        times = Ratios(times_textbook=textbook, times_eager=eagerly)
        target, reached = "", None
        if name == _RECORDED:
            target = f"{_TIMES} times the eager loop ({_LEAST:,} on an H100)"
            reached = None if setting.is_tiny else median(times["times_eager"]) >= _TIMES
        yield Figure(name, "images/s", of_it, **times, target=target, reached=reached, note=loops[name][-1].how)
