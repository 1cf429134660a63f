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
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuner import cluster, preflight, tracking
from tuner.display import Display
from tuner.spec import ExperimentSpec
from tuner.trials import Listener, Trial, label, leaderboard, winner

if TYPE_CHECKING:
    from tuner.schedule import Stop

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done; the job failed, at least in part; what the user gave is wrong; interrupted."""


@dataclass(frozen=True)
class Result:
    """What a job leaves behind.

    Args:
        spec: The experiment as it was run.
        trials: Every trial of the plan, by number.
        winner: The best trial that neither failed nor diverged; None where there is none.
        test: The winner's metrics on the test set, by their full names.
        folder: The job's folder, or its URI.
        links: Where the record is.
        status: Exit status.
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
    seconds: float
    record_failure: Exception | None


def run(
    spec: ExperimentSpec, *, source: Path = Path(), address: str | None = None, console: Console | None = None
) -> Result:
    """Run an experiment to its end.

    Args:
        spec: The experiment, as `tuner.spec.load` gives it.
        source: Its file, or the folder that it belongs to; the record names its git commit.
        address: A Ray cluster; None for RAY_ADDRESS, else a fresh local Ray.
        console: Where to write; None for standard output.

    Raises:
        UserError: Something that the user gave cannot work. Nothing was started or written.
    """
    console = console or Console()
    began = time.time()
    address = cluster.address_of(address)
    spec, trials, uri = prepare(spec, console, address)
    job = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = job_folder(spec, job)
    recorder = tracking.Recorder(spec, uri)
    open_record = partial(recorder.open, job, folder, source, len(trials))
    try:
        if address is None:
            # MLflow and Ray Tune take as long as Ray to start: seconds that pass side by side.
            with ThreadPoolExecutor(2) as pool:
                opening = pool.submit(open_record)
                pool.submit(import_module, "tuner.schedule")
                capacity = cluster.connect(None)
                links = opening.result()
            share = cluster.share(spec.resources, capacity, len(trials))
        else:  # it may refuse us: nothing is recorded before it has not
            share = cluster.share(spec.resources, cluster.connect(address), len(trials))
            links = open_record()
        return _Job(spec, trials, share, job, folder, recorder, links, console, began, address is None).run()
    finally:
        cluster.disconnect()


def prepare(spec: ExperimentSpec, console: Console, address: str | None) -> tuple[ExperimentSpec, list[Trial], str]:
    """Everything that can be known before anything is started: store, storage, data, plan, resources of this machine.

    Returns:
        The experiment with the dataset that there is, its trials, and the tracking URI.
    """
    uri = preflight.tracking_uri(spec)
    preflight.check_store(uri)
    preflight.check_storage(spec.storage)
    data, message = spec.trial.data.prepare()
    if message:
        console.print(f"[yellow]{message}[/]", soft_wrap=True)
    spec = spec.with_data(data)
    trials = plan(spec)
    if cluster.address_of(address) is None:
        cluster.share(spec.resources, cluster.local_capacity(), len(trials))
    return spec, trials, uri


