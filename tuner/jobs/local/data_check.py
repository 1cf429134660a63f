"""The dataset of an experiment, opened whatever is wrong with its files, and the check of all of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.data.encoded.measured import UNOPENED
from tuner.data.encoded.unchecked import unchecked
from tuner.data.images import ImageData
from tuner.errors import Problem, UserError
from tuner.inspection.datasets import inspect_dataset
from tuner.inspection.examine import Progress
from tuner.search.conditions import corners
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.spec.preparation import with_each_choice
from tuner.train.trial_config import TrialConfig


@dataclass(frozen=True)
class Opened:
    """An experiment with its dataset, which is available.

    Args:
        spec: The experiment.
        trial: Its trial.
        refused: What is wrong with files of the dataset, for which training refuses it; such a dataset can be listed,
            and its images cannot be relied on.
    """

    spec: ExperimentSpec
    trial: TrialConfig
    refused: tuple[Problem, ...] = ()


def opened(file: Path, overrides: Sequence[str] = ()) -> Opened:
    """Read an experiment, and make its dataset available, whatever is wrong with the dataset's files.

    Args:
        file: The experiment's file.
        overrides: Values of its keys, ``KEY=VALUE``.

    Raises:
        UserError: The file has other mistakes, or it has no dataset.
    """
    refused: tuple[Problem, ...] = ()
    try:
        spec, _ = load(file, overrides).prepare(choices=False)
    except UserError as error:
        if not all(problem.items for problem in error.problems):
            raise
        refused = tuple(error.problems)
        unopened = [f"trial.data.{name}={value}" for name, value in UNOPENED.items()]
        with unchecked():
            spec, _ = load(file, [*overrides, *unopened]).prepare(choices=False)
    if not isinstance(spec.trial, TrialConfig):
        hint = "tuner inspect FOLDER looks at a folder of images"
        raise UserError(Problem("a function of your own reads its own data", "trial.target", hint=hint))
    with unchecked() if refused else nullcontext():
        trial = spec.trial_config({})
    assert isinstance(trial, TrialConfig)
    return Opened(spec, trial, refused)


def check_data(file: Path, watched: Callable[[str], AbstractContextManager[Progress]]) -> int:
    """Read all images of an experiment, and all that belongs to them: of the trial of its file, and of each choice.

    Args:
        file: The experiment's file.
        watched: Returns, for a phrase that says what is looked at, what is called as images are read.

    Returns:
        The number of images.

    Raises:
        UserError: The file has mistakes, or files cannot be used, each of which is told.
    """
    found = opened(file)
    count, faults = 0, list(_each(found.refused, str(file)))
    told = {fault.message for fault in faults}
    for data in [found.trial.data] if found.refused else _datasets(found):
        description = data.describe()
        with watched(f"reading {description.name}") as progress:
            findings = inspect_dataset(data, progress)
        count += findings.images
        broken = [f"{name}: {why}" for name, why in findings.broken.items()]
        items = tuple(f"{description.source}: {each}" for each in broken if each not in told)
        hint = "repair or delete the files; skip_broken: true leaves them out"
        faults += _each([Problem("", "trial.data", hint=hint, items=items)], str(file))
    if faults:
        raise UserError(*faults)
    return count


def _each(problems: Sequence[Problem], where: str) -> Iterator[Problem]:
    """A problem for each item of some; the last one of each says what to do."""
    for problem in problems:
        for number, item in enumerate(problem.items, start=1):
            hint = problem.hint if number == len(problem.items) else ""
            yield replace(problem, message=item, where=problem.where or where, hint=hint, items=())


def _datasets(found: Opened) -> Iterator[ImageData]:
    """The datasets of the file's trial and of each choice of the space, without repetitions."""
    spec, _ = found.spec.prepare()
    seen = set()
    for assignment in ({}, *with_each_choice(filter(spec.allows, corners(spec.space)))):
        trial = spec.trial_config(assignment)
        assert isinstance(trial, TrialConfig)
        description = trial.data.describe()
        if (description.source, description.digest) not in seen:
            seen.add((description.source, description.digest))
            yield trial.data
