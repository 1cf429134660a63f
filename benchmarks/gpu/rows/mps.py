"""As many processes as trials under MPS, each with its own graph, beside the trials of one job."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from benchmarks.gpu import mps, processes
from benchmarks.gpu.figures import Figure
from benchmarks.gpu.record import together
from benchmarks.gpu.rows.many_trials import PART, job_of, speed_of, trial_of
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.training import images_of, references
from benchmarks.gpu.workloads import CNN

_TRIALS = 16
_GIB = 2**30


def measure(setting: Setting) -> Iterator[Figure]:
    """Measure the job first, which needs no MPS, then the processes; the tiny version has no daemon."""
    job = job_of(setting, CNN, _TRIALS)
    speed = speed_of(setting, CNN, _TRIALS, job).recorded
    yield from _figures(setting, "the trials of one job", speed, job.until_first, job.host, job.card)
    count = setting.sized(_TRIALS, 2)
    trial = trial_of(setting, CNN) | {"epochs": setting.sized(5, 20)}  # they begin together
    served: AbstractContextManager[dict[str, str]] = nullcontext({}) if setting.is_tiny else mps.daemon(setting)
    with served as environment:
        found = processes.side_by_side(setting, [{**trial, "seed": seed} for seed in range(count)], environment)
    speed = together(found.epochs, count, images_of(trial)).recorded
    name = f"{count} processes without a daemon" if setting.is_tiny else f"{count} processes under MPS"
    yield from _figures(setting, name, speed, found.until_first, found.host, found.card)


def _figures(
    setting: Setting, name: str, speed: list[float], until_first: float, host: int, card: int
) -> Iterator[Figure]:
    ratios = references(setting, CNN).ratios(speed)
    yield Figure(f"{name}: sum of `images_per_second`", "images/s", speed, **ratios, repeats=PART)
    yield Figure(f"{name}: until all have begun to train", "s", [until_first])
    yield Figure(f"{name}: memory of the host", "GiB", [host / _GIB])
    if card:
        yield Figure(f"{name}: memory of the card", "GiB", [card / _GIB])
