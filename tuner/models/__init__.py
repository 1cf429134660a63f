"""Models. To add one, write a module here and add it to the union."""

from typing import Annotated

from pydantic import Field

from tuner.models.cnn import CNN
from tuner.models.imported import ImportedModel
from tuner.models.multitask_cnn import MultitaskCNN

ModelConfig = Annotated[CNN | MultitaskCNN | ImportedModel, Field(discriminator="kind")]

__all__ = ["CNN", "ImportedModel", "ModelConfig", "MultitaskCNN"]
