"""Tasks. Each defines its targets, losses and metrics. To add one, write a module here and add it to the union."""

from typing import Annotated

from pydantic import Field

from tuner.tasks.classification import Classification
from tuner.tasks.detection import Detection
from tuner.tasks.instance_segmentation import InstanceSegmentation
from tuner.tasks.multilabel import Multilabel
from tuner.tasks.multitask import Multitask
from tuner.tasks.semantic_segmentation import SemanticSegmentation

TaskConfig = Annotated[
    Classification | Multilabel | SemanticSegmentation | Detection | InstanceSegmentation | Multitask,
    Field(discriminator="kind"),
]

__all__ = [
    "Classification",
    "Detection",
    "InstanceSegmentation",
    "Multilabel",
    "Multitask",
    "SemanticSegmentation",
    "TaskConfig",
]
