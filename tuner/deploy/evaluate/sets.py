"""DATA: the images that a model is evaluated on, in a folder, in a file, or in the sets of an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from tuner.data.decoding import Form
from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.measured import UNOPENED
from tuner.data.encoded.undivided import undivided
from tuner.data.images import ImageData, Images, OnceRead
from tuner.data.loading.source import ALONE, LoaderResources, Source
from tuner.deploy.images import decoded
from tuner.deploy.listing import Item
from tuner.errors import Problem, UserError, allowed
from tuner.interfaces import Target
from tuner.jobs.local.data_check import opened as opened_experiment
from tuner.proposal.layouts import is_data, layout_of

SPLITS: tuple[OnceRead, ...] = get_args(OnceRead)
WHOLE = "all"
"""The name of a set that is all of the data."""
_MANY = 1000
"""Images from which on processes decode them."""
TEST_FIRST: tuple[OnceRead, ...] = ("test", "validation", "train")
"""The set that is evaluated unless the user says another one: the first that there is."""


@dataclass(frozen=True)
class EvaluationSet:
    """Images with their targets.

    Args:
        source: Where they are, as the user wrote it.
        data: The dataset.
        split: The set of it.
        name: What the set is called: one of `SPLITS`, or `WHOLE`.
        is_divided: Whether the dataset is that of an experiment, some of whose sets may be split off by a seed; else
            the sets are those that its files say.
    """

    source: str
    data: ImageData
    split: OnceRead
    name: str
    is_divided: bool

    @property
    def targets(self) -> dict[str, Target]:
        """The targets by name."""
        with self._as_divided():
            return self.data.targets

    def with_objects(self) -> "EvaluationSet":
        """The same images with the masks of objects, if their files have a field for these; else the set as it is."""
        if "instances" not in type(self.data).model_fields:
            return self
        with self._as_divided():
            return replace(self, data=type(self.data).model_validate(self.data.model_dump() | {"instances": True}))

    @property
    def files_digest(self) -> str:
        """A digest of the user's files; empty if they are none."""
        with self._as_divided():
            return self.data.files_digest

    @contextmanager
    def opened(self, form: Form, device: torch.device) -> Iterator[Source]:
        """Open the images in a form.

        Raises:
            UserError: They cannot be brought to it, or cannot be read.
        """
        with self._as_divided():
            data = self.data.in_form(form)
            if data is None:
                yield _converted(self.data, self.split, form).to(device)
                return
            # Processes that decode take seconds to start.
            resources = ALONE if len(data.names(self.split)) >= _MANY else LoaderResources(workers=0)
            with data.opened_once(self.split, device, resources) as source:
                yield source

    def paths(self, count: int) -> list[str]:
        """The paths of the first images; what identifies them if they are no files."""
        with self._as_divided():
            names = self.data.names(self.split)[:count]
            if isinstance(self.data, EncodedImages) and self.data.has_files:
                return [str(self.data.encoded(name)) for name in names]
        return names or [f"{self.name} image {number}" for number in range(count)]

    def _as_divided(self) -> AbstractContextManager[None]:
        return nullcontext() if self.is_divided else undivided()


def evaluation_set(
    path: Path, split: str | None, given: Mapping[str, Any], order: Sequence[OnceRead] = TEST_FIRST
) -> EvaluationSet:
    """Find the images at a path.

    Args:
        path: A folder or a file of data, as ``tuner inspect`` recognizes it, or an experiment's file.
        split: The set that the user asks for; None for the first of `order`; all images where they are in no sets.
        given: Fields of the dataset that the user says.
        order: The sets, the one that is wanted most first. An experiment has all of them.

    Raises:
        UserError: There are no such data, or they cannot be read, or have no such set.
    """
    if split is not None and split not in SPLITS:
        raise UserError(Problem(f"{split!r} is no set", "--split", "command line", allowed(split, SPLITS)))
    if not path.exists():
        hint = "give a folder of images, a CSV or Parquet file, or an experiment's YAML file"
        raise UserError(Problem("no such file or folder", where=str(path), hint=hint))
    if is_data(path):
        return _of_files(path, split, given, order)
    if given:
        hint = f"leave it out; the experiment says it: trial.data.{next(iter(given))}"
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise UserError(Problem("it has no effect on an experiment", option, "command line", hint))
    found = opened_experiment(path)
    if found.refused:
        raise UserError(*found.refused)
    chosen: OnceRead = next((each for each in SPLITS if each == split), order[0])
    return EvaluationSet(str(path), found.trial.data, chosen, chosen, is_divided=True)


def _of_files(path: Path, split: str | None, given: Mapping[str, Any], order: Sequence[OnceRead]) -> EvaluationSet:
    with undivided():
        data = layout_of(
            path.absolute(), {**UNOPENED, **given}, "these are no data that a model can be evaluated on"
        ).data
        sets = list(data.files())
    if len(sets) == 1:
        if split is not None:
            hint = "leave --split out: all of its images are one set"
            raise UserError(Problem(f"{path} has no sets", "--split", "command line", hint))
        return EvaluationSet(str(path), data, "train", WHOLE, is_divided=False)
    if split is not None and split not in sets:
        hint = f"it has: {', '.join(sets)}"
        raise UserError(Problem(f"{path} has no {split} set", "--split", "command line", hint))
    chosen: OnceRead = next(each for each in order if each in ([split] if split else sets))
    return EvaluationSet(str(path), data, chosen, chosen, is_divided=False)


def _converted(data: ImageData, split: OnceRead, form: Form) -> Images:
    """Images in memory, each brought to a form as one that somebody gives `predict`.

    Raises:
        UserError: What is predicted lies at places of the images.
    """
    placed = [name for name, target in data.targets.items() if target.kind not in ("class", "multilabel")]
    if placed:
        image = data.image
        message = f"its images are {image.width}x{image.height} with {', '.join(placed)}, "
        message += f"and the model takes {form.width}x{form.height}"
        raise UserError(
            Problem(message, where=data.describe().name, hint="data in files are resized, with all in them")
        )
    images = data.load_set(split)
    pixels = np.stack([decoded(Item("", each), form).pixels for each in images.images])
    return Images(torch.from_numpy(pixels), images.targets)
