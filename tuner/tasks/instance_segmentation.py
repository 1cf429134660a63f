"""Instance segmentation: the objects of an image, each with a class, a box and a mask."""

from typing import Literal

from tuner.tasks.losses import MaskDetector
from tuner.tasks.single_head import SingleHead


class InstanceSegmentation(SingleHead):
    """Find the objects of an image: the class, the box and the mask of each."""

    kind: Literal["instance_segmentation"] = "instance_segmentation"
    target: str = "instances"
    """Target of the dataset that is predicted: one that says which object each pixel belongs to."""
    loss: MaskDetector = MaskDetector()
    """Loss: mask_detector, which the model computes itself; its fields are those of the model."""
