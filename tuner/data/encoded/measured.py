"""The form to which encoded images are brought: size, channels, and the mean and the standard deviation of these."""

from abc import abstractmethod
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from tuner.data.decoding import Form, Resize
from tuner.data.encoded.cached import CachedImages
from tuner.data.encoded.statistics import IMAGENET, Statistics, is_mean_and_std, measure
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted
from tuner.interfaces import ImageShape

UNOPENED: dict[str, Any] = {"channels": 3, "mean_std": "imagenet"}
"""Fields with which no image is opened before the images are read: broken ones are no mistake then."""


_LEAST, _MOST = 4, 4096
_Side = Annotated[int, Field(ge=_LEAST, le=_MOST)]

Size = _Side | tuple[_Side, _Side]
"""The size of images in pixels: the side of squares, or height and width."""


class MeasuredImages(CachedImages):
    """Images that are resized, and whose channels, mean and standard deviation are measured unless they are given."""

    size: Size = 64
    """Side in pixels to which the images are resized; [height, width] for others than squares."""
    resize: Resize = "crop"
    """How images of another shape are resized: crop (the centre), squash, or pad (with black)."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 for grey, 3 for colour; auto is 1 if all images are grey, else 3."""
    mean_std: Literal["auto", "imagenet"] | Statistics = "auto"
    """Mean and standard deviation of each channel in [0, 1]; auto measures them on up to 500 training images."""

    @abstractmethod
    def _sample(self) -> list[str]:
        """The images that are measured."""

    @abstractmethod
    def _broken(self, failures: dict[str, str]) -> Problem:
        """The problem that images cannot be decoded, whose key is a field of the dataset."""

    @field_validator("size", mode="wrap")
    @classmethod
    def _is_a_size(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            hint = f"allowed: a side of {_LEAST} to {_MOST} pixels, or two of them: [height, width]"
            raise Mistakes(Problem(f"{value!r} is not allowed", hint=hint)) from None

    @field_validator("mean_std", mode="before")
    @classmethod
    def _is_a_scale(cls, value: Any) -> Any:
        if value not in ("auto", "imagenet") and not is_mean_and_std(value):
            hint = "auto, imagenet, or a mean in [0, 1] and a deviation above 0 for each channel: [[0.5], [0.25]]"
            raise Mistakes(Problem(f"{value!r} is not allowed", hint=hint))
        return value

    @property
    def image(self) -> ImageShape:
        channels, (mean, std) = self._measured
        if self.mean_std == "imagenet":
            mean, std = IMAGENET if channels == 3 else tuple((sum(each) / 3,) for each in IMAGENET)
        elif self.mean_std != "auto":
            mean, std = self.mean_std
        return ImageShape(channels, *self._sides, mean, std)

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        return self.form.steps

    def in_form(self, form: Form) -> Self | None:
        size = (form.height, form.width)
        return self.model_copy(update={"size": size, "resize": form.resize, **UNOPENED, "channels": form.channels})

    @property
    def form(self) -> Form:
        channels = self._measured[0] if self.channels == "auto" else self.channels
        return Form(channels, *self._sides, self.resize)

    @property
    def _sides(self) -> tuple[int, int]:
        """The height and the width to which the images are resized, in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def only_grey(self) -> bool:
        # Those of the sample are grey.
        return self.channels == "auto" and self.form.channels == 1

    @property
    def _measured(self) -> tuple[int, Statistics]:
        if self.channels != "auto" and self.mean_std != "auto":
            return self.channels, ((), ())
        return _measure(self._unsplit)

    def _check_channels(self) -> None:
        """Measure the images, and raise Mistakes if `mean_std` has another number of channels than they have."""
        shape = self.image
        if not isinstance(self.mean_std, str) and len(self.mean_std[0]) != shape.channels:
            message = f"is of {counted(len(self.mean_std[0]), 'channel')}, and the images have {shape.channels}"
            raise Mistakes(Problem(message, "mean_std", hint="write channels: 1 or channels: 3, or mean_std: auto"))


@lru_cache(maxsize=8)
def _measure(data: MeasuredImages) -> tuple[int, Statistics]:
    """The channels of a sample, and the mean and standard deviation of each.

    Raises:
        Mistakes: A file of the sample cannot be decoded.
    """
    wanted = 0 if data.channels == "auto" else data.channels
    form = Form(wanted, *data._sides, data.resize)
    channels, statistics, outcome = measure(data._sample(), form, data.encoded)
    if outcome.failures:
        problem = data._broken(outcome.failures)
        hint = f"{problem.hint}; tuner inspect looks at all images, and not just at a sample"
        raise Mistakes(replace(problem, hint=hint))
    return channels, statistics
