"""Prediction on a Ray cluster, for many images."""

import contextlib
import os
import socket
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tuner import user_code
from tuner.deploy.listing import Item
from tuner.deploy.model import about_of, load_model
from tuner.deploy.on_devices import OnDevices
from tuner.deploy.result import Result, Skipped
from tuner.error_text import escaped
from tuner.errors import Problem, UserError
from tuner.ray_backend.cluster import connection, working_dir
from tuner.ray_backend.cluster.resources import ClusterResources
from tuner.ray_backend.mapping import Actors, asked_of_nodes, mapped
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.tasks.predictions.base import Options
from tuner.tracking.checkpoints import checkpoint_of
from tuner.train.device import keep_freed_memory, trial_device

_AT_ONCE = 1000
"""Most images of a call of an actor: a file that is lost with its node is predicted for once more."""
_FOLDERS = 100
"""Most folders of which a node is asked whether it sees them."""


@dataclass(frozen=True)
class Asked:
    """What each node does with images.

    Args:
        options: What is asked of predictions.
        batch_size: Images that are computed at once; None for as many as in validation.
        every: Of a video, every so many frames one is predicted for; 1 for all.
        trust: The user's code that builds the model, which may be called.
    """

    options: Options
    batch_size: int | None = None
    every: int = 1
    trust: tuple[str, ...] = ()


def on_cluster(
    model: str, items: Iterable[Item], asked: Asked, address: str, targets: Collection[str] = (), uri: str | None = None
) -> Iterator[Result | Skipped]:
    """Predict what is in files on a Ray cluster, whose nodes all see the files at the same paths.

    The pipeline is that of one machine, in actors of Ray Data, each with a GPU if there are some.

    Args:
        model: What `tuner.load` takes.
        items: The files; all paths are in memory at once.
        asked: What is asked.
        address: The address of the cluster.
        targets: The user's code that builds the model, which is brought to the nodes.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Returns:
        The results, in the order of the files.

    Raises:
        UserError: The user has made a mistake, and nothing was started. Iterating raises it where a model of the user's
            own fails.
    """
    files = [replace(each, content=str(Path(each.content).absolute())) for each in items]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(checkpoint_of(model, uri))
        capacity, user_folder = _connected(address, targets)
        stack.callback(connection.disconnect)
        actors = Actors.of(capacity)
        if not actors.most:
            raise UserError(
                Problem("no node has a core for an actor", where=address, hint="ray status shows its nodes")
            )
        _check(actors, files)
        make = partial(_Predicting, asked=asked, has_gpu=actors.gpus > 0, threads=actors.cpus)
        answers = mapped(files, make, folder, actors, at_once=_AT_ONCE, user_folder=user_folder)
        return _numbered(answers, stack.pop_all())


def _numbered(answers: Generator[Result | Skipped], leaving: contextlib.ExitStack) -> Iterator[Result | Skipped]:
    """Number the answers, which say their places among those of a call, and leave the cluster at the end."""
    with leaving, contextlib.closing(answers):
        for index, answer in enumerate(answers):
            yield replace(answer, index=index)


def _connected(address: str, targets: Collection[str]) -> tuple[ClusterResources, UserFolder | None]:
    """Connect to a cluster, and bring the user's code to it."""
    if not targets:
        return connection.connect(address), None
    package = working_dir.package_of(user_code.folders()[0], tuple(targets))
    if why := package.too_large():
        raise UserError(Problem(why, "--code", hint="name a folder that has the code alone"))
    with working_dir.written(package) as archive:
        return connection.connect(address, archive), working_dir.user_folder(tuple(targets), package.root)


def _check(actors: Actors, files: Sequence[Item]) -> None:
    """Check that nodes see files that this machine sees.

    Raises:
        UserError: One does not.
    """
    there = {os.path.dirname(each.content): each for each in files if not each.fault}  # noqa: PTH120 - of millions
    some = [each.content for each in list(there.values())[:_FOLDERS]]
    problems = [
        Problem(f"the node {node.host} does not see {escaped(missing)}", "--address", hint=_SHARED)
        for node, missing in asked_of_nodes(actors, _missing, some)
        if missing is not None
    ]
    if problems:
        raise UserError(*problems)


_SHARED = (
    "images have to lie where all nodes see them, at the same path, such as on a network file system; without "
    "--address this machine predicts for them"
)


def _missing(paths: Sequence[str]) -> str | None:
    """The first of these files that is not there."""
    return next((each for each in paths if not Path(each).exists()), None)


class _Predicting:
    """What an actor does.

    Args:
        folder: The folder of the checkpoint.
        asked: What is asked.
        has_gpu: Whether it has a GPU.
        threads: Threads that it computes with, and decodes with.
    """

    def __init__(self, folder: Path, asked: Asked, *, has_gpu: bool, threads: int) -> None:
        keep_freed_memory()
        torch.set_num_threads(threads)
        module = load_model(folder, asked.trust)
        devices = [trial_device(has_gpu)]
        self._predict = OnDevices(module, about_of(module), devices, asked.options, asked.batch_size, asked.every)

    def __call__(self, items: Sequence[Item]) -> Iterator[Result | Skipped]:
        contents = {each.path: each for each in items}
        for answer in self._predict(items):
            if isinstance(answer, Skipped) and _is_missing_here(contents[answer.path]):
                yield replace(answer, reason=f"{answer.reason}, on the node {socket.gethostname()}")
            else:
                yield answer


def _is_missing_here(item: Item) -> bool:
    """Whether a file is missing here, which the driver has seen."""
    return not item.fault and not Path(item.content).exists()
