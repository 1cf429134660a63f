"""The teacher of a job's distillation: it is found and checked before the job starts, which keeps a copy of it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tuner.errors import Problem, UserError
from tuner.search.conditions import corners
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below, delete, exists, files_at
from tuner.storage.uris import masked
from tuner.tracking.checkpoints import checkpoint_of, pinned
from tuner.train.checkpoint import is_checkpoint
from tuner.train.teacher import KEY, check_fits, check_teacher
from tuner.train.trial_base import merge
from tuner.train.trial_config import TrialConfig
from tuner.trials.layout import TEACHER
from tuner.user_code import folders

_MOST_TRIALS = 64
"""Most configurations of a space that a teacher is checked against; workers check each trial again."""


@dataclass(frozen=True)
class Teacher:
    """A teacher that was found.

    Args:
        model: The model that it is: ``models:/NAME/VERSION``, the id of a run, or a folder or URI.
        folder: Its checkpoint on this machine.
    """

    model: str
    folder: Path

    def keep(self, job_folder: str) -> None:
        """Copy the checkpoint to a job's folder, where each worker finds it, also when the job is resumed.

        Raises:
            UserError: It cannot be written there.
        """
        from pyarrow.fs import LocalFileSystem, copy_files

        place = below(job_folder, TEACHER)
        try:
            files, path = files_at(place)
            files.create_dir(path)
            copy_files(str(self.folder), path, source_filesystem=LocalFileSystem(), destination_filesystem=files)
        except OSError as error:
            raise UserError(Problem(f"the teacher cannot be copied: {error}", KEY, where=masked(place))) from None


def forget(job_folder: str) -> None:
    """Delete the copy of a job that did not begin."""
    delete(below(job_folder, TEACHER))


@contextlib.contextmanager
def found(spec: ExperimentSpec, uri: str) -> Iterator[Teacher | None]:
    """Find the teacher of a new job, download its checkpoint, and check that it fits the trials.

    Args:
        spec: The experiment, with its data.
        uri: MLflow's tracking URI.

    Returns:
        The teacher, while the body runs; None if the trials have none.

    Raises:
        UserError: It does not exist, is damaged or does not fit, or the space has several.
    """
    if searched := [key for key in spec.space if key in ("distillation", "distillation.teacher")]:
        hint = "search distillation.alpha and distillation.temperature, and run a job for each teacher"
        raise UserError(Problem("a job has one teacher", f"space.{searched[0]}", hint=hint))
    if not spec.trial.teacher:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            model = pinned(_model(spec.trial.teacher), uri)
            folder = stack.enter_context(checkpoint_of(Path(model) if Path(model).is_dir() else model, uri))
            _check(folder, spec)
        except UserError as error:
            raise UserError(*(replace(problem, key=problem.key or KEY) for problem in error.problems)) from None
        yield Teacher(masked(model), folder)


def check_kept(spec: ExperimentSpec, job_folder: str) -> None:
    """Check that a job that is resumed still has the copy of its teacher.

    Raises:
        UserError: It has not.
    """
    if spec.trial.teacher and not exists(below(job_folder, TEACHER)):
        hint = "its trials learnt from it: start a new job without --resume"
        raise UserError(Problem("the job's copy of its teacher is gone", KEY, below(job_folder, TEACHER), hint))


def _model(teacher: str) -> str | Path:
    """The folder that a teacher names, relative to the experiment's file; else the name itself."""
    if "://" in teacher or teacher.startswith("models:/"):
        return teacher
    folder = folders()[0] / Path(teacher).expanduser()
    return folder if "/" in teacher or is_checkpoint(folder) else teacher


def _check(folder: Path, spec: ExperimentSpec) -> None:
    assert isinstance(spec.trial, TrialConfig)
    signature = None
    for assignment in islice(corners(spec.space), _MOST_TRIALS):
        if spec.allows(assignment):
            config = merge(spec.trial, assignment)
            signature = check_fits(signature, config) if signature else check_teacher(folder, config)
