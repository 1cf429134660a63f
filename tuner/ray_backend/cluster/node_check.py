"""Checks of the nodes of a cluster before the first trial, so that a misconfigured node shows before the job runs."""

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

_WARN_AFTER, _GIVE_UP_AFTER = 60, 600  # seconds without an answer of a node until a warning; and then until an error
_LOSS_TIMEOUT = 5.0  # seconds that Ray needs to notice that a node is lost
_PACKAGES = ("ray", "torch", "torchvision")
_SAME = "install the same on every node: constraints.txt has the versions"
_OUT = "repair the node, or remove it from the cluster"
_FOLDER = "it is not uploaded: every node has to see it, at the same path"
_SHARED = "every node has to see the same: a shared folder (NFS), or a URI such as s3://bucket/folder"


@dataclass(frozen=True)
class NodeTask:
    """What a node has to check."""

    trial: AnyTrial
    user_folder: UserFolder | None
    """Where the user's own code is; None if the trial needs none."""
    read: str
    """A file in the storage that the driver has written."""
    write: str
    """A file in the storage to write."""
    gpu: float = 0.0
    """GPUs of a trial, or its share of one."""


@dataclass(frozen=True)
class NodeReport:
    """The versions on a node, and its problems."""

    versions: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check(
    spec: ExperimentSpec,
    nodes: Sequence[NodeResources],
    user_folder: UserFolder | None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    gpu: float = 0.0,
) -> list[NodeResources]:
    """Check that each node can run the experiment's trials. It takes seconds, and longer if a node downloads the data.

    A node that is lost meanwhile, as spot instances are, is reported and ignored.

    Args:
        spec: The experiment, with the dataset that is available.
        nodes: The nodes on which trials may run.
        user_folder: Where they find the user's own code; None if the trials need none.
        say: Called with a line for each check that passed.
        warn: Called with a line for each node that does not answer or is lost.
        gpu: GPUs of a trial, or its share of one.

    Returns:
        The nodes that are not lost.

    Raises:
        UserError: A node cannot run the trials; with a problem for each mistake on each node.
    """
    import ray
    from ray import cloudpickle

    if {node.id for node in nodes} <= {ray.get_runtime_context().get_node_id()}:
        return list(nodes)  # the driver's own node needs no check
    here = versions()
    problems: list[Problem] = []
    with _probes(spec.storage, len(nodes)) as (read, *written):
        tasks = [cloudpickle.dumps(NodeTask(spec.trial, user_folder, read, write, gpu)) for write in written]
        reports = zip(nodes, written, _reports(nodes, tasks, warn), strict=True)
        alive = [(node, write, report) for node, write, report in reports if report is not None]
        for node, write, report in alive:
            wrong = [
                Problem(f"{name} is {report.versions[name]}, but {version} here", hint=_SAME)
                for name, version in here.items()
                if report.versions.get(name, version) != version
            ]
            wrong += report.problems
            if not wrong and not _exists(write):
                wrong.append(Problem("the driver does not find what the node has written", "storage", hint=_SHARED))
            problems += [replace(p, where=":".join(filter(None, (node.host, p.where)))) for p in wrong]
    if problems:
        raise UserError(*problems)
    if not alive:
        return []
    say(f"{len(alive)} nodes have the same {', '.join(f'{name} {version}' for name, version in here.items())}")
    say("each imports the trial's code")
    say(f"each reads and writes {masked(spec.storage)}")
    if data := spec.trial.describe_data():
        say(f"each has the data: {data.name}")
    return [node for node, _, _ in alive]


