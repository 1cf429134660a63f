"""The size of a batch for ``data.batch_size: auto``: measured once for all trials of a job, before the first begins."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from rich.console import Console

from tuner.config_keys import Assignment
from tuner.data.loading.source import LoaderResources
from tuner.formatting import counted
from tuner.ray_backend.cluster.resources import TrialResources
from tuner.search.conditions import corners
from tuner.spec.experiment import ExperimentSpec
from tuner.train.fitting.batch_search import Measured
from tuner.train.fitting.measuring import measure
from tuner.train.trial_base import merge
from tuner.train.trial_config import TrialConfig
from tuner.trials.labels import label

_FEW_STEPS = 20
"""Steps an epoch below which a user should know how few they are."""
_MOST_CONFIGURATIONS = 256
"""Most configurations of a space among which the largest is looked for."""
_SECTIONS = ("model", "data")
"""Sections of a trial whose keys decide what a batch takes."""

Measure = Callable[[TrialConfig], Measured]
"""Measures the batches of a trial, with a trial's resources."""


def measured_here(share: TrialResources, teacher: str = "") -> Measure:
    """Return a function that measures on this machine.

    Args:
        share: The resources of a trial.
        teacher: Folder or URI of the teacher of the trials; empty if they have none.
    """
    loading = LoaderResources.of(share.cpu, share.gpu, max(1, share.slots), share.ranks)
    return lambda config: measure(
        config, threads=share.threads, has_gpu=share.gpu > 0, loading=loading, teacher=teacher, ranks=share.ranks
    )


def with_measured_batches(spec: ExperimentSpec, measure: Measure) -> tuple[ExperimentSpec, Measured]:
    """Measure the size of a batch, and set it in an experiment.

    Where the space searches models or data, the largest of them is measured, as far as that is known without training.

    Args:
        spec: The experiment, whose trial has ``data.batch_size: auto``.
        measure: Measures a trial.

    Raises:
        UserError: Not even the smallest batch fits, or the trial cannot be trained.
    """
    config, searched = largest(spec)
    found = replace(measure(config), model=label(searched))
    return spec.with_batch_size(found.batch_size), found


def largest(spec: ExperimentSpec) -> tuple[TrialConfig, Assignment]:
    """Return the trial of the space with the most parameters times pixels, and its searched values of `_SECTIONS`.

    Code of the user's own is not called: of its models the one of the file is taken.
    """
    assert isinstance(spec.trial, TrialConfig)
    if not any(_decides(key) for key in spec.space):
        return spec.trial, {}
    allowed = filter(spec.allows, islice(corners(spec.space), _MOST_CONFIGURATIONS))
    configurations = [(assignment, merge(spec.trial, assignment)) for assignment in allowed]
    sizes = [_size(config) for _, config in configurations]
    if len(set(sizes)) < 2:  # the searched keys, such as dropout, change none
        return spec.trial, {}
    assignment, config = configurations[sizes.index(max(sizes))]
    return config, {key: value for key, value in assignment.items() if _decides(key)}


def tell(found: Measured, console: Console) -> None:
    """Print what was measured, and a warning if an epoch has few steps with it."""
    console.print(found.explain(), soft_wrap=True, highlight=False, markup=False)
    if found.steps < _FEW_STEPS:
        note = (
            f"{found.batch_size} images a batch train most images a second, but {counted(found.steps, 'step')} an "
            "epoch may be few to learn by: more epochs, a higher learning rate (tuner train FILE --find-lr), or a "
            "number instead of auto"
        )
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)


def _decides(key: str) -> bool:
    return key.split(".")[0] in _SECTIONS


def _size(config: TrialConfig) -> int:
    """The parameters of a trial's model times the pixels of its images."""
    image = config.data.image
    parameters = None
    if not config.targets:
        with contextlib.suppress(Exception):  # of a model that cannot be built: its trial tells it
            parameters = config.count_parameters()
    return (parameters or 1) * image.height * image.width
