"""Augmentation of training batches, on the device that they are on: each image is changed in its own way.

A batch is changed by a few operations on whole tensors; torchvision's transforms draw one change for all images of a
batch. Random numbers are torch's: an epoch that is seeded gives the same batches. Nothing waits for the device. What
lies at a place of an image (`located`) moves with it.
"""

from tuner.data.augmentation.settings import Augment

__all__ = ["Augment"]
