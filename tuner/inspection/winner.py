"""What a person looks at of a job's winner: the images that it finds hardest, and those that it was trained on."""

from dataclasses import dataclass, field

import torch
from torch import nn

from tuner.data.loading.source import LoaderResources, Source
from tuner.inspection.augmented import ContactSheet, contact_sheet
from tuner.inspection.encoding import encoded
from tuner.inspection.hardest import hardest
from tuner.inspection.hardest_picture import draw
from tuner.train.device import autocast_dtype
from tuner.train.evaluation import predict
from tuner.train.trial_config import TrialConfig


@dataclass(frozen=True)
class Look:
    """What a person looks at of a trial.

    Args:
        hardest: Its hardest validation images, a PNG picture by the name of each head that predicts classes.
        sheet: Its training images as it saw them; None for nothing.
        example: The first of its validation images, in its input's size: a PNG or JPEG file, or of channels that these
            do not have an array uint8 (C, H, W) as `numpy.save` writes it. Empty for nothing.
    """

    hardest: dict[str, bytes] = field(default_factory=dict)
    sheet: ContactSheet | None = None
    example: bytes = b""


def look(trial: TrialConfig, model: nn.Module, device: torch.device) -> Look:
    """Compute what a person looks at of a trial.

    Args:
        trial: The trial.
        model: Its trained model, on the device.
        device: The device to compute on.
    """
    with trial.data.opened_once("validation", device, LoaderResources(workers=0)) as validation:
        outputs = predict(trial.task, model, validation, autocast_dtype(trial.precision, device))
        found = hardest(trial.task, trial.data.targets, outputs)
        example = _example(validation)
    return Look({name: draw(each) for name, each in found.items()}, contact_sheet(trial), example)


def _example(source: Source) -> bytes:
    """The first image of a set, as `Look` has it."""
    for batch in source.first(1).batches(1):
        return encoded((batch.inputs[0] * 255).round().to(torch.uint8).cpu().numpy())
    return b""
