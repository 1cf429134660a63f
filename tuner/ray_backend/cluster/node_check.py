"""The machines of a cluster, looked at before the first trial: else the night finds out what is wrong with one."""

import contextlib
import platform
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner import user_code
from tuner.errors import Mistakes, Problem, UserError
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.cluster.resources import NodeResources
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.validation_errors import problems_of
from tuner.storage.filesystem import below, files_at
from tuner.storage.uris import masked
from tuner.train.trial_base import AnyTrial
from tuner.version import __version__

_PATIENCE, _MOST = 60, 600  # seconds until it is told that a machine does not answer, and until it is given up
_GOING = 5.0  # seconds in which Ray knows that a machine has gone, where that is why nothing can be run there
_PACKAGES = ("ray", "torch", "torchvision")
_SAME = "install the same on every machine: constraints.txt has the versions"
_OUT = "see to it, or leave it out of the cluster"
_FOLDER = "it does not travel: every machine has to see it, at the same path"
_SHARED = "every machine has to see the same: a shared folder (NFS), or a URI such as s3://bucket/folder"


@dataclass(frozen=True)
class NodeTask:
    """What a machine is asked to try."""

    trial: AnyTrial
    user_folder: UserFolder | None
    """Where the user's own code is, as each trial is told."""
    read: str
    """A file beside the checkpoints that was written elsewhere."""
    write: str
    """A file there to write."""


