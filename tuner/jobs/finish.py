"""The end of a job: test the winner, write the report, complete the record."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from tuner import user_code
from tuner.error_text import one_line
from tuner.errors import UserError
from tuner.inspection.winner import Look
from tuner.jobs.context import JobContext
from tuner.jobs.continuation import changed_code
from tuner.jobs.result import FAILED, INTERRUPTED, OK, Result
from tuner.process.signals import on_signal, stop
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.guards import InternalErrors
from tuner.ray_backend.runner import call_on_cluster
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.ray_backend.worker.winner import look_at, test
from tuner.report import html, tables
from tuner.report.look import write_look
from tuner.storage import temporary
from tuner.storage.disk_full import is_full
from tuner.storage.filesystem import below
from tuner.storage.uris import masked
from tuner.tracking.record import messages, opening
from tuner.train.checkpoint import Damaged
from tuner.train.evaluation import Evaluation
from tuner.trials.elapsed import ended
from tuner.trials.journal import FILE, Journal
from tuner.trials.labels import label
from tuner.trials.leaderboard import failures, front, winner
from tuner.trials.status import ENDED
from tuner.trials.stopping import INTERRUPTION, StoppingCriteria
from tuner.trials.trial import WORKER_LOST, Trial

T = TypeVar("T")

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
        self._best = winner(job.trials, job.spec.objectives, job.spec.repeat)
        self._test = Evaluation()
        self._look = Look()
        self._damage = ""
        """Why the winner's checkpoint cannot be read; empty if it can."""
        self._untested = ""
        """Why the winner could not be tested; empty if it could, or is not tested."""

    def run(self) -> Result:
        """Test the winner, write the report, complete the record, disconnect from Ray."""
        job = self._job
        self._internal_errors.guarded("the check for changed code", self._report_changed_code)
        job.phases.begin("test", f"testing trial {self._best.number}, the best" if self._best else "")
        self._test_winner()
        self._look_at_winner()
        status, early, seconds = (
            self._status(),
            self._stopping.reason or self._internal_errors.reason or self._untested,
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
            winner=self._best,
            test=self._test.metrics,
            folder=job.folder,
            links=job.links,
            status=status,
            ended_early=early,
            seconds=seconds,
            record_failure=job.recorder.failure,
            model=job.recorder.model,
            damage=self._damage,
            paused=job.elapsed.paused,
            phases=job.phases.seconds,
            report=written,
        )

    def _report_changed_code(self) -> None:
        """Print which code has changed since the job began: workers that started later have imported it."""
        job = self._job
        if not job.local or not job.opening.code:  # workers on a cluster have the code that was uploaded at the start
            return
        if changed := changed_code(job.opening.code, user_code.digests(job.spec.trial.targets)):
            job.note(
                f"code of your own has changed while the job ran, and workers that started later had it: {changed}"
            )

    def _test_winner(self) -> None:
        if self._best is None or self._stopping.reason == INTERRUPTION:
            return
        try:
            with on_signal(stop):  # a large test set may take long
                self._test = self._of_winner(test, Evaluation())
        except KeyboardInterrupt:
            self._stopping.interrupt()
            self._journal.closed(is_finished=False)  # --resume tests it
        except Damaged as error:
            self._damage = error.why
        except UserError as error:  # such as a test image that cannot be decoded
            self._untested = f"the winner could not be tested: {_why(error)}; --resume tests it"
            self._journal.closed(is_finished=False)
        except Exception as error:
            self._internal_errors.note("the test of the winner", error)
            self._untested = self._internal_errors.reason
            self._journal.closed(is_finished=False)  # --resume tests it

    def _look_at_winner(self) -> None:
        """Compute the pictures of the winner, unless it could not be tested, or somebody interrupts that."""
        if self._damage or self._untested or self._stopping.reason == INTERRUPTION:
            return
        try:
            with suppress(KeyboardInterrupt), on_signal(stop):
                self._look = self._of_winner(look_at, Look())
        except UserError as error:  # such as a file that was deleted since
            self._job.note(f"there are no pictures of the winner: {_why(error)}")
        except Exception as error:  # the answer does not depend on them
            self._internal_errors.note("the pictures of the winner", error, minor=True)

    def _status(self) -> int:
        job, stopping = self._job, self._stopping
        if self._damage:
            return FAILED
        if stopping.reason == INTERRUPTION:
            return INTERRUPTED
        failed = sum(trial.status == "failed" for trial in job.trials)
        too_many = job.spec.fail_after and job.spec.fail_after.reached(failed, len(job.trials))
        failure = stopping.is_failure or self._best is None or too_many
        return FAILED if failure or self._internal_errors.reason or self._untested else OK

    def _was_lost(self, trial: Trial) -> bool:
        """Whether a trial's worker was lost, in this run of the job."""
        is_lost = trial.lost > 0 or trial.reason.startswith(WORKER_LOST)
        return is_lost and (trial.ended or 0.0) > self._job.phases.began

    def _of_winner(self, function: Callable[[str, int, bool, Sequence[str], UserFolder | None], T], nothing: T) -> T:
        """Call a function of the winner's checkpoint; return `nothing` if there is none that tuner can load."""
        best, share = self._best, self._job.share
        if best is None or best.checkpoint is None or best.config.is_function:
            return nothing
        targets = best.config.targets
        if self._job.local:  # another worker would only import torch again
            return function(best.checkpoint, share.threads * share.slots, share.gpu > 0, targets, None)
        return call_on_cluster(function, best.checkpoint, targets, share, self._job.user_folder)

    def _model(self) -> dict[str, Any] | None:
        """Return the model to register: None if the winner's checkpoint cannot be read, or its test has failed."""
        best = self._best
        if (
            self._damage
            or self._untested
            or best is None
            or best.checkpoint is None
            or not opening.registers(self._job.spec)
        ):
            return None
        data = best.config.describe_data()
        measured = [o.metric for o in self._job.spec.objectives if o.of(best.best_report) is not None]
        return {
            "name": self._job.spec.name,
            "checkpoint": best.checkpoint,
            "targets": best.config.targets,
            "metric": self._job.spec.objective.metric,
            "mode": self._job.spec.objective.mode,
            "value": best.best,
            "dataset": f"{data.name} {data.digest}" if data else "",
            "metrics": [*measured, *self._test.metrics],
            "epoch": best.best_epoch,
        }

    def _record(self, status: int, ended_early: str, seconds: float) -> tuple[int, str]:
        """Record the end of the job: the result on the parent run, the tables and the plots as its artifacts.

        Returns:
            The exit status, which is `FAILED` if the report fails; and the report's path if it stays on this host, else
            an empty string.
        """
        objectives, best, internal_errors = self._job.spec.objectives, self._best, self._internal_errors
        on_front = front(self._job.trials, objectives)
        summary: dict[str, Any] = {"status": {OK: "completed", INTERRUPTED: "interrupted"}.get(status, "failed")}
        summary |= {"ended_early": ended_early} if ended_early else {}
        for outcome in ENDED:
            summary[f"trials_{outcome}"] = sum(trial.status == outcome for trial in self._job.trials)
        if best:
            values = {f"best_{o.metric}": o.of(best.best_report) for o in objectives}
            summary |= values | {"best_epoch": best.best_epoch} | self._test.metrics
            summary |= {"winner": str(best.number), "winner_is": label(best.best_assignment)}
        summary |= {"failures": masked(failures(self._job.trials))} if failures(self._job.trials) else {}
        summary |= ended(seconds)
        summary |= {"damaged": f"the winner's checkpoint: {self._damage}"} if self._damage else {}
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
                self._test.metrics,
                self._model() if status != INTERRUPTED else None,
                below(self._job.folder, FILE),
            )
            registers = " and registering the model" if end.get("model") else ""
            self._job.phases.begin("record", f"finishing the record{registers}")
            self._journal.recorded(end)
            self._job.recorder.close()
            return status, str(artifacts / html.FILE) if is_written and "://" not in self._job.folder else ""

    def _write_report(self, folder: Path, status: str, ended_early: str, seconds: float) -> bool:
        """Write the tables and the plots; return False if the disk is full."""
        objectives = self._job.spec.objectives
        try:
            folder.mkdir(exist_ok=True)
            tables.write_tables(self._job.trials, objectives, folder, self._job.spec.repeat)
            names = self._best.config.class_names if self._best else lambda head: ()
            for target, matrix in self._test.confusion.items():
                tables.write_confusion(matrix, target, folder, names(target))
            by_class = {
                target: tables.class_table(columns, names(target)) for target, columns in self._test.by_class.items()
            }
            tables.write_by_class(by_class, folder)
            if front(self._job.trials, objectives):
                tables.write_front(self._job.spec, self._job.trials, folder)
            html.write_html(
                self._job.spec,
                self._job.trials,
                folder / html.FILE,
                job=self._job.opening.job,
                status=status,
                ended_early=ended_early,
                test=self._test.metrics,
                by_class=by_class,
                hardest=self._look.hardest,
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
            write_look(folder, self._look, self._job.spec.name)
        except OSError as error:
            self._job.note(f"there are no pictures of the winner: {error}")
        except Exception as error:
            self._internal_errors.note("the pictures of the winner", error, minor=True)


def _why(error: UserError) -> str:
    """The problems of an error in one line, also of one that comes from a worker."""
    problems = getattr(error, "cause", error).problems  # of the error itself, not of Ray's around it
    return "; ".join(one_line(str(problem).replace("\n    ", "; ")) for problem in problems)


@contextmanager
def _artifacts(folder: str) -> Iterator[Path]:
    """Yield the folder for tables and plots: in the job's folder if that is local, else a temporary one."""
    if "://" not in folder:
        yield Path(folder, "report")
        return
    with temporary.folder() as temporary_folder:
        yield temporary_folder
