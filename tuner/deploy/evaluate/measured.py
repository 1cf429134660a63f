"""What a model says of a set: its metrics, and what is said of each image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tuner.deploy.about import About
from tuner.deploy.evaluate.classes import Match
from tuner.deploy.evaluate.sets import EvaluationSet
from tuner.deploy.pipeline import Pipeline
from tuner.errors import Problem, UserError
from tuner.inspection.hardest import Hardest, Search
from tuner.interfaces import Batch, Outputs, Target
from tuner.tasks.base import TaskMeter
from tuner.tasks.head import Head

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Measured:
    """What was measured of a model on a set.

    Args:
        about: The model.
        targets: What each head predicts, by the name of the head; by its target if the head has no name.
        meter: The metrics, of which each image's share is kept.
        hardest: The hardest images of the heads of which images are shown, by the same names.
        losses: How wrong the answer for each image is, float32 (images,), by the same names.
        wrong: Whether it is a mistake, booleans (images,).
        index: The places in the set of the images that were measured, int64 (images,).
        left_out: Number of those that were not.
    """

    about: About
    targets: Mapping[str, Target]
    meter: TaskMeter
    hardest: dict[str, Hardest]
    losses: dict[str, Array]
    wrong: dict[str, Array]
    index: Array
    left_out: int

    @property
    def images(self) -> int:
        """Number of images that were measured."""
        return len(self.index)


def measure(
    module: nn.Module,
    about: About,
    of: EvaluationSet,
    matches: Mapping[str, Match],
    device: torch.device,
    *,
    worst: int | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Measured:
    """Measure a model on a set.

    Args:
        module: The model.
        about: What its checkpoint says of it.
        of: The set.
        matches: The targets of the data, by head.
        device: The device to compute on.
        worst: How many of the hardest images are kept; None for as many as a picture shows.
        batch_size: Images that are computed at once; None for as many as in validation.
        progress: Called with the number of images so far, and of all.

    Raises:
        UserError: Images cannot be read, or none can be measured.
    """
    pipeline = Pipeline(module, about, device, batch_size=batch_size)
    heads = {name: head for name, head in about.task.named_heads.items() if name in matches}
    targets = {head.target: matches[name].target for name, head in heads.items()}
    meter, search = TaskMeter(heads, training=False), Search(heads, targets, worst)
    meter.keep_samples()
    losses: dict[str, list[Array]] = {}
    wrong: dict[str, list[Array]] = {}
    index: list[Array] = []
    done = 0
    with of.opened(about.form, device) as source:
        for batch, outputs in pipeline.run(source):
            batch, outputs, kept = _in_classes(batch, outputs, heads, matches)
            if len(batch):
                meter.update(outputs, batch.targets)
                for name, judged in search.update(batch, outputs).items():
                    losses.setdefault(name, []).append(judged.losses.cpu().numpy())
                    wrong.setdefault(name, []).append(judged.wrong.cpu().numpy())
            index.append(done + np.flatnonzero(kept))
            done += len(kept)
            progress(done, len(source))
    places = np.concatenate([np.zeros(0, dtype=np.int64), *index])
    if not len(places):
        what = "none of the images has a class that the model knows" if done else f"the {of.name} set has no images"
        raise UserError(Problem(what, where=of.source, hint="give images with its classes, or another --split"))
    named = {name or head.target: targets[head.target] for name, head in heads.items()}
    return Measured(about, named, meter, search.found, _joined(losses), _joined(wrong), places, done - len(places))


def _joined(table: Mapping[str, list[Array]]) -> dict[str, Array]:
    return {name: np.concatenate(each) for name, each in table.items()}


def _in_classes(
    batch: Batch, outputs: Outputs, heads: Mapping[str, Head], matches: Mapping[str, Match]
) -> tuple[Batch, Outputs, Array]:
    """The batch with the targets of the model, without the images that cannot be measured; and which these are not."""
    kept = torch.ones(len(batch), dtype=torch.bool, device=batch.inputs.device)
    targets = {}
    for name, head in heads.items():
        targets[head.target], known = matches[name].brought(batch.targets[matches[name].name])
        kept &= known
    batch = Batch(batch.inputs, targets)
    if not kept.all():
        batch = Batch(batch.inputs[kept], {name: values[kept] for name, values in targets.items()})
        single = isinstance(outputs, torch.Tensor)
        outputs = outputs[kept] if single else {name: values[kept] for name, values in outputs.items()}  # type: ignore
    return batch, outputs, kept.cpu().numpy()
