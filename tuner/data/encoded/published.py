"""What datasets whose own test set is not public have beside the others."""

from typing import Literal

from tuner.config import Config
from tuner.data.encoded.statistics import Statistics


class PublishedImages(Config):
    """Images in colour whose folder val is the one on which results are published: it is the test set here.

    The winner alone sees it. The validation set, which chooses the winner, is split off the training images.

    It stands before the base class of a dataset and has these fields alone, since pydantic takes all fields of one base
    before those of the next one, also those that it inherits.
    """

    channels: Literal["auto", 1, 3] = 3
    """1 for grey, 3 for colour; auto is 1 if all images are grey, else 3."""
    mean_std: Literal["auto", "imagenet"] | Statistics = "imagenet"
    """Mean and standard deviation of each channel in [0, 1]; auto measures them on up to 500 training images."""
    test: None = None
    """Not available: the folder val is the test set."""
