"""Trials that train at the same time on one GPU, as `tuner run` has them, by what their job records."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.gpu import jobs, processes
from benchmarks.gpu.figures import Figure, Skipped
from benchmarks.gpu.record import Together, together
from benchmarks.gpu.setting import Setting, compiled
from benchmarks.gpu.training import images_of, references
from benchmarks.gpu.workloads import CNN, Workload, resnet18
from tuner.train.step.compiled import why_no_compiler

PART = "part"
"""A repeat: one of the parts of equal length of the time in which all trials train."""


def trial_of(setting: Setting, workload: Workload) -> dict[str, Any]:
    """The trial of such a job: as many images as the figure needs, and epochs enough that the first one still trains
    when the last one has begun; it is fast until then.
    """
    limit = setting.sized(40_000 if workload.is_cnn else 16_000, 256 if workload.is_cnn else 64)
    return workload.trial(setting, epochs=setting.sized(12 if workload.is_cnn else 8, 20), limit=limit)


def job_of(setting: Setting, workload: Workload, trials: int, *, is_compiled: bool = False) -> jobs.Job:
    """A job of trials that share the GPU, or of two on the CPU; the same one whichever row of this run asks for it."""
    count, trial = setting.sized(trials, 2), trial_of(setting, workload)
    share = None if setting.is_tiny else 1 / count
    cores = 1 if setting.is_tiny else min(1.0, setting.cores / count)
    spec = jobs.experiment(compiled(trial) if is_compiled else trial, count, gpu=share, cpu=cores)
    return jobs.run(setting, f"{workload.name}-{trials}{'-compiled' * is_compiled}", spec)


def speed_of(setting: Setting, workload: Workload, trials: int, job: jobs.Job) -> Together:
    """How fast the trials of a job were while all of them trained."""
    return together(job.epochs, setting.sized(trials, 2), images_of(trial_of(setting, workload)))


def _figures(
    setting: Setting, workload: Workload, trials: int, least: int, *, is_compiled: bool = False
) -> Iterator[Figure]:
    if is_compiled and (why := why_no_compiler(setting.device)):
        raise Skipped(why)
    reference = references(setting, workload)
    job = job_of(setting, workload, trials, is_compiled=is_compiled)
    found = speed_of(setting, workload, trials, job)
    name = f"{setting.sized(trials, 2)} trials of a job, sum of their `images_per_second`"
    yield Figure(
        name,
        "images/s",
        found.recorded,
        **reference.ratios(found.recorded),
        target=f"{least:,} on an H100",
        reached=None if setting.is_tiny else median(found.recorded) >= least,
        repeats=PART,
        note=f"all trained for {found.seconds:.1f} s of the {job.seconds:.0f} s that the job took{_beside(job)}",
    )
    yield Figure(
        "the same, images in a second with validation and checkpoints",
        "images/s",
        found.trained,
        **reference.ratios(found.trained),
        repeats=PART,
    )


def _beside(job: jobs.Job) -> str:
    """What the record says of how many others trials trained beside in one process."""
    numbers = sorted(map(int, job.tags("tuner.beside")))
    return f"; beside {numbers[0]} to {numbers[-1]} others in one process" if numbers else ""


def sixteen(setting: Setting) -> Iterator[Figure]:
    """The main job's CNN, 16 trials, and four processes with eager steps beside."""
    yield from _figures(setting, CNN, 16, 500_000)
    count = setting.sized(4, 2)
    eager = CNN.trial(setting, epochs=setting.sized(4, 10), limit=setting.sized(20_000, 256), graph="off")
    four = processes.side_by_side(setting, [{**eager, "seed": seed} for seed in range(count)])
    base = together(four.epochs, count, images_of(eager))
    ours = speed_of(setting, CNN, 16, job_of(setting, CNN, 16))  # the same job
    yield Figure(
        f"{count} processes, each with eager steps, sum of theirs",
        "images/s",
        base.recorded,
        **references(setting, CNN).ratios(base.recorded),
        repeats=PART,
    )
    times = [each / median(base.recorded) for each in ours.recorded]
    yield Figure(
        "the trials of the job, times these processes",
        "times",
        times,
        target="4.5",
        reached=None if setting.is_tiny else median(times) >= 4.5,
        repeats=PART,
    )


def sixteen_compiled(setting: Setting) -> Iterator[Figure]:
    """The main job's CNN, 16 trials with compiled steps."""
    return _figures(setting, CNN, 16, 600_000, is_compiled=True)


def narrow(setting: Setting) -> Iterator[Figure]:
    """A ResNet-18 of width 16, 16 trials."""
    return _figures(setting, resnet18(setting, 16), 16, 160_000)


def wide(setting: Setting) -> Iterator[Figure]:
    """A ResNet-18 of width 64, 4 trials."""
    return _figures(setting, resnet18(setting, 64), 4, 55_000)


def wide_compiled(setting: Setting) -> Iterator[Figure]:
    """A ResNet-18 of width 64, 4 trials with compiled steps."""
    return _figures(setting, resnet18(setting, 64), 4, 75_000, is_compiled=True)
