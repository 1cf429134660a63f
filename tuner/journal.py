"""The journal of a job: what happened to its trials, line by line, so that another run can go on from there.

It lies in the job's folder. MLflow's record is for people and written in batches; this one is written at once.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from tuner.errors import Problem, UserError
from tuner.spec import ExperimentSpec
from tuner.store import flattened
from tuner.trials import Listener, Mutation, Trial, label

_NAME = "journal.jsonl"
_LAST_WORDS = 60.0  # seconds that the record of a driver that was killed may take


@dataclass(frozen=True)
class Past:
    """An earlier run of a job.

    Args:
        job: The job's id.
        head: What was noted when it began.
        trials: Its trials by number; those that have not ended go on from their latest checkpoint.
        is_finished: Whether its search was through.
    """

    job: str
    head: dict[str, Any]
    trials: list[Trial]
    is_finished: bool
    end: dict[str, Any] = field(default_factory=dict)
    """How its record ended; empty where it did not come to that."""


class Journal(Listener):
    """Writes down what happens. A `Listener`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files, path = _files(folder)
        self._files.create_dir(path, recursive=True)
        self._path = f"{path}/{_NAME}"
        self._is_local = "://" not in folder
        there = _text(folder) if _exists(folder) else ""
        # Where an earlier run was killed in the middle of a line, the next one must not go on in it.
        cut_off = "\n" if there and not there.endswith("\n") else ""
        # Object stores cannot append: there the whole is written again, whenever a trial begins or ends.
        self._lines = [there + cut_off]
        if self._is_local and cut_off:
            self._append(cut_off)

    def opened(self, spec: ExperimentSpec, **more: Any) -> None:
        """The job has begun, or begun again."""
        self._write("opened", spec=_plain(spec), **more)

    def closed(self, is_finished: bool) -> None:
        """The job has ended. `is_finished`: its search was through."""
        self._write("closed", finished=is_finished)

    def recorded(self, end: Mapping[str, Any]) -> None:
        """The record is about to end, and how: what the tracking server does not take now can be made up for."""
        self._write("recorded", end=end)

    def trial_started(self, trial: Trial) -> None:
        """Write down that a trial has begun, and its configuration."""
        what = {"assignment": trial.assignment, "seed": trial.config.seed}
        self._write("started", trial=trial.number, epoch=trial.epoch, **what)

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Write down an epoch's metrics."""
        self._write("reported", trial=trial.number, report=report, time=trial.updated)

    def trial_saved(self, trial: Trial) -> None:
        """Write down where the latest checkpoint is, and the best one."""
        self._write("saved", trial=trial.number, latest=trial.latest, epoch=trial.latest_epoch, best=trial.checkpoint)

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """Write down what a population made of a trial."""
        self._write("mutated", trial=trial.number, latest=trial.latest, **asdict(mutation))

    def trial_ended(self, trial: Trial) -> None:
        """Write down how a trial ended, and what the sampler noted on it."""
        self._write(
            "ended",
            trial=trial.number,
            status=trial.status,
            reason=trial.reason,
            traceback=trial.traceback,
            violations=trial.violations,
            attributes=trial.attributes,
            best=trial.checkpoint,
        )

    def _write(self, event: str, **more: Any) -> None:
        line = json.dumps({"event": event, "time": time.time()} | more, default=str) + "\n"
        if self._is_local:
            self._append(line)
            return
        self._lines.append(line)
        if event not in ("reported", "saved"):
            with self._files.open_output_stream(self._path) as stream:
                stream.write("".join(self._lines).encode())

    def _append(self, text: str) -> None:
        with self._files.open_append_stream(self._path) as stream:
            stream.write(text.encode())


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[int | None]:
    """Keep a job's folder to oneself: two drivers of one job would train its trials twice.

    Args:
        folder: The job's folder. Of one that is a URI everybody has to see to that themselves.

    Yields:
        The descriptor that holds the folder, also for processes that inherit it; None where nothing does.

    Raises:
        UserError: Another process has it.
    """
    if "://" in folder:
        yield None
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Path(folder, ".lock").open("a+") as lock:
        deadline = time.monotonic() + _LAST_WORDS
        while not _locked(lock):
            lock.seek(0)
            driver = lock.read().strip()
            if not driver or psutil.pid_exists(int(driver)) or time.monotonic() > deadline:
                hint = "wait until it has ended, or end it with Ctrl-C"
                raise UserError(Problem("the job is still running", where=folder, hint=hint))
            time.sleep(0.2)  # its driver was killed, and what that had said is still being written
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which ends with its processes, however they end
    except OSError:
        return False
    return True


def last_job(storage: str, name: str) -> str:
    """The last job of an experiment, by its id.

    Raises:
        UserError: There is none.
    """
    from pyarrow.fs import FileSelector

    folder = f"{storage.rstrip('/')}/{name}"
    files, path = _files(folder)
    found = files.get_file_info(FileSelector(path, recursive=False, allow_not_found=True))
    jobs = [info.base_name for info in found if _exists(f"{folder}/{info.base_name}")]
    if not jobs:
        hint = "run it without --resume and --extend, or say with storage=... where it was run"
        raise UserError(Problem(f"no job of {name!r} was begun there", "--resume", folder, hint))
    return str(max(jobs))  # an id begins with its time


