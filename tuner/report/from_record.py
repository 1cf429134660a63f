"""A job from its journal: its report, written again, and its results as a table."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.report import html
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import default_uri
from tuner.tracking import store
from tuner.tracking.queries import RecordedJob, find_job, trials_of
from tuner.trials import journal
from tuner.trials.leaderboard import leaderboard
from tuner.trials.resume import ResumedJob, rebuilt
from tuner.trials.status import BROKE_OFF

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """The report of a job.

    Args:
        path: Its file.
        note: What the user must be told about it; empty where there is nothing.
    """

    path: Path
    note: str = ""


def write_report(name: str, path: Path | None = None, uri: str | None = None) -> Report:
    """Write the report of a job: as its journal tells of it, whether it has ended or not.

    Args:
        name: As `tuner.tracking.queries.find_job` takes it.
        path: The file to write; None for ``<experiment>-<job>.html`` in the working directory.
        uri: MLflow's tracking URI; None for its default.

    Raises:
        UserError: There is no such job, or neither its journal nor a report of it can be had from here.
    """
    with store.reading(uri or default_uri()) as client:
        job = find_job(client, name)
        path = path or Path(f"{job.experiment}-{job.id}.html")
        _check_writable(path)
        try:
            with rebuilt_job(client, job) as (spec, past):
                status, early = job.status, job.tags.get("tuner.ended_early", "")
                html.write_html(
                    spec,
                    past.trials,
                    path,
                    job=job.id,
                    status=status,
                    ended_early=early if status != "running" else "",
                    test=past.end.get("test") or job.test,
                    seconds=job.seconds,
                    paused=job.paused,
                )
        except UserError as error:
            kept = store.read_text(client, job.run.info.run_id, html.FILE)
            if kept is None:
                raise
            path.write_text(kept, encoding="utf-8")
            return Report(path, f"as it was written when the job ended: {error.problems[0].message}")
    return Report(path)


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(Problem(f"there is no folder {path.parent}", "--output", hint="make it first"))
    if path.is_dir():
        raise UserError(Problem(f"{path} is a folder", "--output", hint=f"name a file, such as {path / 'report.html'}"))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(Problem(f"{path} cannot be written", "--output", hint="name a file elsewhere"))


def results(name: str, uri: str | None = None) -> "pd.DataFrame":
    """The leaderboard of a job, one row a trial, best first: as in its ``leaderboard.csv``, with its run.

    Args:
        name: An experiment's name, which stands for its last job; a job's id; or the id of a job's run.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Returns:
        Columns ``trial``, ``status``, each objective at its best report, ``pareto`` where there are several,
        ``best_epoch``, each searched key, ``seconds``, ``reason``, and ``run_id``: None where it has no run.

    Raises:
        UserError: There is no such job, or neither its journal nor its table can be had from here.
    """
    import pandas as pd

    with store.reading(uri or default_uri()) as client:
        job = find_job(client, name)
        try:
            with rebuilt_job(client, job) as (spec, past):
                table = leaderboard(past.trials, spec.objectives, spec.repeat)
        except UserError:
            kept = store.read_text(client, job.run.info.run_id, "leaderboard.csv")
            if kept is None:
                raise
            table = pd.read_csv(io.StringIO(kept)) if kept.strip() else pd.DataFrame()
        runs = {trial.number: trial.run.info.run_id for trial in trials_of(client, job)}
    ids = [runs.get(int(number)) for number in table.get("trial", ())]
    return table.assign(run_id=pd.Series(ids, index=table.index, dtype=object))


@contextlib.contextmanager
def rebuilt_job(client: Any, job: RecordedJob) -> Iterator[tuple[ExperimentSpec, ResumedJob]]:
    """The experiment of a job as it was run, and what came of it. Meanwhile, no code that it names is called.

    Raises:
        UserError: Its journal cannot be had from here, or is none of a job.
    """
    text, where = _journal(client, job)
    with user_code.without_imports():  # neither table nor report needs it
        spec, past = rebuilt(text, job.id, where)
        for trial in past.trials if job.status != "running" else ():
            if trial.ended is None:
                trial.end("interrupted", BROKE_OFF)
                trial.ended = trial.updated or trial.started  # as far as anybody knows
        yield spec, past


def _journal(client: Any, job: RecordedJob) -> tuple[str, str]:
    """The text of a job's journal, and where it lies."""
    run, folder = job.run.info.run_id, job.tags.get("tuner.folder", "")
    kept = store.read_text(client, run, journal.FILE)
    if kept is not None and job.status in ("completed", "failed"):
        return kept, f"{journal.FILE} of the run {run}"
    lying = ""
    # A folder on another machine, or a store that wants to know who we are: then there is what MLflow has.
    with contextlib.suppress(OSError, ValueError):
        lying = journal.text_of(folder) if folder and journal.exists(folder) else ""
    if len(lying) > len(kept or ""):  # one that went on after it was kept
        return lying, f"{folder}/{journal.FILE}"
    if kept is None:
        host = job.tags.get("tuner.host", "")
        message = f"the journal of job {job.id} cannot be had from here: it is no artifact of the run {run}"
        hint = f"it lies in {folder}{f' on {host}' if host else ''}: give the command there" if folder else ""
        raise UserError(Problem(message, hint=hint))
    return kept, f"{journal.FILE} of the run {run}"
