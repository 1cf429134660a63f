"""Datasets: a new one is a file here and a name in the union."""

from typing import Annotated

from pydantic import Field

from tuner.data.digits import Digits
from tuner.data.mnist import MNIST, FashionMNIST

DataConfig = Annotated[MNIST | FashionMNIST | Digits, Field(discriminator="kind")]

__all__ = ["MNIST", "DataConfig", "Digits", "FashionMNIST"]
