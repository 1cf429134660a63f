"""What the outputs of a model say of an image, for each kind of target, as a person and a program read it."""

from tuner.interfaces import TargetKind
from tuner.tasks.predictions.base import Prediction
from tuner.tasks.predictions.boxes import BoxesPrediction
from tuner.tasks.predictions.classes import ClassPrediction
from tuner.tasks.predictions.instances import InstancesPrediction
from tuner.tasks.predictions.masks import MaskPrediction
from tuner.tasks.predictions.multilabel import LabelsPrediction
from tuner.tasks.predictions.values import ValuesPrediction

PREDICTIONS: dict[TargetKind, type[Prediction]] = {
    "class": ClassPrediction,
    "multilabel": LabelsPrediction,
    "mask": MaskPrediction,
    "boxes": BoxesPrediction,
    "instances": InstancesPrediction,
    "values": ValuesPrediction,
}
"""The prediction of each kind of target."""
