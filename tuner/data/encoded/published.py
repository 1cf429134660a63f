"""The base class of datasets whose own test set is not public."""

from typing import Literal

from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.statistics import Statistics


class PublishedImages(EncodedImages):
    """Images in colour whose folder val is the one on which results are published: it is the test set here.

    The winner alone sees it. The validation set, which chooses the winner, is split off the training images.
    """

    channels: Literal["auto", 1, 3] = 3
    """1 for grey, 3 for colour; auto is 1 if all images are grey, else 3."""
    mean_std: Literal["auto", "imagenet"] | Statistics = "imagenet"
    """Mean and standard deviation of each channel in [0, 1]; auto measures them on up to 500 training images."""
    test: None = None
    """Not available: the folder val is the test set."""
