"""The opening of encoded images for one trial, in whichever place they lie, and the freeing of what that takes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from tuner.data.decoding import Outcome
from tuner.data.loading.disk_cache import mapped
from tuner.data.loading.fetched import EncodedSet
from tuner.data.loading.mapped import Mapped
from tuner.data.loading.source import LoaderResources, Source
from tuner.data.loading.streamed import Streamed
from tuner.data.loading.workers import DecodingWorkers


class _Check(Protocol):
    def __call__(self, outcome: Outcome) -> None:
        """Raise the error of images that could not be decoded."""


@contextmanager
def streamed(
    sets: Sequence[EncodedSet], check: _Check, device: torch.device, resources: LoaderResources
) -> Iterator[list[Source]]:
    """Open sets whose images are decoded in each epoch, by processes that all sets share."""

    def refuse(failures: dict[str, str]) -> None:
        check(Outcome(failures))

    with closing(DecodingWorkers(sets[0].decoder, resources.processes, device, refuse)) as workers:
        yield [Streamed(each, workers, device) for each in sets]


@contextmanager
def on_disk(
    sets: Sequence[EncodedSet],
    check: _Check,
    device: torch.device,
    resources: LoaderResources,
    *,
    file: Path,
    names: list[str],
) -> Iterator[list[Source]]:
    """Open sets whose images lie decoded in a file, which is written first if it does not exist.

    Args:
        sets: The sets, which have the same decoder.
        check: Raises the error of images that cannot be decoded.
        device: The device of the batches.
        resources: What the trial may take.
        file: The file; see `disk_cache.file_of`.
        names: The names of all images of the dataset, in the order of the file.

    Raises:
        UserError: The file cannot be written.
    """
    # The other trials of this host wait for the file: their cores are idle.
    threads = (resources.processes + 1) * resources.trials_per_host
    images = mapped(file, names, sets[0].decoder, check, threads)
    row = {name: number for number, name in enumerate(names)}
    with ThreadPoolExecutor(1, thread_name_prefix="images") as reader:
        rows = [np.array([row[name] for name in each.names], dtype=np.int64) for each in sets]
        yield [Mapped(each, images, index, reader, device) for index, each in zip(rows, sets, strict=True)]
