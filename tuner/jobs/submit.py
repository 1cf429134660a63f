"""A job on a cluster from somewhere else: ship the experiment's folder by Ray's Jobs API, and follow the log."""

import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner.errors import Problem, UserError
from tuner.exit_status import FAILED, INTERRUPTED, OK, WRONG
from tuner.jobs.continuation import ResumeOptions
from tuner.ray_backend import jobs_client, working_dir
from tuner.ray_backend.jobs_client import follow
from tuner.ray_backend.working_dir import Package, package_of
from tuner.signals import on_signal, stop
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.source import read
from tuner.storage.uris import local_path, masked
from tuner.tracking.health import kind_of

_AGENT = 30.0  # seconds that a head which has just come up has to begin jobs
_LAST_WORDS = 120  # seconds that a job which is stopped has for the end of its record; Ray's own default is 3


def submit(
    spec: ExperimentSpec,
    file: Path,
    overrides: Sequence[str],
    address: str,
    *,
    console: Console,
    **going_on: Any,
) -> int:
    """Run an experiment on a cluster, and follow it to its end.

    Args:
        spec: The experiment, as `tuner.spec.loader.load` gives it.
        file: Its file; the folder that it lies in travels.
        overrides: What the command line sets, there as here.
        address: Of the dashboard of the cluster's head, ``http://HOST:8265``.
        console: Where to write; where it is a terminal the log is drawn for one of its size.
        going_on: How an earlier job goes on there, as `tuner.jobs.continuation.ResumeOptions` has it.

    Returns:
        The exit status of the job; INTERRUPTED where it goes on without us.

    Raises:
        UserError: Something that the user gave cannot work there. Nothing was shipped.
    """
    _check(spec, file, overrides, address)
    package = _package(spec, file)
    client = jobs_client.connect(address)
    job = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    commands = _Commands(job, address.rstrip("/"))

    def say(message: str, style: str = "") -> None:
        console.print(message, style=style, soft_wrap=True, markup=False, highlight=False)

    if note := working_dir.password_in(spec):
        say(f"{note}; MLFLOW_TRACKING_URI in the environment of the head keeps it there", "yellow")
    for file_away in package.missing:
        hint = "the job finds it where it is installed on the machines there"
        say(f"{file_away} lies outside of {package.folder} and does not travel: {hint}", "yellow")
    words = ["tuner", "run", str(file.resolve().relative_to(package.root)), "--address", "auto"]
    words += ResumeOptions(**going_on).flags() + list(overrides)
    entrypoint = shlex.join(["exec", *(["env", *_terminal(console)] if console.is_terminal else []), *words])
    try:
        _ship(client, package, job, entrypoint)
    except KeyboardInterrupt:
        say(f"interrupted while it was shipped: nothing has begun, unless Ray knows of it\n{commands}", "yellow")
        return INTERRUPTED
    except (RuntimeError, OSError) as error:
        raise jobs_client.refused(address, f"it was not taken: {str(error).splitlines()[0]}", "") from None
    say(f"job {job}: {package}")
    say(f"dashboard: {commands.address}/#/jobs/{job}")
    try:
        with on_signal(stop):
            details = follow(client, job)
    except KeyboardInterrupt:
        console.show_cursor()  # which the display over there has hidden
        say(f"\nthe job goes on without us\n{commands}", "yellow")
        return INTERRUPTED
    except ConnectionError as error:
        console.show_cursor()
        say(f"\nlost sight of the job, which may go on: {error}\n{commands}", "red")
        return FAILED
    return _status(details, say)


