"""The end of a job: write the report, complete the record, return the result."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tuner.jobs.context import JobContext
from tuner.jobs.continuation import changed_code
from tuner.jobs.result import FAILED, INTERRUPTED, OK, Result
from tuner.jobs.winner import Winner
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.guards import InternalErrors
from tuner.report import html, tables
from tuner.report.look import write_look
from tuner.storage import temporary
from tuner.storage.disk_full import is_full
from tuner.storage.filesystem import below
from tuner.storage.uris import masked
from tuner.tracking.record import messages
from tuner.trials.elapsed import ended
from tuner.trials.journal import FILE, Journal
from tuner.trials.labels import label
from tuner.trials.leaderboard import failures, front
from tuner.trials.status import ENDED
from tuner.trials.stopping import INTERRUPTION, StoppingCriteria
from tuner.trials.trial import WORKER_LOST, Trial
from tuner.user_code import files

_MLFLOW_STATUS: dict[int, Literal["FINISHED", "KILLED"]] = {OK: "FINISHED", INTERRUPTED: "KILLED"}
"""MLflow's run status by exit status; FAILED for any other."""


class Finish:
    """Ends a job whose trials have ended."""

    def __init__(
        self, job: JobContext, stopping: StoppingCriteria, journal: Journal, internal_errors: InternalErrors
    ) -> None:
        """Create the end of a job; `run` carries it out.

        Args:
            job: The job.
            stopping: The stopping criteria, which know why the job ended early.
            journal: The job's journal.
            internal_errors: The errors of tuner itself so far; `run` adds to them.
        """
        self._job = job
        self._stopping = stopping
        self._journal = journal
        self._internal_errors = internal_errors
        self._winner = Winner(job, stopping, journal, internal_errors)

    def run(self) -> Result:
        """Test the winner, write the report, complete the record, disconnect from Ray."""
        job = self._job
        self._internal_errors.guarded("the check for changed code", self._report_changed_code)
        best = self._winner.trial
        job.phases.begin("test", f"testing trial {best.number}, the best" if best else "")
        self._winner.test()
        self._winner.look()
        status, early, seconds = (
            self._status(),
            self._stopping.reason or self._internal_errors.reason or self._winner.untested,
            job.elapsed.seconds(),
        )
        job.phases.begin("report", "writing the report")
        if self._internal_errors.reason or any(self._was_lost(trial) for trial in job.trials):
            job.keep_logs("a fault of tuner" if self._internal_errors.reason else "a worker was lost")
        with ThreadPoolExecutor(1) as pool:
            # Ray's processes end while the record is completed.
            ray = pool.submit(self._internal_errors.guarded, "the end of Ray", connection.disconnect)
            status, written = self._record(status, early, seconds)
            job.phases.end()
        if left := ray.result():
            job.note(f"files that trials wrote to the folders that Ray gives them stay in {left}")
        return Result(
            spec=job.spec,
            trials=job.trials,
            winner=best,
            test=self._winner.tested.metrics,
            folder=job.folder,
            links=job.links,
            status=status,
            ended_early=early,
            seconds=seconds,
            record_failure=job.recorder.failure,
            model=job.recorder.model,
            damage=self._winner.damage,
            paused=job.elapsed.paused,
            phases=job.phases.seconds,
            report=written,
        )

    def _report_changed_code(self) -> None:
        """Print which code has changed since the job began: workers that started later have imported it."""
        job = self._job
        if not job.local or not job.opening.code:  # workers on a cluster have the code that was uploaded at the start
            return
        if changed := changed_code(job.opening.code, files.digests(job.spec.trial.targets)):
            job.note(
                f"code of your own has changed while the job ran, and workers that started later had it: {changed}"
            )

    def _status(self) -> int:
        job, stopping, winner = self._job, self._stopping, self._winner
        if winner.damage:
            return FAILED
        if stopping.reason == INTERRUPTION:
            return INTERRUPTED
        failed = sum(trial.status == "failed" for trial in job.trials)
        too_many = job.spec.fail_after and job.spec.fail_after.reached(failed, len(job.trials))
        failure = stopping.is_failure or winner.trial is None or too_many
        return FAILED if failure or self._internal_errors.reason or winner.untested else OK

    def _was_lost(self, trial: Trial) -> bool:
        """Whether a trial's worker was lost, in this run of the job."""
        is_lost = trial.lost > 0 or trial.reason.startswith(WORKER_LOST)
        return is_lost and (trial.ended or 0.0) > self._job.phases.began

    def _record(self, status: int, ended_early: str, seconds: float) -> tuple[int, str]:
        """Record the end of the job: the result on the parent run, the tables and the plots as its artifacts.

        Returns:
            The exit status, which is `FAILED` if the report fails; and the report's path if it stays on this host, else
            an empty string.
        """
        objectives, internal_errors = self._job.spec.objectives, self._internal_errors
        winner, best = self._winner, self._winner.trial
        on_front = front(self._job.trials, objectives)
        summary: dict[str, Any] = {"status": {OK: "completed", INTERRUPTED: "interrupted"}.get(status, "failed")}
        summary |= {"ended_early": ended_early} if ended_early else {}
        for outcome in ENDED:
            summary[f"trials_{outcome}"] = sum(trial.status == outcome for trial in self._job.trials)
        if best:
            values = {f"best_{o.metric}": o.of(best.best_report) for o in objectives}
            summary |= values | {"best_epoch": best.best_epoch} | winner.tested.metrics
            summary |= {"winner": str(best.number), "winner_is": label(best.best_assignment)}
        summary |= {"failures": masked(failures(self._job.trials))} if failures(self._job.trials) else {}
        summary |= ended(seconds)
        summary |= {"damaged": f"the winner's checkpoint: {winner.damage}"} if winner.damage else {}
        with _artifacts(self._job.folder) as artifacts:
            write = partial(self._write_report, artifacts, summary["status"], ended_early, seconds)
            is_written = internal_errors.guarded("the report", write)
            if is_written:
                self._write_pictures(artifacts)
            if is_written is None and status == OK:
                status, summary["status"] = FAILED, "failed"
            with suppress(OSError):  # the errors are on the screen, too
                if internal_errors.text:
                    (artifacts / "faults.txt").write_text(internal_errors.text, encoding="utf-8")
            end = messages.end_of(
                _MLFLOW_STATUS.get(status, "FAILED"),
                summary,
                artifacts if is_written is not False else None,
                best,
                on_front,
                winner.tested.metrics,
                winner.model() if status != INTERRUPTED else None,
                below(self._job.folder, FILE),
            )
            registers = " and registering the model" if end.get("model") else ""
            self._job.phases.begin("record", f"finishing the record{registers}")
            self._journal.recorded(end)
            self._job.recorder.close()
            return status, str(artifacts / html.FILE) if is_written and "://" not in self._job.folder else ""

    def _write_report(self, folder: Path, status: str, ended_early: str, seconds: float) -> bool:
        """Write the tables and the plots; return False if the disk is full."""
        objectives, winner = self._job.spec.objectives, self._winner
        try:
            folder.mkdir(exist_ok=True)
            tables.write_tables(self._job.trials, objectives, folder, self._job.spec.repeat)
            names = winner.trial.config.class_names if winner.trial else lambda head: ()
            for target, matrix in winner.tested.confusion.items():
                tables.write_confusion(matrix, target, folder, names(target))
            by_class = {
                target: tables.class_table(columns, names(target)) for target, columns in winner.tested.by_class.items()
            }
            tables.write_by_class(by_class, folder)
            errors = {target: tables.error_table(kinds) for target, kinds in winner.tested.errors.items()}
            tables.write_errors(errors, folder)
            if front(self._job.trials, objectives):
                tables.write_front(self._job.spec, self._job.trials, folder)
            html.write_html(
                self._job.spec,
                self._job.trials,
                folder / html.FILE,
                job=self._job.opening.job,
                status=status,
                ended_early=ended_early,
                test=winner.tested.metrics,
                by_class=by_class,
                errors=errors,
                hardest=winner.seen.hardest,
                seconds=seconds,
                paused=self._job.elapsed.paused,
            )
        except OSError as error:
            if not is_full(error):
                raise
            message = f"no room for the report ({error}): tuner report {self._job.spec.name} writes it where there is"
            self._job.console.print(message, style="yellow", soft_wrap=True, markup=False)
            return False
        return True

    def _write_pictures(self, folder: Path) -> None:
        """Write the pictures of the winner, on which neither the report nor the job's status depends."""
        try:
            write_look(folder, self._winner.seen, self._job.spec.name)
        except OSError as error:
            self._job.note(f"there are no pictures of the winner: {error}")
        except Exception as error:
            self._internal_errors.note("the pictures of the winner", error, minor=True)


@contextmanager
def _artifacts(folder: str) -> Iterator[Path]:
    """Yield the folder for tables and plots: in the job's folder if that is local, else a temporary one."""
    if "://" not in folder:
        yield Path(folder, "report")
        return
    with temporary.folder() as temporary_folder:
        yield temporary_folder
