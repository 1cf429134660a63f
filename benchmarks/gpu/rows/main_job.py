"""The whole main job, from the start of its process to its end."""

from collections.abc import Iterator
from statistics import median

from benchmarks import machine
from benchmarks.gpu import jobs
from benchmarks.gpu.figures import Figure, TimeIsUp
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.training import images_of, references
from benchmarks.gpu.workloads import CNN
from tuner.spec.loader import load

_MOST = 20.0
"""Seconds that are aimed at."""
_AS_IT_IS = "as the file is"
_TINY = ["trial.data={kind: digits, size: 28, limit: 128}", "trial.epochs=1"]
_NOTE = "times: of one trial's speed, by the images of all trials in a second of the whole job"


def measure(setting: Setting) -> Iterator[Figure]:
    """Run it as its file is, and with eager steps, in turns."""
    overrides = _TINY if setting.is_tiny else []
    spec = load(machine.GRID, overrides)
    trial = spec.trial.prepare()[0]
    images = images_of(trial.model_dump()) * (trial.length or 1) * (spec.count() or 0)
    reference = references(setting, CNN)
    changes = {_AS_IT_IS: overrides, "with `trial.graph: off`": [*overrides, "trial.graph=off"]}
    seconds: dict[str, list[float]] = {name: [] for name in changes}
    late: TimeIsUp | None = None
    try:
        for turn in setting.turns(setting.sized(2, 1)):
            for number, (name, given) in enumerate(changes.items()):
                job = jobs.run_file(setting, f"main-job-{number}-{turn}", machine.GRID, given)
                seconds[name].append(job.seconds)
    except TimeIsUp as error:
        late = error  # what was measured before counts
    for name, of_it in seconds.items():
        if not of_it:
            continue
        is_aim = name == _AS_IT_IS
        yield Figure(
            name,
            "s",
            of_it,
            **reference.ratios([images / each for each in of_it]),
            target=f"at most {_MOST:.0f} s" if is_aim else "",
            reached=median(of_it) <= _MOST if is_aim and not setting.is_tiny else None,
            note=_NOTE,
        )
    if late is not None and not all(seconds.values()):
        raise late
