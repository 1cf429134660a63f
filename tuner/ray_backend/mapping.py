"""A function that Ray Data maps over many things, in actors that keep what it needs, such as a model on a GPU.

What the function computes is the caller's: this module knows nothing of models and of images.
"""

import logging
import math
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.errors import UserError
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.cluster.resources import ClusterResources, NodeResources
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.storage import temporary

_CPUS = 4
"""Most cores of an actor that has no GPU: a model of images gains little from more, and more actors share the rest."""
_CALLS = 4
"""Least calls that each actor should get, so that they end at about the same time."""
_ROW = "row"


class Work(Protocol):
    """What an actor does."""

    def __call__(self, things: Sequence[Any], /) -> Iterable[Any]:
        """Answer for things; there may be more answers than things, or fewer."""


@dataclass(frozen=True)
class Actors:
    """The actors that fit into a cluster.

    Args:
        now: How many fit on the nodes that there are.
        most: How many fit once the autoscaler has added all nodes that it may.
        cpus: Cores that each gets.
        gpus: GPUs that each gets, 0 or 1.
    """

    now: int
    most: int
    cpus: int
    gpus: int

    @classmethod
    def of(cls, capacity: ClusterResources) -> "Actors":
        """One actor for each GPU with its share of the node's cores; without GPUs one for every few cores."""
        both = (*capacity.now, *capacity.later)
        gpus = int(any(node.gpu >= 1 and node.cpu >= 1 for node in both))
        if gpus:
            cpus = max(1, int(min(node.cpu / int(node.gpu) for node in both if node.gpu >= 1 and node.cpu >= 1)))
        else:
            cpus = max(1, min(_CPUS, int(max((node.cpu for node in both), default=1))))
        now, most = (sum(node.fits(cpus, gpus) for node in nodes) for nodes in (capacity.now, both))
        return cls(now, most, cpus, gpus)


def asked_of_nodes(actors: Actors, question: Callable[[Any], Any], about: Any) -> Iterator[tuple[NodeResources, Any]]:
    """Ask each node on which actors fit.

    Args:
        actors: The actors.
        question: A function that is called on each node.
        about: Its argument.

    Returns:
        The nodes, and what each has answered; lost ones are left out.
    """
    import ray

    nodes = [node for node in connection.nodes() if node.fits(actors.cpus, actors.gpus)]
    for node, answer in zip(nodes, connection.call_on_nodes(nodes, question, [about] * len(nodes)), strict=True):
        try:
            yield node, ray.get(answer)
        except ray.exceptions.RayError:
            continue


def mapped(
    things: Sequence[Any],
    make: Callable[[Path], Work],
    folder: Path,
    actors: Actors,
    *,
    at_once: int,
    user_folder: UserFolder | None = None,
) -> Generator[Any]:
    """Map a function over things on the Ray that this process is connected to, and return the answers in their order.

    Calls on nodes that are lost are repeated on others.

    Args:
        things: The things; anything that can be pickled.
        make: Makes what an actor does, in its process, from a folder with the files, which is deleted then.
        folder: The folder with the files. Ray brings them to the nodes.
        actors: The actors.
        at_once: Most things of a call.
        user_folder: Where the user's code is; None for none.

    Raises:
        UserError: `make`, or what it made, has raised it.
    """
    import pyarrow
    import ray
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised
    size = max(1, min(at_once, math.ceil(len(things) / (actors.most * _CALLS))))
    blocks = [pyarrow.table({_ROW: _pickled(things[at : at + size])}) for at in range(0, len(things), size)]
    files = ray.put({each.name: each.read_bytes() for each in sorted(folder.iterdir()) if each.is_file()})
    with ray.data.DataContext.current(context):
        answers = ray.data.from_arrow(blocks).map_batches(
            _Actor,
            fn_constructor_args=(make, [files], user_folder),
            batch_size=None,
            batch_format="pyarrow",
            concurrency=(max(1, min(actors.now, len(blocks))), max(1, min(actors.most, len(blocks)))),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
        )
        for block in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in block.column(_ROW):
                answer = pickle.loads(row.as_buffer())
                if isinstance(answer, UserError):
                    raise answer
                yield answer


def _pickled(things: Iterable[Any]) -> Any:
    """A column of Arrow's. Names of files may be no text of its own, so that they are no strings in it."""
    import pyarrow

    return pyarrow.array([pickle.dumps(each) for each in things], pyarrow.large_binary())


class _Actor:
    """An actor in its process.

    Neither its constructor nor a call raises UserError: Ray Data would try again, and wrap it in others.
    """

    def __init__(self, make: Callable[[Path], Work], files: Sequence[Any], user_folder: UserFolder | None) -> None:
        import ray

        self._work: Work | UserError
        try:
            if user_folder is not None:
                user_folder.enter()
            with temporary.folder() as folder:
                for name, content in ray.get(files[0]).items():
                    (folder / name).write_bytes(content)
                self._work = make(folder)
        except UserError as error:
            self._work = error

    def __call__(self, block: Any) -> Any:
        import pyarrow

        return pyarrow.table({_ROW: _pickled(self._answers([pickle.loads(row.as_buffer()) for row in block[_ROW]]))})

    def _answers(self, things: Sequence[Any]) -> Iterator[Any]:
        if isinstance(self._work, UserError):
            yield self._work
            return
        try:
            yield from self._work(things)
        except UserError as error:
            yield error
