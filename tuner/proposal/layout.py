"""What data are, once a dataset of `tuner` has read them."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from pydantic import ValidationError

from tuner.data.decoding import Undecodable, quiet
from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.measured import UNOPENED
from tuner.data.encoded.unchecked import unchecked
from tuner.errors import Mistakes, Problem, UserError, mistakes_in
from tuner.formatting import counted
from tuner.inspection.examine import size_of
from tuner.interfaces import TargetKind

_SAMPLE = 300
"""Most images whose sizes are looked at."""
Given = Mapping[str, Any]
"""Fields of a dataset that the user says, beside what is recognized: options of a command."""


class NotThis(Exception):
    """Data are not of a layout, or of it and not fit for training; the problems say why.

    Args:
        problems: Why.
        layout: The layout that the data certainly have; empty if they may be of another one.
    """

    def __init__(self, *problems: Problem, layout: str = "") -> None:
        self.problems = problems
        self.layout = layout


class Broken(Exception):
    """Data are of a layout, and images of theirs cannot be decoded.

    Args:
        what: A phrase for the user.
        data: The dataset, of which no image is opened yet.
        problems: Which images, and why.
    """

    def __init__(self, what: str, data: EncodedImages, problems: list[Problem]) -> None:
        self.what = what
        self.data = data
        self.problems = problems


@dataclass(frozen=True)
class Layout:
    """What data are.

    Args:
        what: A phrase for the user.
        fields: The fields of ``trial.data`` that name the data.
        data: The dataset, with the defaults of its other fields.
        training_images: The number of training images.
        counts: The number of training images of each class, the largest first; none if not images have classes,
            but their pixels or boxes.
        side: The median of the shorter sides of the images, in pixels.
        notes: What else was recognized, used or not, in sentences.
    """

    what: str
    fields: dict[str, Any]
    data: EncodedImages
    training_images: int
    counts: tuple[int, ...]
    side: int
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> TargetKind:
        """The kind of the target."""
        [target] = self.data.targets.values()
        return target.kind

    @property
    def imbalance(self) -> float:
        """How many times as many training images as the smallest class the largest one has."""
        return self.counts[0] / max(self.counts[-1], 1) if self.counts else 1.0


def read(called: str, fields: dict[str, Any], member: type[EncodedImages], given: Given) -> Layout:
    """Read a dataset with the defaults of its other fields.

    Args:
        called: What its layout is called.
        fields: What was recognized of it.
        member: The class of the dataset.
        given: What the user says beside that.

    Raises:
        NotThis: It cannot be read.
        Broken: Images of it cannot be decoded.
        UserError: It can be read, and has no field for what the user says.
    """
    unused = [name for name in given if name not in member.model_fields]
    fields = fields | {name: value for name, value in given.items() if name not in unused}
    values = {name: value for name, value in fields.items() if name != "kind"}
    try:
        data = member.model_validate(values)
        files = data.files()
    except ValidationError as error:
        problems = mistakes_in(error) or [Problem(str(error))]
        if all(problem.items for problem in problems):
            with unchecked():
                try:
                    unread = member.model_validate(values | UNOPENED)
                except ValidationError as further:  # of what is left without what is broken
                    raise NotThis(*problems, *mistakes_in(further)) from None
            raise Broken(called, unread, problems) from None
        raise NotThis(*map(_with_option, problems)) from None
    except Mistakes as mistakes:
        raise NotThis(*map(_with_option, mistakes.problems)) from None
    if unused:
        message = f"{data.source} says itself what its {unused[0]} are"
        raise UserError(Problem(message, f"--{unused[0]}", "command line", "leave it out"))
    sides = list(map(min, _sizes(data, files["train"].names[:_SAMPLE])))
    if not sides:
        raise NotThis(Problem(f"the first images of {data.source} cannot be read"))
    [target] = data.targets.values()
    sizes = ", ".join(f"{len(items):,} {split}" for split, items in files.items())
    side = round(median(sides))
    what = f"{called}, {counted(target.size, 'class', 'classes')}, {sizes} images"
    what += f", the shorter side {side} pixels in the median"
    of_images = target.kind in ("class", "multilabel")
    counts = [] if not of_images else sorted(files["train"].counts(target.size).tolist(), reverse=True)
    return Layout(what, fields, data, len(files["train"]), tuple(counts), side)


def _with_option(problem: Problem) -> Problem:
    """The problem, with the option that is the way out of it."""
    if problem.key != "classes":
        return problem
    return replace(problem, hint=f"{problem.hint}; tuner inspect, init and evaluate take them as --classes cat,dog")


def _sizes(data: EncodedImages, names: list[str]) -> Iterator[tuple[int, int]]:
    """The sizes of images in pixels, by their headers; those that cannot be read are left out."""
    with quiet():
        for name in names:
            with contextlib.suppress(Undecodable):
                if (size := size_of(data.encoded(name))) is not None:
                    yield size
