"""Datasets. To add one, write a module here and add it to the union."""

from typing import Annotated

from pydantic import Field

from tuner.data.digits import Digits
from tuner.data.imported import ImportedData
from tuner.data.mnist import MNIST, FashionMNIST

DataConfig = Annotated[MNIST | FashionMNIST | Digits | ImportedData, Field(discriminator="kind")]

__all__ = ["MNIST", "DataConfig", "Digits", "FashionMNIST", "ImportedData"]
