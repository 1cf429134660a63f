"""The driver: specification, plan, trials on Ray, the record, the winner. ``python -m tuner.run FILE``."""

import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner import cluster, imports, preflight, report, tracking, warm_start
from tuner.display import Display
from tuner.ending import Ending
from tuner.errors import Problem, UserError
from tuner.journal import Journal, Past, last_job, read_past
from tuner.spec import ExperimentSpec
from tuner.supply import Supply
from tuner.trial_config import TrialConfig
from tuner.trials import Listener, Trial, front, label, winner

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done; the job failed, at least in part; what the user gave is wrong; interrupted."""

INTERRUPTION = "interrupted"
"""Why a job ended that somebody ended by hand."""


@dataclass(frozen=True)
class Result:
    """What a job leaves behind.

    Args:
        spec: The experiment as it was run.
        trials: Every trial that was begun, by number.
        winner: The best trial that neither failed nor diverged; None where there is none.
        test: The winner's metrics on the test set, by their full names.
        folder: The job's folder, or its URI.
        links: Where the record is.
        status: Exit status.
        ended_early: Why the job ended before its search was through; empty where it did not.
        seconds: Wall-clock seconds of the job.
        record_failure: Why the record is not whole; None where it is.
    """

    spec: ExperimentSpec
    trials: Sequence[Trial]
    winner: Trial | None
    test: dict[str, float]
    folder: str
    links: tracking.Links
    status: int
    ended_early: str
    seconds: float
    record_failure: Exception | None


def run(
    spec: ExperimentSpec,
    *,
    source: Path = Path(),
    address: str | None = None,
    console: Console | None = None,
    resume: bool = False,
    extend: int = 0,
) -> Result:
    """Run an experiment to its end.

    Args:
        spec: The experiment, as `tuner.spec.load` gives it.
        source: Its file, or the folder that it belongs to; the record names its git commit.
        address: A Ray cluster; None for RAY_ADDRESS, else a fresh local Ray.
        console: Where to write; None for standard output.
        resume: Go on with the experiment's last job instead of beginning a new one.
        extend: Go on with it, and try this many configurations more.

    Raises:
        UserError: Something that the user gave cannot work. Nothing was started or written.
    """
    console = console or Console()
    began = time.time()
    address = cluster.address_of(address)
    spec, uri = prepare(spec, console, address)
    past = None
    if resume or extend:
        spec, past = _past(spec, extend)
    job = past.job if past else f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = job_folder(spec, job)
    learnt = warm_start.learnt(spec, uri, but=past.head.get("parent_run", "") if past else "")
    supply = Supply(spec, past.trials if past else (), learnt)
    _say_what_was_chosen(spec, supply, past, console)
    recorder = tracking.Recorder(spec, uri)
    open_record = partial(recorder.open, job, folder, source, supply.total, past)
    try:
        if address is None:
            # MLflow and Ray Tune take as long as Ray to start: seconds that pass side by side.
            with ThreadPoolExecutor(2) as pool:
                opening = pool.submit(open_record)
                pool.submit(import_module, "tuner.schedule")
                capacity = cluster.connect(None)
                links = opening.result()
            share = cluster.share(spec.resources, capacity, supply.total)
        else:  # it may refuse us: nothing is recorded before it has not
            share = cluster.share(spec.resources, cluster.connect(address), supply.total)
            links = open_record()
        return _Job(spec, supply, share, job, folder, recorder, links, console, began, address is None).run()
    finally:
        cluster.disconnect()


def prepare(spec: ExperimentSpec, console: Console, address: str | None) -> tuple[ExperimentSpec, str]:
    """Everything that can be known before anything is started: store, storage, data, resources of this machine.

    Returns:
        The experiment with the dataset that there is, and the tracking URI.
    """
    if "://" not in spec.storage:  # as `tuner.spec.load` has it already
        spec = spec.model_copy(update={"storage": str(Path(spec.storage).expanduser().resolve())})
    uri = preflight.tracking_uri(spec)
    preflight.check_store(uri)
    preflight.check_storage(spec.storage)
    spec, message = spec.prepare()
    if message:
        console.print(f"[yellow]{message}[/]", soft_wrap=True)
    if cluster.address_of(address) is None:
        cluster.share(spec.resources, cluster.local_capacity(), trials=1)
    return spec, uri


def _past(spec: ExperimentSpec, extend: int) -> tuple[ExperimentSpec, Past]:
    """The experiment's last job, as its journal tells of it, and the experiment with as many trials as it will have."""
    job = last_job(spec.storage, spec.name)
    past = read_past(spec, job_folder(spec, job), job)
    had = past.head["trials"]
    if extend and spec.scheduler.mutates:
        message = f"{spec.scheduler.kind} has trained its population to the end"
        raise UserError(Problem(message, "--extend", hint="raise trial.epochs or search.trials in a new job"))
    said = getattr(spec.search, "trials", had)
    wanted = max(had, said) + extend
    try:
        search = spec.search if wanted == said else spec.search.having(wanted)
    except ValueError as error:
        hint = "widen the space, in a new job; search.warm_start lets bayesian search learn from this one"
        raise UserError(Problem(str(error), "--extend", hint=hint)) from None
    spec = spec.model_copy(update={"search": search})
    most = spec.count() if spec.budget.trials is None else min(spec.count(), spec.budget.trials)
    if most <= had and extend:
        what = "the space has" if most == spec.count() else "budget.trials allows"
        hint = "widen the space, in a new job, or raise budget.trials"
        raise UserError(Problem(f"{what} no more than the {had} trials of job {job}", "--extend", hint=hint))
    if most <= had and past.is_finished:
        message = f"the last job of {spec.name!r}, {job}, has been through all of its {len(past.trials)} trials"
        hint = "--extend 10 goes on with ten configurations more; without --resume a new job begins"
        raise UserError(Problem(message, "--resume", hint=hint))
    return spec, past


