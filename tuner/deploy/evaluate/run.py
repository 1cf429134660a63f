"""One evaluation, from MODEL and DATA to the report: what ``tuner evaluate`` does."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tuner.data.decoding import DECODED
from tuner.deploy.about import About
from tuner.deploy.evaluate.classes import Match, match_targets, notes_of
from tuner.deploy.evaluate.comparison import answers, differences
from tuner.deploy.evaluate.measured import Measured, measure
from tuner.deploy.evaluate.report import Comparison, Report
from tuner.deploy.evaluate.resampling import RESAMPLES, resample
from tuner.deploy.evaluate.sets import EvaluationSet, evaluation_set
from tuner.deploy.model import about_of, load_model
from tuner.errors import Problem, UserError
from tuner.train.device import pick_device

Watch = Callable[[str, int, int], object]
"""Called with what is done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Settings:
    """How models are evaluated.

    Args:
        split: The set of the data; None for the one that `evaluation_set` chooses.
        given: Fields of the dataset that the user says.
        resamples: Number of resamples of the bootstrap; 0 for no intervals.
        seed: Seed of these.
        worst: How many of the hardest images are kept of each head; None for as many as a picture shows.
        batch_size: Images that are computed at once; None for as many as in validation.
        trust: The user's code that builds the models, which may be called.
        code: The folder of that code.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.
    """

    split: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = RESAMPLES
    seed: int = 0
    worst: int | None = None
    batch_size: int | None = None
    trust: Collection[str] = ()
    code: Path | None = None
    uri: str | None = None


def evaluate(
    model: str,
    data: Path,
    settings: Settings,
    *,
    other: str | None = None,
    watch: Watch = lambda what, done, total: None,
    device: torch.device | None = None,
) -> Report:
    """Evaluate a model, and compare it with another one.

    Args:
        model: What `tuner.load` takes.
        data: What `evaluation_set` takes.
        settings: How.
        other: Another model, which is measured on the same images.
        watch: Called as there is progress.
        device: The device to compute on; None for the best one, as of trials.

    Raises:
        UserError: The user has made a mistake, or images cannot be read.
    """
    sources = [model] if other is None else [model, other]
    modules = [load_model(each, settings.trust, settings.code, settings.uri) for each in sources]
    abouts = [about_of(each) for each in modules]
    of = evaluation_set(data, settings.split, settings.given)
    for about in abouts:
        _check_channels(about, of)
        if any(target.instances for target in about.signature.targets.values()):
            of = of.with_objects()
    matches = [
        match_targets(about, of.targets, of.source, both) for about, both in zip(abouts, _others(abouts), strict=True)
    ]
    found = [
        _measured(*each, of, settings, device or pick_device(), watch)
        for each in zip(modules, abouts, matches, strict=True)
    ]
    first = found[0]
    if not all(np.array_equal(first.index, each.index) for each in found):
        message = "the models do not know the same of the images' classes, so that they are measured on other images"
        raise UserError(Problem(message, "--compare", "command line", "evaluate each by itself"))
    every = of.paths(int(first.index.max()) + 1)
    paths = [every[place] for place in first.index]
    meters = [each.meter for each in found]
    resampled = resample(
        meters, first.images, settings.resamples, settings.seed, lambda done, total: watch("resampling", done, total)
    )
    comparison = None
    if other is not None:
        comparison = Comparison(
            abouts[1].source, differences(first, found[1], resampled), answers(first, found[1], paths)
        )
    return Report(
        abouts[0].source,
        "; ".join(each.predicts for each in abouts[0].signature.outputs.values()),
        of.source,
        of.name,
        first,
        resampled[0],
        settings.resamples,
        settings.seed,
        paths,
        [*_seen(abouts, of), *notes_of(matches[0], abouts[0], first.left_out)],
        comparison,
    )


def _measured(
    module: nn.Module,
    about: About,
    matches: Mapping[str, Match],
    of: EvaluationSet,
    settings: Settings,
    device: torch.device,
    watch: Watch,
) -> Measured:
    return measure(
        module,
        about,
        of,
        matches,
        device,
        worst=settings.worst,
        batch_size=settings.batch_size,
        progress=lambda done, total: watch(f"measuring {about.source}", done, total),
    )


def _others(abouts: list[About]) -> list[About | None]:
    """For each model the one that it is compared with."""
    return [None] if len(abouts) == 1 else [abouts[1], abouts[0]]


def _seen(abouts: list[About], of: EvaluationSet) -> list[str]:
    """Warnings that models have seen the images before."""
    if of.name == "test" or not (digest := of.files_digest):
        return []
    instead = "only the test set is new to it" if of.is_divided else "give the experiment's file, whose test set is new"
    return [
        f"{about.source} was trained on these files, and its numbers here are too good: {instead}"
        for about in abouts
        if about.signature.files == digest
    ]


def _check_channels(about: About, of: EvaluationSet) -> None:
    """Check that a model takes images as they are in files.

    Raises:
        UserError: It does not, and the images are in files.
    """
    channels = about.form.channels
    if channels not in DECODED and of.data.image.channels != channels:
        message = f"the model takes images of {channels} channels, and those of the data have {of.data.image.channels}"
        raise UserError(
            Problem(message, where=about.source, hint="evaluate it on an experiment whose images have as many")
        )
