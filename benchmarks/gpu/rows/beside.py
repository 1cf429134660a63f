"""The weights of a trial that trains beside others, against those of the same trial alone."""

import json
from collections.abc import Iterator

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.rows.many_trials import job_of
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.training import weights_after
from benchmarks.gpu.workloads import CNN
from tuner.train import checkpoint
from tuner.train.device import use_threads

_TRIALS = 16


def measure(setting: Setting) -> Iterator[Figure]:
    """Train some of the job's trials again, each alone in this process, up to the epoch of their checkpoint."""
    use_threads(1)  # as a trial with one core has it
    job = job_of(setting, CNN, _TRIALS)
    differences, epochs = [], []
    for number in setting.turns(setting.sized(3, 1)):
        folder = job.checkpoints[number * (len(job.checkpoints) - 1) // 2]
        config = checkpoint.read_trial(folder)
        epochs.append(json.loads((folder / checkpoint.METRICS).read_text())["epoch"])
        alone = weights_after(setting, config, epochs[-1])
        beside = checkpoint.read_weights(folder)
        differences.append(max(float((alone[name] - beside[name]).abs().max()) for name in beside))
    after = ", ".join(map(str, sorted(set(epochs))))
    yield Figure(
        f"largest difference of a weight, after epoch {after}",
        "",
        differences,
        target="0",
        reached=None if setting.is_tiny else max(differences) == 0,
        repeats="trial",
    )