@dataclass(frozen=True)
class NodeReport:
    """What a machine has, and what is wrong with it."""

    versions: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check(
    spec: ExperimentSpec,
    machines: Sequence[NodeResources],
    user_folder: UserFolder | None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> list[NodeResources]:
    """Make sure that each machine can run the experiment's trials: seconds, and longer where it gets the data.

    One that has gone away meanwhile, as machines do that cost less, is told of, and done without.

    Args:
        spec: The experiment, with the dataset that there is.
        machines: Those that trials may run on.
        user_folder: Where they find the user's own code; None where they need none.
        say: Given a line for each thing that is as it should be.
        warn: Given a line for what is waited for, or has gone.

    Returns:
        Those that are there.

    Raises:
        UserError: One cannot. It names everything that is wrong.
    """
    import ray
    from ray import cloudpickle

    if {machine.id for machine in machines} <= {ray.get_runtime_context().get_node_id()}:
        return list(machines)  # nothing that is not known already
    here = versions()
    problems: list[Problem] = []
    with _probes(spec.storage, len(machines)) as (read, *written):
        tasks = [cloudpickle.dumps(NodeTask(spec.trial, user_folder, read, write)) for write in written]
        asked = zip(machines, written, _ask(machines, tasks, warn), strict=True)
        there = [(machine, write, found) for machine, write, found in asked if found is not None]
        for machine, write, found in there:
            wrong = [
                Problem(f"{name} is {found.versions[name]}, but {version} here", hint=_SAME)
                for name, version in here.items()
                if found.versions.get(name, version) != version
            ]
            wrong += found.problems
            if not wrong and not _exists(write):
                wrong.append(Problem("what it writes there is not found here", "storage", hint=_SHARED))
            problems += [replace(p, where=":".join(filter(None, (machine.host, p.where)))) for p in wrong]
    if problems:
        raise UserError(*problems)
    if not there:
        return []
    say(f"{len(there)} machines alike: {', '.join(f'{name} {version}' for name, version in here.items())}")
    say("each imports the trial's code")
    say(f"each reads and writes {masked(spec.storage)}")
    if data := spec.trial.describe_data():
        say(f"each has the data: {data.name}")
    return [machine for machine, _, _ in there]


def versions() -> dict[str, str]:
    """What runs here: numbers that others measured can be compared with ours where they have the same."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        found[name] = metadata.version(name).partition("+")[0]  # a machine without a GPU has another build
    source = sha256()
    for path in sorted(Path(__file__).parents[2].rglob("*.py")):
        source.update(path.read_bytes())
    return found | {"tuner": f"{__version__} ({source.hexdigest()[:6]})"}


def look(task: bytes) -> NodeReport:
    """Try on this machine what its trials will do."""
    from ray import cloudpickle

    found = NodeReport(versions())
    told: NodeTask = cloudpickle.loads(task)
    try:
        if told.user_folder is not None:
            told.user_folder.enter()
        for target in told.trial.targets:
            user_code.resolve(target)
        trial = type(told.trial).model_validate(told.trial.model_dump(mode="json"))
    except Mistakes as mistakes:
        hint = "install what it imports on every machine"
        found.problems.extend(Problem(problem.message, "trial", hint=hint) for problem in mistakes.problems)
    except ValidationError as error:
        found.problems.extend(replace(p, key=f"trial.{p.key}") for p in problems_of(error, type(told.trial)))
    except OSError as error:
        found.problems.append(Problem(f"the experiment's folder cannot be used: {error}", "trial", hint=_FOLDER))
    else:
        found.problems.extend(_data(trial))
    found.problems.extend(_storage(told))
    return found


def _data(trial: AnyTrial) -> list[Problem]:
    """Get the data, where it is not here. What is wrong with it."""
    try:
        prepared, message = trial.prepare()
    except UserError as error:
        return error.problems
    return [] if prepared == trial else [Problem(f"it would be another dataset: {message}", "trial.data")]


def _storage(task: NodeTask) -> list[Problem]:
    try:
        if not _exists(task.read):
            return [Problem("what the driver writes there is not found", "storage", hint=_SHARED)]
        _write(task.write)
    except OSError as error:
        return [Problem(f"it cannot be used: {error}", "storage", hint=_SHARED)]
    return []


def _ask(
    machines: Sequence[NodeResources], tasks: Sequence[bytes], warn: Callable[[str], None]
) -> list[NodeReport | None]:
    """What each machine found; None of one that has gone."""
    import ray

    asked = connection.ask(machines, _looking(), tasks)
    late = ray.wait(asked, num_returns=len(asked), timeout=_PATIENCE)[1]
    if late:
        hosts = ", ".join(machine.host for machine, answer in zip(machines, asked, strict=True) if answer in late)
        warn(f"waiting for {hosts}: no answer for {_PATIENCE} s; it may be downloading the data")
        late = ray.wait(asked, num_returns=len(asked), timeout=_MOST)[1]
    found: list[NodeReport | None] = []
    for machine, answer in zip(machines, asked, strict=True):
        try:
            found.append(ray.get(answer, timeout=0 if answer in late else None))
        except ray.exceptions.GetTimeoutError:
            ray.cancel(answer, force=True)
            found.append(NodeReport(problems=[Problem(f"no answer for {_PATIENCE + _MOST} s", hint=_OUT)]))
        except ray.exceptions.RayError as error:
            if _has_gone(machine):
                warn(f"{machine.host} has gone away")
                found.append(None)
                continue
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            found.append(NodeReport(problems=[Problem(f"nothing can be run there: {last}", hint=_OUT)]))
    return found


def _has_gone(machine: NodeResources) -> bool:
    give_up = time.monotonic() + _GOING
    while machine.id in (alive := {other.id for other in connection.machines()}) and time.monotonic() < give_up:
        time.sleep(0.5)
    return machine.id not in alive


def _looking() -> Callable[[bytes], Any]:
    """`look`, for a machine that may not have it: a function in a function travels whole."""

    def looking(task: bytes) -> Any:
        from tuner.ray_backend.cluster import node_check

        return node_check.look(task)

    return looking


@contextlib.contextmanager
def _probes(storage: str, count: int) -> Iterator[list[str]]:
    """Names of files where checkpoints will be, the first one written and one for each machine. Gone afterwards."""
    base, word = storage, secrets.token_hex(8)
    if "://" not in base:  # the folder is made when the job begins, not before
        base = str(next(folder for folder in (Path(base), *Path(base).parents) if folder.exists()))
    first = below(base, f".tuner-{word}")
    names = [first, *(below(base, f".tuner-{word}-{number}") for number in range(count))]
    try:
        _write(first)
    except OSError as error:
        raise UserError(Problem(f"it cannot be written: {error}", "storage", masked(storage))) from None
    try:
        yield names
    finally:
        for name in names:
            with contextlib.suppress(OSError):  # it was never written
                files, path = files_at(name)
                files.delete_file(path)


def _write(name: str) -> None:
    files, path = files_at(name)
    with files.open_output_stream(path) as stream:
        stream.write(socket.gethostname().encode())


def _exists(name: str) -> bool:
    files, path = files_at(name)
    return bool(files.get_file_info(path).is_file)