def plan(spec: ExperimentSpec) -> list[Trial]:
    """The trials of an experiment, none of them begun."""
    return [
        Trial(number, assignment, spec.trial_config(assignment), label(assignment))
        for number, assignment in enumerate(spec.plan())
    ]


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
    trials: list[Trial]
    share: cluster.Share
    job: str
    folder: str
    recorder: tracking.Recorder
    links: tracking.Links
    console: Console
    began: float
    local: bool
    """Whether Ray was started here, for this job alone."""

    def run(self) -> Result:
        from tuner.schedule import Stop, schedule

        stop = Stop(self.spec.timeout)
        display = Display(self.console, self.spec.name, self.spec.objective, self.trials)
        listeners: list[Listener] = [self.recorder, display]
        threading.Thread(target=_import_ahead, daemon=True).start()
        try:
            with display, _ending_cleanly(stop, display):
                schedule(
                    self.trials,
                    self.share,
                    self.spec.objective,
                    storage=f"{self.spec.storage.rstrip('/')}/{self.spec.name}",
                    job=self.job,
                    stop=stop,
                    listeners=listeners,
                )
            self._end_running("" if stop.reason == "interrupted" else stop.reason, listeners)
            return self._finish(stop.reason)
        except BaseException:  # a bug of ours, or one more Ctrl-C: no run is left as if it still went on
            self._end_running("the job broke off", listeners)
            self.recorder.job_ended("FAILED", {"status": "failed"})
            self.recorder.close()
            raise

    def _end_running(self, reason: str, listeners: Sequence[Listener]) -> None:
        from tuner.schedule import end

        for trial in self.trials:
            if trial.status == "running":
                end(trial, "interrupted", reason, listeners)

    def _finish(self, stopped: str) -> Result:
        """The winner, its test, and the end of the record. `stopped`: why the job was ended early, if it was."""
        best = winner(self.trials, self.spec.objective)
        test, confusion = self._test(best) if best and stopped != "interrupted" else ({}, {})
        status = self._status(stopped, best)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cluster.disconnect)  # its processes end while the record is finished
            self._record(best, test, confusion, status)
        return Result(
            spec=self.spec,
            trials=self.trials,
            winner=best,
            test=test,
            folder=self.folder,
            links=self.links,
            status=status,
            seconds=time.time() - self.began,
            record_failure=self.recorder.failure,
        )

    def _status(self, stopped: str, best: Trial | None) -> int:
        if stopped == "interrupted":
            return INTERRUPTED
        return FAILED if best is None or any(trial.status == "failed" for trial in self.trials) else OK

    def _test(self, best: Trial) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
        """The winner, and only the winner, on the test set."""
        from tuner.trainable import test

        assert best.checkpoint is not None, "a completed trial has reported, and every report comes with a checkpoint"
        if self.local:  # a worker of its own would only import torch once more
            return test(best.checkpoint, self.share.threads * self.share.slots)
        import ray

        # On a cluster the driver may have no data and no GPU.
        remote = ray.remote(num_cpus=self.share.cpu, num_gpus=self.share.gpu)(test)
        measured, confusion = ray.get(remote.remote(best.checkpoint, self.share.threads))
        return measured, confusion

    def _record(self, best: Trial | None, test: dict[str, float], confusion: dict[str, Any], status: int) -> None:
        """The job's end in MLflow: the answer on the parent run, the table and the matrices beside it."""
        objective = self.spec.objective
        summary: dict[str, Any] = {"status": {OK: "completed", INTERRUPTED: "interrupted"}.get(status, "failed")}
        for outcome in ("completed", "failed", "diverged"):
            summary[f"trials_{outcome}"] = sum(trial.status == outcome for trial in self.trials)
        if best:
            summary |= {f"best_{objective.metric}": best.best, "best_epoch": best.best_epoch} | test
            summary |= {"winner": str(best.number), "winner_is": best.label}
            self.recorder.winner_tested(best, test)
        with tempfile.TemporaryDirectory(prefix="tuner-") as name:
            artifacts = Path(name)
            leaderboard(self.trials, objective).to_csv(artifacts / "leaderboard.csv", index=False)
            for target, matrix in confusion.items():
                from tuner.report import draw_confusion

                draw_confusion(matrix, target, artifacts)
            mlflow_status = {OK: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED")
            self.recorder.job_ended(mlflow_status, summary, artifacts, best)
            self.recorder.close()


@contextmanager
def _ending_cleanly(stop: "Stop", display: Display) -> Iterator[None]:
    """The first Ctrl-C ends the job cleanly, the second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: object) -> None:
        stop.reason = "interrupted"
        signal.signal(signal.SIGINT, before)
        display.say("interrupted: ending the running trials; once more to stop at once", style="yellow")

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        stop.reason = "interrupted"
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    from tuner.__main__ import console

    sys.argv.insert(1, "run")
    console()
