"""Run a job on a remote cluster: upload the experiment's folder by Ray's Jobs API, and follow the job's log."""

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
from tuner.jobs.continuation import ResumeOptions
from tuner.jobs.result import FAILED, INTERRUPTED, OK, WRONG
from tuner.process.signals import on_signal, stop
from tuner.ray_backend.cluster import jobs_client, working_dir
from tuner.ray_backend.cluster.jobs_client import follow
from tuner.ray_backend.cluster.working_dir import Package, package_of
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.source import read
from tuner.storage.uris import local_path, masked
from tuner.tracking.health import kind_of

_AGENT_TIMEOUT = 30.0  # seconds that a head which has just started has to accept jobs
_STOP_TIMEOUT = 120  # seconds that a stopped job has to complete its record; Ray's default is 3


def submit(
    spec: ExperimentSpec,
    file: Path,
    overrides: Sequence[str],
    address: str,
    *,
    console: Console,
    **continuation: Any,
) -> int:
    """Run an experiment on a cluster, and follow it to its end.

    Args:
        spec: The experiment, from `tuner.spec.loader.load`.
        file: Its file, whose folder is uploaded.
        overrides: The overrides of the command line.
        address: The dashboard of the cluster's head, ``http://HOST:8265``.
        console: Where to print; if it is a terminal, the job draws its display for a terminal of that size.
        continuation: The fields of `tuner.jobs.continuation.ResumeOptions`.

    Returns:
        The exit status of the job; INTERRUPTED if this process was interrupted and the job continues.

    Raises:
        UserError: The file or an option cannot work on the cluster. Nothing was uploaded.
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
    for outside in package.missing:
        hint = "install it on the nodes of the cluster"
        say(f"{outside} lies outside of {package.folder} and is not uploaded: {hint}", "yellow")
    command = ["tuner", "run", str(file.resolve().relative_to(package.root)), "--address", "auto"]
    command += ResumeOptions(**continuation).flags() + list(overrides)
    entrypoint = shlex.join(["exec", *(["env", *_terminal(console)] if console.is_terminal else []), *command])
    try:
        _upload(client, package, job, entrypoint)
    except KeyboardInterrupt:
        say(f"interrupted during the upload: the job has not begun, unless Ray lists it\n{commands}", "yellow")
        return INTERRUPTED
    except (RuntimeError, OSError) as error:
        raise jobs_client.refused(address, f"the job was rejected: {str(error).splitlines()[0]}", "") from None
    say(f"job {job}: {package}")
    say(f"dashboard: {commands.address}/#/jobs/{job}")
    try:
        with on_signal(stop):
            details = follow(client, job)
    except KeyboardInterrupt:
        console.show_cursor()  # the job's display has hidden it
        say(f"\nthe job continues on the cluster\n{commands}", "yellow")
        return INTERRUPTED
    except ConnectionError as error:
        console.show_cursor()
        say(f"\nlost the connection to the job, which may continue: {error}\n{commands}", "red")
        return FAILED
    return _status(details, say)


def _check(spec: ExperimentSpec, file: Path, overrides: Sequence[str], address: str) -> None:
    """Check what cannot work on a cluster, or should not be sent to one.

    Raises:
        UserError: There is such a thing.
    """
    problems = []
    source = read(file, overrides)
    storage = str(source.data.get("storage", ""))
    if "://" not in storage and not Path(storage).expanduser().is_absolute():
        message = f"{storage or 'the default'} is relative: Ray would delete it with the job's working directory"
        hint = (
            "choose a storage that all nodes reach: storage=s3://BUCKET/runs, or a shared folder, storage=/shared/runs"
        )
        problems.append(Problem(message, "storage", source.where(("storage",)), hint))
    uri = spec.tracking.uri or ""
    if uri and kind_of(uri, "tracking.uri") in ("sqlite", "file") and not _is_absolute(uri):
        message = f"{masked(uri)} is relative: Ray would delete it with the job's working directory"
        hint = "give an absolute path or a server's address, or set MLFLOW_TRACKING_URI in the environment of the head"
        problems.append(Problem(message, "tracking.uri", source.where(("tracking", "uri")), hint))
    for override in overrides:
        if masked(override) != override:
            message = "all users of the head, and its dashboard, can read a password on the command line"
            hint = "set MLFLOW_TRACKING_URI in the environment of the head instead, or write it into the file"
            problems.append(Problem(message, override.partition("=")[0], "command line", hint))
    problems += jobs_client.problems_of(address)
    if problems:
        raise UserError(*problems)


def _package(spec: ExperimentSpec, file: Path) -> Package:
    """Return the package of the folder of an experiment's file.

    Raises:
        UserError: The package lacks the file or code that the trials need, or it is too large.
    """
    file = file.resolve()
    package = package_of(file.parent, spec.trial.targets)
    if file not in package.files.values():
        hint = "a .gitignore or .rayignore names it: remove that line, or move the file"
        raise UserError(Problem("the file would not be uploaded", "--submit", str(file), hint))
    if missing := [str(each.relative_to(file.parent)) for each in package.missing if each.is_relative_to(file.parent)]:
        hint = "a .gitignore or .rayignore names it, or it lies behind a link to a folder, which is not followed"
        message = f"trials need {', '.join(missing)}, which would not be uploaded"
        raise UserError(Problem(message, "--submit", str(file.parent), hint))
    if why := package.too_large():
        hint = "name in a .gitignore or .rayignore what trials do not need; put data where all nodes reach it"
        raise UserError(Problem(why, "--submit", str(file.parent), hint))
    return package


def _is_absolute(uri: str) -> bool:
    return local_path(uri).is_absolute()


def _upload(client: Any, package: Package, job: str, entrypoint: str) -> None:
    with working_dir.written(package) as archive:
        # Ray's process that stops the job has the job's environment, and reads from it how long it waits.
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_TIMEOUT)}
        runtime_env = {"working_dir": archive, "env_vars": environment}
        deadline = time.monotonic() + _AGENT_TIMEOUT
        while True:
            try:
                client.submit_job(entrypoint=entrypoint, submission_id=job, runtime_env=runtime_env)
                return
            except RuntimeError as error:
                # The dashboard of a new cluster answers before the agent that starts jobs is available.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)


def _terminal(console: Console) -> Iterator[str]:
    """Yield environment variables that make the job draw for this terminal and its current size, into its log."""
    yield "TTY_COMPATIBLE=1"
    yield f"COLUMNS={console.width}"
    yield f"LINES={console.height}"
    for name, default in {"TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": ""}.items():
        if value := os.environ.get(name, default):
            yield f"{name}={value}"


@dataclass(frozen=True)
class _Commands:
    """Ray's commands to follow a job and to stop it, for the user to type."""

    job: str
    address: str

    def __str__(self) -> str:
        return (
            f"  follow it: ray job logs --follow {self.job} --address {self.address}\n"
            f"  stop it:   ray job stop {self.job} --address {self.address}\n"
            "after that, the same command with --resume continues it"
        )


def _status(details: Any, say: Callable[[str, str], None]) -> int:
    """Return the exit status of a job that has ended; print why it ended if its log does not say it."""
    status, exit_code = str(details.status.value), details.driver_exit_code
    if status == "SUCCEEDED":
        return OK
    if status == "STOPPED":
        say("the job was stopped", "yellow")
        return INTERRUPTED
    if exit_code in (FAILED, WRONG, INTERRUPTED):
        return int(exit_code)
    if exit_code == 127:  # the shell found no such command
        say("there is no command `tuner` on the head: install this project on every node of the cluster", "red")
    else:
        what = "the job could not be started" if exit_code is None else f"the job's process exited with {exit_code}"
        say(f"{what}: {details.message}", "red")
    return FAILED
