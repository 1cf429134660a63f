"""Models. To add one, write a module here and add it to the union."""

from typing import Annotated

from pydantic import Field

from tuner.models.cnn import CNN
from tuner.models.detection.yolo import Yolo
from tuner.models.imported import ImportedModel
from tuner.models.mlp import MLP
from tuner.models.multitask_cnn import MultitaskCNN
from tuner.models.pretrained.timm_model import TimmModel
from tuner.models.pretrained.torchvision.model import TorchvisionModel
from tuner.models.pretrained.unet import UNet
from tuner.models.resnet_small import ResNetSmall

ModelConfig = Annotated[
    CNN | MultitaskCNN | ResNetSmall | UNet | Yolo | TorchvisionModel | TimmModel | MLP | ImportedModel,
    Field(discriminator="kind"),
]

__all__ = [
    "CNN",
    "MLP",
    "ImportedModel",
    "ModelConfig",
    "MultitaskCNN",
    "ResNetSmall",
    "TimmModel",
    "TorchvisionModel",
    "UNet",
    "Yolo",
]
