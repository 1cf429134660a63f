"""Datasets. To add one, write a module here and add it to the union."""

from typing import Annotated

from pydantic import Field

from tuner.data.cifar import CIFAR10, CIFAR100
from tuner.data.digits import Digits
from tuner.data.encoded.boxes.coco.dataset import COCO
from tuner.data.encoded.boxes.voc.dataset import VOCDetection
from tuner.data.encoded.boxes.yolo.dataset import YOLOFolder
from tuner.data.encoded.csv.dataset import CSVImages
from tuner.data.encoded.folders.image_folder import ImageFolder
from tuner.data.encoded.folders.imagenet import ImageNet
from tuner.data.encoded.masks.cityscapes import Cityscapes
from tuner.data.encoded.masks.dataset import ImageMaskFolder
from tuner.data.encoded.masks.voc import VOCSegmentation
from tuner.data.encoded.parquet.dataset import ParquetImages
from tuner.data.imported import ImportedData
from tuner.data.mnist import MNIST, FashionMNIST
from tuner.data.scenes.dataset import MNISTScenes

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
    | ImageMaskFolder
    | VOCSegmentation
    | Cityscapes
    | COCO
    | YOLOFolder
    | VOCDetection
    | MNISTScenes
    | ImportedData,
    Field(discriminator="kind"),
]

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "COCO",
    "MNIST",
    "CSVImages",
    "Cityscapes",
    "DataConfig",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "ImageMaskFolder",
    "ImageNet",
    "ImportedData",
    "MNISTScenes",
    "ParquetImages",
    "VOCDetection",
    "VOCSegmentation",
    "YOLOFolder",
]