def _check(spec: ExperimentSpec, file: Path, overrides: Sequence[str], address: str) -> None:
    """What cannot work on a cluster, or should not travel to one."""
    problems = []
    source = read(file, overrides)
    storage = str(source.data.get("storage", ""))
    if "://" not in storage and not Path(storage).expanduser().is_absolute():
        # It would lie in the folder that Ray unpacks the package into, and be deleted with it.
        message = f"{storage or 'the default'} is relative, and would be gone with the job's temporary folder"
        hint = "choose what all machines reach: storage=s3://BUCKET/runs, or a shared folder, storage=/shared/runs"
        problems.append(Problem(message, "storage", source.where(("storage",)), hint))
    uri = spec.tracking.uri or ""
    if uri and kind_of(uri, "tracking.uri") in ("sqlite", "file") and not _is_absolute(uri):
        message = f"{masked(uri)} is relative, and would be gone with the job's temporary folder"
        hint = "give an absolute path or a server's address, or set MLFLOW_TRACKING_URI in the environment of the head"
        problems.append(Problem(message, "tracking.uri", source.where(("tracking", "uri")), hint))
    for override in overrides:
        if masked(override) != override:
            message = "a password on the command line is seen by all users of the head, and on its dashboard"
            hint = "set MLFLOW_TRACKING_URI in the environment of the head instead, or write it into the file"
            problems.append(Problem(message, override.partition("=")[0], "command line", hint))
    problems += jobs_client.problems_of(address)
    if problems:
        raise UserError(*problems)


def _package(spec: ExperimentSpec, file: Path) -> Package:
    """What travels of the folder that a file lies in.

    Raises:
        UserError: The file, or code that the trials need, would stay here; or it is more than Ray takes.
    """
    file = file.resolve()
    package = package_of(file.parent, spec.trial.targets)
    if file not in package.files.values():
        hint = "a .gitignore or a .rayignore names it: take it out there, or move it"
        raise UserError(Problem("the file is among what stays here", "--submit", str(file), hint))
    if staying := [str(each.relative_to(file.parent)) for each in package.missing if each.is_relative_to(file.parent)]:
        hint = "a .gitignore or .rayignore names it, or it lies behind a link to a folder, which is not followed"
        message = f"trials need {', '.join(staying)}, which stays here"
        raise UserError(Problem(message, "--submit", str(file.parent), hint))
    if why := package.too_large():
        hint = "name in a .gitignore or .rayignore what trials do not need; data belongs where all machines see it"
        raise UserError(Problem(why, "--submit", str(file.parent), hint))
    return package


def _is_absolute(uri: str) -> bool:
    return local_path(uri).is_absolute()


def _ship(client: Any, package: Package, job: str, entrypoint: str) -> None:
    with working_dir.written(package) as archive:
        # The process that stops the job reads how long it waits from its environment, which is the job's own.
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(_LAST_WORDS)}
        runtime_env = {"working_dir": archive, "env_vars": environment}
        deadline = time.monotonic() + _AGENT
        while True:
            try:
                client.submit_job(entrypoint=entrypoint, submission_id=job, runtime_env=runtime_env)
                return
            except RuntimeError as error:
                # The dashboard of a cluster that has just been started is there before what begins its jobs.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)


def _terminal(console: Console) -> Iterator[str]:
    """What has the job draw for this terminal, at the size that it has now, though it writes to a log."""
    yield "TTY_COMPATIBLE=1"
    yield f"COLUMNS={console.width}"
    yield f"LINES={console.height}"
    for name, default in {"TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": ""}.items():
        if value := os.environ.get(name, default):
            yield f"{name}={value}"


@dataclass(frozen=True)
class _Commands:
    """What one types to follow a job and to stop it: Ray's own commands."""

    job: str
    address: str

    def __str__(self) -> str:
        return (
            f"  follow it: ray job logs --follow {self.job} --address {self.address}\n"
            f"  stop it:   ray job stop {self.job} --address {self.address}\n"
            "and once it is stopped, the same command with --resume goes on with it"
        )


def _status(details: Any, say: Callable[[str, str], None]) -> int:
    """The exit status of a job that is over; what its log cannot tell is told here."""
    status, left = str(details.status.value), details.driver_exit_code
    if status == "SUCCEEDED":
        return OK
    if status == "STOPPED":
        say("the job was stopped", "yellow")
        return INTERRUPTED
    if left in (FAILED, WRONG, INTERRUPTED):
        return int(left)
    if left == 127:  # the shell's way to say so
        say("there is no command `tuner` on the head: install this project on every machine of the cluster", "red")
    else:
        how = "the job could not be started" if left is None else f"the job's process ended with {left}"
        say(f"{how}: {details.message}", "red")
    return FAILED
