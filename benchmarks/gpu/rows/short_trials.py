"""A whole job of many short trials, against the same job by the code of an earlier commit."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.gpu import jobs
from benchmarks.gpu.baseline import source_of
from benchmarks.gpu.figures import Figure, TimeIsUp
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.training import images_of, references
from benchmarks.gpu.workloads import CNN

_TIMES = 4
"""How many times faster is aimed at."""
_NOTE = "times: of one trial's speed, by the images of all trials in a second of the whole job"


def measure(setting: Setting) -> Iterator[Figure]:
    """Run the job, and then the same by the earlier commit, in turns."""
    trials = setting.sized(200, 4)
    trial = CNN.trial(setting, epochs=2, limit=setting.sized(setting.images, 128))
    images = images_of(trial) * trial["epochs"] * trials
    spec = jobs.experiment(trial, trials, keep=5)
    name = f"job of {trials} trials, {images_of(trial):,} images an epoch"
    reference = references(setting, CNN)
    mine = [jobs.run(setting, "short-ours-0", spec).seconds]
    yield Figure(name, "s", mine, **reference.ratios([images / mine[0]]), note=_NOTE)
    theirs: list[float] = []
    with source_of(setting.baseline) as source:
        for turn in setting.turns(setting.sized(2, 1)):
            if turn:
                mine.append(jobs.run(setting, f"short-ours-{turn}", spec).seconds)
            seconds, is_whole = _baseline(setting, turn, spec, source)
            theirs.append(seconds)
    times = [base / own for own, base in zip(mine, theirs, strict=True)]
    yield Figure(
        f"times faster than {setting.baseline}",
        "times",
        times,
        target=f"{_TIMES}",
        # A baseline that was ended says that it takes longer, and thus whether enough, but not that it is too little.
        reached=None if setting.is_tiny else True if median(times) >= _TIMES else False if is_whole else None,
        note=f"the baseline takes {median(theirs):.1f} s"
        if is_whole
        else f"or more: the baseline was ended after {theirs[-1]:.0f} s, its time",
    )


def _baseline(setting: Setting, turn: int, spec: dict[str, object], source: Path) -> tuple[float, bool]:
    """Seconds of the baseline's job, and whether it was not ended before."""
    try:
        return jobs.run(setting, f"short-baseline-{turn}", spec, source).seconds, True
    except TimeIsUp as ended:
        if not ended.seconds:
            raise
        return ended.seconds, False
