"""What a training costs on this machine: a few of its steps are timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tuner.data.loading.source import batch_of
from tuner.models.memory_format import placed
from tuner.process.generators import generators_kept
from tuner.process.startup import resume_collection
from tuner.proposal.machine import Machine
from tuner.train.device import autocast_dtype, keep_freed_memory
from tuner.train.evaluation import in_precision
from tuner.train.trial_config import TrialConfig

_SECONDS = 0.5
"""How long steps are timed, after as long to warm up: the first ones allocate memory and choose kernels."""
_DECODED = 64
"""Images whose decoding is timed."""
_CONTENTION = 1.15
"""Factor by which trials that train at once on the cores of one machine slow each other down: an estimate."""


@dataclass(frozen=True)
class Cost:
    """Seconds that a trial takes.

    Args:
        epoch: For one epoch with its validation, while the other trials of the machine train.
        decoding: For decoding all images once, in one worker.
    """

    epoch: float
    decoding: float


def measure(trial: TrialConfig, machine: Machine) -> Cost:
    """Time a few steps of a trial, with as many cores as a trial will have.

    Args:
        trial: The trial. Its weights are new ones, which take as long as pretrained ones.
        machine: This machine.
    """
    resume_collection()  # as in a trial
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.cores)
    try:
        with generators_kept():
            torch.manual_seed(0)
            training, prediction = _steps(trial, machine)
        decoding = _decoding(trial)
    finally:
        torch.set_num_threads(threads)
    sizes = trial.data.describe().sizes
    slower = _CONTENTION if machine.slots > 1 and not machine.gpus else 1.0
    epoch = slower * (sizes["train"] * training + sizes["validation"] * prediction)
    return Cost(epoch, sum(sizes.values()) * decoding)


def _steps(trial: TrialConfig, machine: Machine) -> tuple[float, float]:
    """The seconds an image of training and of prediction."""
    device = machine.device
    images = trial.data.first(trial.data.images_per_batch)
    repeated = torch.arange(trial.data.images_per_batch) % len(images)
    images = images[repeated].to(device)
    batch = batch_of(images.images, images.targets)
    model = placed(trial.build_model(), device)
    forward = in_precision(model, device, autocast_dtype(trial.precision, device))
    optimizer = trial.optimizer.build(trial.optimizer.groups(model))

    augment = trial.data.augmentation

    def step() -> None:
        optimizer.zero_grad()
        loss, _ = trial.task.training_loss(forward, augment(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def predict() -> None:
        with torch.inference_mode():
            trial.task.predict(forward, batch)

    training = _timed(step, device)
    model.eval()
    return training / len(batch), _timed(predict, device) / len(batch)


def _timed(run: Callable[[], None], device: torch.device) -> float:
    """The seconds of a call: the mean of those of about half a second, after as many to warm up."""
    mean = 0.0
    for _ in range(2):
        count, began = 0, _now(device)
        while count == 0 or _now(device) - began < _SECONDS:
            run()
            count += 1
        mean = (_now(device) - began) / count
    return mean


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _decoding(trial: TrialConfig) -> float:
    """The seconds that one image takes to be decoded by one thread."""
    if not trial.data.names("train"):  # nothing is decoded
        return 0.0
    began = time.perf_counter()
    decoded = trial.data.first(_DECODED)
    return (time.perf_counter() - began) / len(decoded)
