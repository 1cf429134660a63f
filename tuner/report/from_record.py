"""The report and the results of a recorded job, computed again from its journal."""

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.report import html, tables
from tuner.report.look import read_hardest
from tuner.report.page import check_replaceable
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.named_output import check_writable
from tuner.storage.uris import default_uri
from tuner.tracking import store
from tuner.tracking.queries import RecordedJob, find_job, trials_of
from tuner.trials import journal
from tuner.trials.leaderboard import leaderboard
from tuner.trials.resume.reading import rebuilt
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.status import BROKE_OFF

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """The report of a job.

    Args:
        path: Its file.
        note: A message for the user about it; empty if there is none.
    """

    path: Path
    note: str = ""


def write_report(name: str, path: Path | None = None, uri: str | None = None) -> Report:
    """Write the report of a running or ended job from its journal.

    Args:
        name: A job, as for `tuner.tracking.queries.find_job`.
        path: The file to write; None for ``<experiment>-<job>.html`` in the working directory.
        uri: MLflow's tracking URI; None for its default.

    Raises:
        UserError: There is no such job, or neither its journal nor its recorded report can be read from here; or the
            file cannot be written, or is no page that tuner wrote.
    """
    with store.reading(uri or default_uri()) as client:
        job = find_job(client, name)
        path = path or Path(f"{job.experiment}-{job.id}.html")
        check_writable(path)
        check_replaceable(path)
        try:
            with rebuilt_job(client, job) as (spec, past):
                run = job.run.info.run_id
                files = store.artifacts(client, run) or []
                read = functools.partial(store.read_text, client, run)
                status, early = job.status, job.tags.get("tuner.ended_early", "")
                html.write_html(
                    spec,
                    past.trials,
                    path,
                    job=job.id,
                    status=status,
                    ended_early=early if status != "running" else "",
                    test=(past.end and past.end["test"]) or job.test,
                    by_class=tables.read_by_class(files, read),
                    errors=tables.read_errors(files, read),
                    hardest=read_hardest(files, functools.partial(store.read_bytes, client, run)),
                    seconds=job.seconds,
                    paused=job.paused,
                )
        except UserError as error:
            recorded = store.read_text(client, job.run.info.run_id, html.FILE)
            if recorded is None:
                raise
            path.write_text(recorded, encoding="utf-8")
            return Report(path, f"this is the report from the end of the job: {error.problems[0].message}")
    return Report(path)


def results(name: str, uri: str | None = None) -> "pd.DataFrame":
    """Return the leaderboard of a job, one row a trial, best first: its ``leaderboard.csv`` and the ids of the runs.

    Args:
        name: An experiment's name, for its last job; a job's id; or the id of a job's run.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Returns:
        Columns ``trial``, ``status``, each objective at its best report, ``pareto`` if there are several,
        ``best_epoch``, each searched key, ``seconds``, ``reason``, and ``run_id``: None for a trial without a run.

    Raises:
        UserError: There is no such job, or neither its journal nor its recorded leaderboard can be read from here.
    """
    import pandas as pd

    with store.reading(uri or default_uri()) as client:
        job = find_job(client, name)
        try:
            with rebuilt_job(client, job) as (spec, past):
                table = leaderboard(past.trials, spec.objectives, spec.repeat)
        except UserError:
            recorded = store.read_text(client, job.run.info.run_id, "leaderboard.csv")
            if recorded is None:
                raise
            table = pd.read_csv(io.StringIO(recorded)) if recorded.strip() else pd.DataFrame()
        runs = {trial.number: trial.run.info.run_id for trial in trials_of(client, job)}
    ids = [runs.get(int(number)) for number in table.get("trial", ())]
    return table.assign(run_id=pd.Series(ids, index=table.index, dtype=object))


@contextlib.contextmanager
def rebuilt_job(client: Any, job: RecordedJob) -> Iterator[tuple[ExperimentSpec, ResumedJob]]:
    """Yield a job's experiment as it was run, and its trials. Within this context the user's code is not imported.

    Raises:
        UserError: The job's journal cannot be read from here, or is not a journal.
    """
    text, where = _journal(client, job)
    with user_code.without_imports():  # neither the leaderboard nor the report needs it
        spec, past = rebuilt(text, job.id, where)
        for trial in past.trials if job.status != "running" else ():
            if trial.ended is None:
                trial.end("interrupted", BROKE_OFF)
                trial.ended = trial.updated or trial.started  # the time of its last report: its end was not recorded
        yield spec, past


def _journal(client: Any, job: RecordedJob) -> tuple[str, str]:
    """Return the text of a job's journal, and where it was read from."""
    run, folder = job.run.info.run_id, job.tags.get("tuner.folder", "")
    artifact = store.read_text(client, run, journal.FILE)
    if artifact is not None and job.status in ("completed", "failed"):
        return artifact, f"{journal.FILE} of the run {run}"
    in_folder = ""
    # The folder may be on another node, or in storage that denies access: then the artifact in MLflow is used.
    with contextlib.suppress(OSError, ValueError):
        in_folder = journal.text_of(folder) if folder and journal.exists(folder) else ""
    if len(in_folder) > len(artifact or ""):  # the job was continued after the artifact was written
        return in_folder, f"{folder}/{journal.FILE}"
    if artifact is None:
        host = job.tags.get("tuner.host", "")
        message = f"the journal of job {job.id} cannot be read from here: the run {run} has no such artifact"
        hint = f"it is in {folder}{f' on {host}' if host else ''}: run the command there" if folder else ""
        raise UserError(Problem(message, hint=hint))
    return artifact, f"{journal.FILE} of the run {run}"
