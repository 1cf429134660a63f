"""The channels of encoded images, and the mean and the standard deviation of each, measured on a sample."""

from typing import Any

import numpy as np

from tuner.data.decoding import Encoded, Form, Outcome
from tuner.data.loading.decoder import Decoder
from tuner.data.pixels import Bytes

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""The mean of each channel, and its standard deviation."""

IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measure(names: list[str], form: Form, encoded: Encoded) -> tuple[int, Statistics, Outcome]:
    """Measure images: the most channels that one has, and the statistics of as many channels."""
    sums = np.zeros((len(names), 2, 3))
    found = np.zeros(len(names), dtype=int)

    def take(index: int, pixels: Bytes) -> None:
        scaled = pixels.reshape(len(pixels), -1) / 255
        found[index] = len(pixels)
        sums[index] = np.stack([scaled.mean(axis=1), (scaled**2).mean(axis=1)])  # a grey image has three equal ones

    outcome = Decoder(encoded, form, only_grey=False).each(names, take)
    channels = int(found.max())
    mean, squares = sums.mean(axis=0)[:, :channels]
    std = np.sqrt(np.maximum(squares - mean**2, 0)).clip(min=1e-3)
    return channels, (tuple(mean.tolist()), tuple(std.tolist())), outcome


def is_mean_and_std(value: Any) -> bool:
    """Whether a value is a list of one or three means, and one of as many deviations."""
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, list | tuple) for v in value)):
        return False
    mean, std = value
    numbers = [*mean, *std]
    if len(mean) != len(std) or len(mean) not in (1, 3) or not all(type(number) in (int, float) for number in numbers):
        return False
    return all(0 <= number <= 1 for number in mean) and all(0 < number < float("inf") for number in std)
