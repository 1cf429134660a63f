"""Losses: pure functions of one output and one target, one file for each kind of target.

Calling a loss returns the training loss. `measure` returns the reported one, which ignores label smoothing and weights,
so that trials with different ones can be compared. Both are scalars: means over the samples.
"""

from typing import Annotated

from pydantic import Field

from tuner.tasks.losses.boxes import Detector, MaskDetector
from tuner.tasks.losses.classes import NLL, CrossEntropy, Focal
from tuner.tasks.losses.masks import PixelCrossEntropy, PixelDice, PixelFocal
from tuner.tasks.losses.multilabel import BinaryCrossEntropy, BinaryFocal
from tuner.tasks.losses.values import MSE, SmoothL1

ClassLoss = CrossEntropy | Focal | NLL
MultilabelLoss = BinaryCrossEntropy | BinaryFocal
MaskLoss = PixelCrossEntropy | PixelFocal | PixelDice
AnyLoss = ClassLoss | MultilabelLoss | MaskLoss | Detector | MaskDetector | SmoothL1 | MSE
LossConfig = Annotated[AnyLoss, Field(discriminator="kind")]

__all__ = [
    "MSE",
    "NLL",
    "AnyLoss",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "ClassLoss",
    "CrossEntropy",
    "Detector",
    "Focal",
    "LossConfig",
    "MaskDetector",
    "MaskLoss",
    "MultilabelLoss",
    "PixelCrossEntropy",
    "PixelDice",
    "PixelFocal",
    "SmoothL1",
]