def versions() -> dict[str, str]:
    """Return the versions on this node: numbers of two nodes are comparable if these are equal."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        found[name] = metadata.version(name).partition("+")[0]  # without the build, which differs without a GPU
    source = sha256()
    for path in sorted(Path(__file__).parents[2].rglob("*.py")):
        source.update(path.read_bytes())
    return found | {"tuner": f"{__version__} ({source.hexdigest()[:6]})"}


def look(task: bytes) -> NodeReport:
    """Check on this node what its trials will do: import code, read the data, read and write the storage.

    Args:
        task: A pickled `NodeTask`.
    """
    from ray import cloudpickle

    report = NodeReport(versions())
    checks: NodeTask = cloudpickle.loads(task)
    try:
        if checks.user_folder is not None:
            checks.user_folder.enter()
        for target in checks.trial.targets:
            user_code.resolve(target)
        trial = type(checks.trial).model_validate(checks.trial.model_dump(mode="json"))
    except Mistakes as mistakes:
        hint = "install what it imports on every node"
        report.problems.extend(Problem(problem.message, "trial", hint=hint) for problem in mistakes.problems)
    except ValidationError as error:
        report.problems.extend(replace(p, key=f"trial.{p.key}") for p in problems_of(error, type(checks.trial)))
    except OSError as error:
        report.problems.append(Problem(f"the experiment's folder cannot be used: {error}", "trial", hint=_FOLDER))
    else:
        report.problems.extend(_data(trial))
        try:
            trial.check_node(checks.gpu)
        except UserError as error:
            report.problems.extend(error.problems)
    report.problems.extend(_storage(checks))
    return report


def _data(trial: AnyTrial) -> list[Problem]:
    """Download the data if it is missing; return the problems."""
    try:
        prepared, message = trial.prepare()
    except UserError as error:
        return error.problems
    return [] if prepared == trial else [Problem(f"it would be another dataset: {message}", "trial.data")]


def _storage(task: NodeTask) -> list[Problem]:
    try:
        if not _exists(task.read):
            return [Problem("the node does not find what the driver has written", "storage", hint=_SHARED)]
        _write(task.write)
    except OSError as error:
        return [Problem(f"it cannot be used: {error}", "storage", hint=_SHARED)]
    return []


def _reports(
    nodes: Sequence[NodeResources], tasks: Sequence[bytes], warn: Callable[[str], None]
) -> list[NodeReport | None]:
    """Return the report of each node; None of a node that is lost."""
    import ray

    answers = connection.call_on_nodes(nodes, _portable_look(), tasks)
    late = ray.wait(answers, num_returns=len(answers), timeout=_WARN_AFTER)[1]
    if late:
        hosts = ", ".join(node.host for node, answer in zip(nodes, answers, strict=True) if answer in late)
        warn(f"waiting for {hosts}: no answer for {_WARN_AFTER} s; it may be downloading the data")
        late = ray.wait(answers, num_returns=len(answers), timeout=_GIVE_UP_AFTER)[1]
    reports: list[NodeReport | None] = []
    for node, answer in zip(nodes, answers, strict=True):
        try:
            reports.append(ray.get(answer, timeout=0 if answer in late else None))
        except ray.exceptions.GetTimeoutError:
            ray.cancel(answer, force=True)
            problem = Problem(f"no answer for {_WARN_AFTER + _GIVE_UP_AFTER} s", hint=_OUT)
            reports.append(NodeReport(problems=[problem]))
        except ray.exceptions.RayError as error:
            if _is_lost(node):
                warn(f"{node.host} is lost")
                reports.append(None)
                continue
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            reports.append(NodeReport(problems=[Problem(f"Ray cannot run anything there: {last}", hint=_OUT)]))
    return reports


def _is_lost(node: NodeResources) -> bool:
    give_up = time.monotonic() + _LOSS_TIMEOUT
    while node.id in (alive := {other.id for other in connection.nodes()}) and time.monotonic() < give_up:
        time.sleep(0.5)
    return node.id not in alive


def _portable_look() -> Callable[[bytes], Any]:
    """Return `look` as a nested function, which Ray pickles by value: the node may have another version of tuner."""

    def call_look(task: bytes) -> Any:
        from tuner.ray_backend.cluster import node_check

        return node_check.look(task)

    return call_look


@contextlib.contextmanager
def _probes(storage: str, count: int) -> Iterator[list[str]]:
    """Yield names of files in the storage: the first one, which is written here, and one for each node.

    The files are deleted afterwards.
    """
    base, word = storage, secrets.token_hex(8)
    if "://" not in base:  # the folder itself is created when the job begins
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
