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
from tuner.tracking.checkpoints import checkpoint_of, needs_store, pinned
from tuner.tracking.health import unanswered
from tuner.train.checkpoint import DESCRIPTION, is_checkpoint
from tuner.train.teacher import KEY, check_fits, check_teacher, read_signature
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
        UserError: It does not exist, is damaged or does not fit.
    """
    if not spec.trial.teacher:
        yield None
        return
    with contextlib.ExitStack() as stack:
        with _told_at_its_key():
            model = pinned(_model(spec.trial.teacher), uri)
            folder = stack.enter_context(checkpoint_of(Path(model) if Path(model).is_dir() else model, uri))
            _check(folder, spec)
        yield Teacher(masked(model), folder)


def check_described(spec: ExperimentSpec, uri: str) -> str:
    """Check the teacher as `found` does, but by the small files of its checkpoint alone: its weights are not read.

    Whether it fits is not checked if the trial's data are not on this machine, since a job may then use others.

    Args:
        spec: The experiment.
        uri: MLflow's tracking URI.

    Returns:
        Why the teacher was not looked for, because its store does not answer; empty if it was.

    Raises:
        UserError: It does not exist, is no checkpoint or does not fit.
    """
    if not spec.trial.teacher:
        return ""
    with _told_at_its_key():
        model = _model(spec.trial.teacher)
        if needs_store(model) and (why := unanswered(uri)):
            return f"{KEY}: {spec.trial.teacher} was not looked for, because its store does not answer: {why}"
        with checkpoint_of(model, uri, DESCRIPTION) as folder:
            assert isinstance(spec.trial, TrialConfig)
            signature = read_signature(folder, spec.trial)
            for config in _configurations(spec) if spec.trial.data_is_available else ():
                check_fits(signature, config)
    return ""


@contextlib.contextmanager
def _told_at_its_key() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(*(replace(problem, key=problem.key or KEY) for problem in error.problems)) from None


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
    signature = None
    for config in _configurations(spec):
        signature = check_fits(signature, config) if signature else check_teacher(folder, config)


def _configurations(spec: ExperimentSpec) -> Iterator[TrialConfig]:
    """Configurations of the space that a teacher is checked against."""
    assert isinstance(spec.trial, TrialConfig)
    for assignment in islice(corners(spec.space), _MOST_TRIALS):
        if spec.allows(assignment):
            yield merge(spec.trial, assignment)