def _say_what_was_chosen(spec: ExperimentSpec, supply: Supply, past: Past | None, console: Console) -> None:
    lines = [spec.explain()]
    if past is not None:
        ended = len(past.trials) - len(supply.unfinished)
        lines.append(
            f"going on with job {past.job}: {ended} trials have ended, {len(supply.unfinished)} go on, "
            f"up to {supply.total - len(past.trials)} are new"
        )
    for line in filter(None, lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def job_folder(spec: ExperimentSpec, job: str) -> str:
    """``<storage>/<name>/<job>``."""
    return f"{spec.storage.rstrip('/')}/{spec.name}/{job}"


def _import_ahead() -> None:
    """What the end of a job needs: seconds of imports, while the first trials train."""
    for module in ("pandas", "sklearn.metrics", "matplotlib.figure"):
        import_module(module)


@dataclass(frozen=True)
class _Job:
    """One job from its first trial to its summary."""

    spec: ExperimentSpec
    supply: Supply
    share: cluster.Share
    job: str
    folder: str
    recorder: tracking.Recorder
    links: tracking.Links
    console: Console
    began: float
    local: bool
    """Whether Ray was started here, for this job alone."""

    @property
    def trials(self) -> list[Trial]:
        """All trials so far."""
        return self.supply.trials

    def run(self) -> Result:
        from tuner.schedule import end_running, schedule

        spec = self.spec
        goals = {spec.direction(name): value for name, value in spec.stop.items()}
        ending = Ending(timeout=spec.timeout, goals=goals, epochs=spec.budget.epochs, past=self.trials)
        display = Display(self.console, spec, self.supply)
        journal = Journal(self.folder)
        journal.opened(spec, parent_run=self.links.parent_run_id, trials=self.supply.total)
        listeners: list[Listener] = [self.supply, ending, journal, self.recorder, display]
        threading.Thread(target=_import_ahead, daemon=True).start()
        try:
            with display, _ending_cleanly(ending, display):
                schedule(
                    spec,
                    self.supply,
                    self.share,
                    storage=f"{spec.storage.rstrip('/')}/{spec.name}",
                    job=self.job,
                    ending=ending,
                    listeners=listeners,
                )
            end_running(self.trials, "" if ending.reason == INTERRUPTION else ending.reason, listeners)
            journal.closed(is_finished=not ending.reason)
            return self._finish(ending)
        except BaseException:  # a bug of ours, or one more Ctrl-C: no run is left as if it still went on
            end_running(self.trials, "the job broke off", listeners)
            self.recorder.job_ended("FAILED", {"status": "failed"})
            self.recorder.close()
            raise

    def _finish(self, ending: Ending) -> Result:
        """The winner, its test, and the end of the record."""
        best = winner(self.trials, self.spec.objectives)
        test, confusion = self._test(best) if best and ending.reason != INTERRUPTION else ({}, {})
        status = self._status(ending, best)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cluster.disconnect)  # its processes end while the record is finished
            self._record(best, test, confusion, status, ending.reason)
        return Result(
            spec=self.spec,
            trials=self.trials,
            winner=best,
            test=test,
            folder=self.folder,
            links=self.links,
            status=status,
            ended_early=ending.reason,
            seconds=time.time() - self.began,
            record_failure=self.recorder.failure,
        )

    def _status(self, ending: Ending, best: Trial | None) -> int:
        if ending.reason == INTERRUPTION:
            return INTERRUPTED
        return FAILED if best is None or any(trial.status == "failed" for trial in self.trials) else OK

    def _test(self, best: Trial) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
        """The winner, and only the winner, on the test set."""
        from tuner.trainable import test

        if best.checkpoint is None or not isinstance(best.config, TrialConfig):
            return {}, {}  # only its own code knows how a function of the user's own is tested
        if self.local:  # a worker of its own would only import torch once more
            return test(best.checkpoint, self.share.threads * self.share.slots, {})
        import ray

        # On a cluster the driver may have no data and no GPU.
        remote = ray.remote(num_cpus=self.share.cpu, num_gpus=self.share.gpu)(test)
        carried = imports.packed(best.config.targets)
        measured, confusion = ray.get(remote.remote(best.checkpoint, self.share.threads, carried))
        return measured, confusion

    def _record(
        self,
        best: Trial | None,
        test: dict[str, float],
        confusion: dict[str, Any],
        status: int,
        ended_early: str,
    ) -> None:
        """The job's end in MLflow: the answer on the parent run, the tables and the plots beside it."""
        objectives = self.spec.objectives
        on_front = front(self.trials, objectives)
        summary: dict[str, Any] = {"status": {OK: "completed", INTERRUPTED: "interrupted"}.get(status, "failed")}
        summary |= {"ended_early": ended_early} if ended_early else {}
        for outcome in ("completed", "pruned", "failed", "diverged"):
            summary[f"trials_{outcome}"] = sum(trial.status == outcome for trial in self.trials)
        if best:
            values = {f"best_{o.metric}": o.of(best.best_report) for o in objectives}
            summary |= values | {"best_epoch": best.best_epoch} | test
            summary |= {"winner": str(best.number), "winner_is": label(best.best_assignment)}
            self.recorder.winner_tested(best, test)
        with tempfile.TemporaryDirectory(prefix="tuner-") as name:
            artifacts = Path(name)
            report.write_tables(self.trials, objectives, artifacts)
            for target, matrix in confusion.items():
                report.draw_confusion(matrix, target, artifacts)
            if on_front:
                report.draw_front(self.trials, objectives, artifacts)
            mlflow_status = {OK: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED")
            self.recorder.job_ended(mlflow_status, summary, artifacts, best, on_front)
            self.recorder.close()


@contextmanager
def _ending_cleanly(ending: Ending, display: Display) -> Iterator[None]:
    """The first Ctrl-C ends the job cleanly, the second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: object) -> None:
        ending.reason = INTERRUPTION
        signal.signal(signal.SIGINT, before)
        display.say("interrupted: ending the running trials; once more to stop at once", style="yellow")

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        ending.reason = INTERRUPTION
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    from tuner.__main__ import console

    sys.argv.insert(1, "run")
    console()
