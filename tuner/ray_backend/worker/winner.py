"""What is computed of a job's winner on a worker: its test metrics, and what a person looks at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from ray import tune
from torch import nn

from tuner import user_code
from tuner.data.loading.source import ALONE
from tuner.inspection.winner import Look, look
from tuner.ray_backend.worker.checkpoints import folder_of
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.storage import temporary
from tuner.train.checkpoint import read_model, read_trial
from tuner.train.device import autocast_dtype, keep_freed_memory, trial_device, use_threads
from tuner.train.evaluation import Evaluation, measure
from tuner.train.trial_config import TrialConfig


def test(
    source: str, threads: int, has_gpu: bool, targets: Sequence[str], user_folder: UserFolder | None = None
) -> Evaluation:
    """Measure a checkpoint on its test set, in the precision in which its validation was measured.

    Args:
        source: The path or URI of the checkpoint, as Ray stored it.
        threads: The number of CPU threads.
        has_gpu: Whether to compute on a GPU.
        targets: Import paths of the user's own code that the trial needs.
        user_folder: The folder of that code; None if this process can import it already, or needs none.

    Returns:
        What was measured; the metrics are named ``test_...``.

    Raises:
        Damaged: The checkpoint cannot be read.
    """
    with (
        _loaded(source, threads, has_gpu, targets, user_folder) as (config, model, device),
        config.data.opened_once("test", device, ALONE) as images,
    ):
        meter = measure(config.task, model, images, autocast_dtype(config.precision, device))
    return Evaluation.of(meter, "test_")


def look_at(
    source: str, threads: int, has_gpu: bool, targets: Sequence[str], user_folder: UserFolder | None = None
) -> Look:
    """Compute what a person looks at of a checkpoint; the arguments are those of `test`.

    Raises:
        Damaged: The checkpoint cannot be read.
    """
    with _loaded(source, threads, has_gpu, targets, user_folder) as (config, model, device):
        return look(config, model, device)


@contextmanager
def _loaded(
    source: str, threads: int, has_gpu: bool, targets: Sequence[str], user_folder: UserFolder | None
) -> Iterator[tuple[TrialConfig, nn.Module, torch.device]]:
    """Load a trial and its model from a checkpoint onto the device; the arguments are those of `test`."""
    if user_folder is not None:
        user_folder.enter()
    use_threads(threads)
    keep_freed_memory()
    temporary.shorten_sockets()
    with user_code.in_experiment_folder() if targets else nullcontext(), folder_of(tune.Checkpoint(source)) as folder:
        config, (_, model) = read_trial(folder, targets), read_model(folder, targets)
        device = trial_device(has_gpu)
        yield config, model.to(device), device
