"""Detection: the objects of an image, each with a class and a box."""

from typing import Literal

from tuner.tasks.losses import Detector
from tuner.tasks.single_head import SingleHead


class Detection(SingleHead):
    """Find the objects of an image: the class and the box of each."""

    kind: Literal["detection"] = "detection"
    target: str = "boxes"
    """Target of the dataset that is predicted: one with boxes."""
    loss: Detector = Detector()
    """Loss: detector, which the model computes itself; its fields are those of the model."""