def read_past(spec: ExperimentSpec, folder: str, job: str, *, goes_on: bool = True) -> Past:
    """What the journal in a job's folder tells.

    Args:
        spec: The experiment.
        folder: The job's folder.
        job: The job's id.
        goes_on: Whether its trials are to go on: those that had not ended begin again at their latest checkpoint.

    Raises:
        UserError: The experiment is another one now, or nothing was written.
    """
    where = f"{folder}/{_NAME}"
    events = list(_events(_text(folder)))
    if not events:
        hint = "run it without --resume: as a job of its own"
        raise UserError(Problem("the job was ended before anything of it was written", "--resume", where, hint))
    head = [event for event in events if event["event"] == "opened"][-1]
    _check_same(spec, head["spec"], where)
    trials: dict[int, Trial] = {}
    finished = False
    end: dict[str, Any] = {}
    for event in events[1:]:
        if "trial" not in event:
            finished, end = event.get("finished", finished and event["event"] == "recorded"), event.get("end", {})
            continue
        is_new = event["trial"] not in trials
        if is_new:
            trials[event["trial"]] = _begun(spec, event)
        trial = trials[event["trial"]]
        match event["event"]:
            case "started" if not is_new:
                _rewind(trial, event["epoch"], spec)
                trial.status, trial.started, trial.resumed = "running", event["time"], trial.resumed + 1
            case "reported":
                trial.take(event["report"], spec.objective, event["time"])
                trial.reports.append((event["report"], event["time"]))
            case "saved":
                trial.latest, trial.latest_epoch, trial.checkpoint = event["latest"], event["epoch"], event["best"]
            case "mutated":
                mutation = Mutation(event["epoch"], event["parent"], event["before"], event["after"])
                config = spec.trial_config(mutation.after).model_copy(update={"seed": trial.config.seed})
                trial.mutate(mutation, config, event["latest"])
            case "ended":
                trial.status, trial.reason, trial.traceback = event["status"], event["reason"], event["traceback"]
                trial.violations, trial.attributes = event["violations"], event["attributes"]
                trial.checkpoint, trial.ended = event["best"], event["time"]
    for trial in trials.values() if goes_on else ():
        if trial.status in ("running", "interrupted"):
            if trial.latest is not None and not _is_there(trial.latest):
                trial.latest, trial.latest_epoch = None, 0
            _rewind(trial, trial.latest_epoch, spec)
            trial.status, trial.started, trial.resumed = "pending", None, trial.resumed + 1
    return Past(job, head, [trials[number] for number in sorted(trials)], finished, end)


def _rewind(trial: Trial, epoch: int, spec: ExperimentSpec) -> None:
    """Make a trial one that goes on after `epoch`: what it reported later is reported again."""
    trial.reason, trial.ended = "", None
    trial.reports = [(report, when) for report, when in trial.reports if report["epoch"] <= epoch]
    trial.epoch, trial.best, trial.best_report, trial.best_assignment, trial.series = 0, None, {}, {}, {}
    if epoch == 0:
        trial.mutations = []  # it begins as what it has become
    for report, when in trial.reports:
        trial.take(report, spec.objective, when)
    if trial.best is None:
        trial.checkpoint = None


def _begun(spec: ExperimentSpec, event: dict[str, Any]) -> Trial:
    assignment = event["assignment"]
    config = spec.trial_config(assignment).model_copy(update={"seed": event["seed"]})
    return Trial(event["trial"], assignment, config, label(assignment), status="running", started=event["time"])


def _events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off by the end of its writer


_MAY_CHANGE = (
    *("resources.", "timeout", "stop.", "budget.", "tracking.", "storage"),
    *("search.trials", "search.warm_start"),
)
"""Parts of an experiment that decide nothing about a trial's numbers."""


def _check_same(spec: ExperimentSpec, before: dict[str, Any], where: str) -> None:
    """Trials of two different experiments are not to be compared."""
    now, then = (flattened(each) for each in (json.loads(json.dumps(_plain(spec))), before))
    changed = [key for key in now | then if not key.startswith(_MAY_CHANGE) and now.get(key) != then.get(key)]
    hint = "undo the change, or run it without --resume: as a job of its own"
    problems = [
        Problem(f"was {_short(then.get(key))} when the job began, and is {_short(now.get(key))}", key, where, hint)
        for key in changed
    ]
    if problems:
        raise UserError(*problems)


def _plain(spec: ExperimentSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_none=True)


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _files(folder: str) -> tuple[Any, str]:
    """The file system that a folder or URI is on, and the path there."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" in folder:
        files, path = FileSystem.from_uri(folder)
        return files, path
    return LocalFileSystem(), folder


def _exists(folder: str) -> bool:
    from pyarrow.fs import FileType

    files, path = _files(folder)
    return bool(files.get_file_info(f"{path}/{_NAME}").type == FileType.File)


def _is_there(folder: str) -> bool:
    from pyarrow.fs import FileType

    files, path = _files(folder)
    return bool(files.get_file_info(path).type == FileType.Directory)


def _text(folder: str) -> str:
    files, path = _files(folder)
    with files.open_input_stream(f"{path}/{_NAME}") as stream:
        return bytes(stream.read()).decode()
