"""Datasets. To add one, write a module here and add it to the union."""

from typing import Annotated

from pydantic import Field

from tuner.data.cifar import CIFAR10, CIFAR100
from tuner.data.digits import Digits
from tuner.data.encoded.csv_images import CSVImages
from tuner.data.encoded.image_folder import ImageFolder
from tuner.data.encoded.imagenet import ImageNet
from tuner.data.encoded.parquet_images import ParquetImages
from tuner.data.imported import ImportedData
from tuner.data.mnist import MNIST, FashionMNIST

DataConfig = Annotated[
    MNIST
    | FashionMNIST
    | CIFAR10
    | CIFAR100
    | Digits
    | ImageFolder
    | CSVImages
    | ParquetImages
    | ImageNet
    | ImportedData,
    Field(discriminator="kind"),
]

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "CSVImages",
    "DataConfig",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "ImageNet",
    "ImportedData",
    "ParquetImages",
]
