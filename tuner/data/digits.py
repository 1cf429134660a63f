"""scikit-learn's handwritten digits: 1,797 images that are part of that package and need no download."""

from functools import lru_cache
from hashlib import md5
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from tuner.data.images import Description, ImageData, Split
from tuner.data.in_memory import InMemoryImages
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape

_TOTAL = 1797
_TEST = 360


class Digits(InMemoryImages):
    """1,797 grey images of handwritten digits, 8x8 pixels, 10 classes; 360 of them are the test set."""

    kind: Literal["digits"] = "digits"
    size: int = Field(8, ge=8, le=1024)
    """Side to which the images are resized, in pixels; their original side is 8."""
    validation: int = Field(300, ge=10, le=_TOTAL - _TEST - 10)
    """Number of training images that are held out as the validation set, stratified by class."""

    @model_validator(mode="after")
    def _fits_the_canvas(self) -> "Digits":
        if self.canvas is not None and self.canvas < self.size:
            hint = f"the images are {self.size} wide"
            raise Mistakes(Problem(f"{self.canvas} is too small", key="canvas", hint=hint))
        return self

    @property
    def image(self) -> ImageShape:
        side = self.canvas or self.size
        return ImageShape(1, side, side, mean=(0.3053,), std=(0.3762,))

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        resize = {"kind": "resize", "height": self.size, "width": self.size, "interpolation": "bilinear"}
        return [resize, *super().preprocessing]

    @property
    def validation_size(self) -> int:
        return self._held_out_of(_TOTAL - _TEST, self.validation)

    def describe(self) -> Description:
        settings = f"{self.size} {self.canvas} {self._split_settings}"
        train = _TOTAL - _TEST - self.validation_size
        sizes = {"train": min(train, self.limit or train), "validation": self.validation_size, "test": _TEST}
        return Description("digits", md5(settings.encode()).hexdigest()[:8], "sklearn.datasets.load_digits", sizes)

    def prepare(self) -> tuple[ImageData, str]:
        return self, ""

    def location(self) -> str:
        return "part of scikit-learn"

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        from sklearn.model_selection import train_test_split

        images, labels = _resized(self.size)
        # The test set does not depend on the experiment's seed: it belongs to the dataset.
        train, test = train_test_split(range(_TOTAL), test_size=_TEST, stratify=labels.numpy(), random_state=0)
        index = torch.tensor(train if split == "train" else test)
        return images[index], labels[index]


@lru_cache(maxsize=1)
def _resized(size: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32).mul(255 / 16).unsqueeze(1)  # originally in [0, 16]
    if size != 8:
        images = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return images.round().to(torch.uint8).squeeze(1), torch.from_numpy(digits.target).to(torch.int64)
