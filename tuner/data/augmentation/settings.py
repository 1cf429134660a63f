"""The settings of augmentation, and the order of its steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from tuner.config import Config, Tunable
from tuner.data.augmentation.colour import recoloured, turned_in_hue
from tuner.data.augmentation.copy_paste import with_objects
from tuner.data.augmentation.draws import chosen
from tuner.data.augmentation.erasing import erased
from tuner.data.augmentation.geometry import drawn_maps, resampled
from tuner.data.augmentation.located import Located, located
from tuner.data.augmentation.mixing import mixed
from tuner.data.augmentation.mosaic import composed
from tuner.data.augmentation.policies import changed_by_policy
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted, listed
from tuner.interfaces import Batch, ImageShape, Target


class Augment(Config):
    """Random changes of the training images. Those of the validation and test sets are never changed."""

    # Ranges of ``space: auto``: crops weaker than Inception's (0.08), which suit large images of one object; erase as
    # Zhong et al. (2020), mixup as Zhang et al. (2018). Flips, rotations and hues may change a class: they are the
    # user's. Zooms overlap with crops.

    flip: bool = False
    """Whether half of the images are mirrored, left to right."""
    crop: Annotated[float, Tunable({"uniform": [0.4, 1]})] = Field(1.0, gt=0, le=1)
    """Smallest share of an image's area that is cut out and resized to the whole size; 1 for no crop."""
    zoom: float = Field(1.0, ge=1, le=4)
    """Largest factor by which an image is made larger, of which a part is seen, or smaller, over black; 1 for none."""
    shift: int = Field(0, ge=0, le=1024)
    """Most pixels by which an image is moved in each direction, over black: a crop of a padded image."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Largest angle in degrees by which an image is rotated, to either side."""
    color: Annotated[float, Tunable({"uniform": [0, 0.4]})] = Field(0.0, ge=0, le=1)
    """Largest relative change of brightness, of contrast and, in images of three channels, of saturation."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest turn of the hues of an image of three channels, either way, as a share of the circle of hues."""
    policy: Literal["none", "trivial", "rand"] = "none"
    """torchvision's TrivialAugmentWide or RandAugment, for images of one or three channels."""
    erase: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, le=1)
    """Share of the images in which a random rectangle is black."""
    mixup: Annotated[float, Tunable({"uniform": [0, 0.4]})] = Field(0.0, ge=0, le=10)
    """Parameter alpha of mixup: a batch is blended with itself by a share from Beta(alpha, alpha); 0 for none."""
    cutmix: float = Field(0.0, ge=0, le=10)
    """Parameter alpha of CutMix, which pastes rectangles instead; with mixup, each batch gets one of the two."""
    mosaic: Annotated[float, Tunable({"uniform": [0, 1]})] = Field(0.0, ge=0, le=1)
    """Share of the images that are composed of parts of four images, in data whose targets are boxes or masks."""
    copy_paste: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, le=1)
    """Share of the images that get an object of another image, in data with boxes; with masks, no background of it."""

    @property
    def moves(self) -> bool:
        """Whether a place in an image changes."""
        return self.flip or self._resamples or self.policy != "none"

    @property
    def _resamples(self) -> bool:
        return self.crop < 1 or self.zoom > 1 or self.shift > 0 or self.rotation > 0

    @property
    def mixes(self) -> bool:
        """Whether an image gets parts of another one of its batch, so that the whole batch is needed to change it."""
        return bool(self._mixing)

    @property
    def _mixing(self) -> list[str]:
        """The fields that are set and give an image parts of another one of its batch."""
        return [field for field in ("mixup", "cutmix", "mosaic", "copy_paste") if getattr(self, field) > 0]

    def check(self, image: ImageShape, targets: Mapping[str, Target], batch_size: int) -> None:
        """Raise Mistakes if images of this shape, their targets, or such batches cannot be changed like this."""
        problems: list[Problem] = []
        if batch_size < 2:
            message = "an image gets parts of others of its batch, which is of 1 image, so that this has no effect"
            hint = "leave it out, set it to 0, or set data.batch_size to 2 or more"
            problems += [Problem(message, field, hint=hint) for field in self._mixing]
        places = located(targets)
        if self.policy != "none" and places:
            hint = "leave it out; flip, crop, zoom, shift and rotation move them, too"
            kinds = listed(dict.fromkeys(each.plural for each in places.values()))
            problems.append(Problem(f"{self.policy} moves images, but not their {kinds}", "policy", hint=hint))
        elif self.policy != "none" and image.channels not in (1, 3):
            hint = "the other fields of augment work on them"
            message = f"{self.policy} cannot change images of {image.channels} channels"
            problems.append(Problem(message, "policy", hint=hint))
        if self.hue and image.channels != 3:
            hint = "leave hue out, or set it to 0; images of 3 channels have hues"
            problems.append(Problem(f"images of {counted(image.channels, 'channel')} have no hue", "hue", hint=hint))
        for field in ("mosaic", "copy_paste"):
            if getattr(self, field) and (whole := [name for name in targets if name not in places]):
                message = f"an image that has parts of others has no {listed(whole)} of its own"
                hint = "leave it out, or set it to 0; it is for data whose targets are all boxes or masks"
                problems.append(Problem(message, field, hint=hint))
            elif field == "copy_paste" and self.copy_paste and not any(each.has_objects for each in places.values()):
                hint = "leave it out, or set it to 0; it is for data with boxes"
                problems.append(Problem("the data has no boxes of the objects to paste", field, hint=hint))
        if problems:
            raise Mistakes(*problems)

    def __call__(self, batch: Batch, targets: Mapping[str, Target] = {}) -> Batch:
        """Change a batch.

        Args:
            batch: The batch.
            targets: What the targets of the dataset are, by name: what lies at a place of the images moves with them.
        """
        places = located(targets)
        if self.policy != "none":
            batch = replace(batch, inputs=changed_by_policy(batch.inputs, self.policy))
        if self.mosaic:
            batch = composed(batch, self.mosaic, places)
        if self.moves:
            batch = self._moved(batch, places)
        if self.copy_paste:
            batch = with_objects(batch, self.copy_paste, places)
        images = batch.inputs
        if self.color:
            images = recoloured(images, self.color)
        if self.hue:
            images = turned_in_hue(images, self.hue)
        if self.erase:
            images = erased(images, self.erase)
        batch = replace(batch, inputs=images)
        if self.mixup or self.cutmix:
            batch = mixed(batch, mixup=self.mixup, cutmix=self.cutmix, located=places)
        return replace(batch, inputs=batch.inputs.contiguous(memory_format=torch.channels_last))

    def _moved(self, batch: Batch, places: Mapping[str, Located]) -> Batch:
        images, values = batch.inputs, dict(batch.targets)
        height, width = images.shape[-2:]
        if self._resamples:
            maps = drawn_maps(
                images, flip=self.flip, crop=self.crop, zoom=self.zoom, shift=self.shift, rotation=self.rotation
            )
            images = resampled(images, maps)
            values |= {name: each.moved(values[name], maps, (height, width)) for name, each in places.items()}
        elif self.flip:
            is_flipped = chosen(images, 0.5)
            images = torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(-1), images)
            values |= {name: each.flipped(values[name], is_flipped, width) for name, each in places.items()}
        return Batch(images, values)
