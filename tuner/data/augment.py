"""Augmentation of training batches, on the device that they are on: each image is changed in its own way.

A batch is changed by a few operations on whole tensors; torchvision's transforms draw one change for all images of a
batch. Random numbers are torch's: an epoch that is seeded gives the same batches.
"""

import math
from collections.abc import Collection
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tuner.config import Config, Tunable
from tuner.errors import Mistakes, Problem
from tuner.interfaces import IGNORED, Batch, ImageShape, Mixed

_ASPECT = math.log(4 / 3)  # a crop's aspect ratio is from 3/4 to 4/3 of the image's
_ERASED_SHARE = (0.02, 1 / 3)
_ERASED_ASPECT = math.log(3.3)


class Augment(Config):
    """Random changes of the training images. Those of the validation and test sets are never changed."""

    # Ranges of ``space: auto``: crops weaker than Inception's (0.08), which suit large images of one object; erase as
    # Zhong et al. (2020), mixup as Zhang et al. (2018). Flips, rotations and hues may change a class: they are the
    # user's.

    flip: bool = False
    """Whether half of the images are mirrored, left to right."""
    crop: Annotated[float, Tunable({"uniform": [0.4, 1]})] = Field(1.0, gt=0, le=1)
    """Smallest share of an image's area that is cut out and resized to the whole size; 1 for no crop."""
    shift: int = Field(0, ge=0, le=1024)
    """Most pixels by which an image is moved in each direction, over black: a crop of a padded image."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Largest angle in degrees by which an image is rotated, to either side."""
    color: Annotated[float, Tunable({"uniform": [0, 0.4]})] = Field(0.0, ge=0, le=1)
    """Largest relative change of brightness, of contrast and, in images of three channels, of saturation."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest turn of the hues of an image of three channels, either way, as a share of the circle of hues."""
    policy: Literal["none", "trivial", "rand"] = "none"
    """torchvision's TrivialAugmentWide or RandAugment, for images of one or three channels: image by image, slowly."""
    erase: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, le=1)
    """Share of the images in which a random rectangle is black."""
    mixup: Annotated[float, Tunable({"uniform": [0, 0.4]})] = Field(0.0, ge=0, le=10)
    """Parameter alpha of mixup: a batch is blended with itself by a share from Beta(alpha, alpha); 0 for none."""
    cutmix: float = Field(0.0, ge=0, le=10)
    """Parameter alpha of CutMix, which pastes rectangles instead; with mixup, each batch gets one of the two."""

    @property
    def moves(self) -> bool:
        """Whether a place in an image changes."""
        return self.flip or self.crop < 1 or self.shift > 0 or self.rotation > 0 or self.policy != "none"

    @property
    def mixes(self) -> bool:
        """Whether an image gets parts of another one."""
        return self.mixup > 0 or self.cutmix > 0

    def check(self, image: ImageShape, masks: Collection[str] = ()) -> None:
        """Raise Mistakes if images of this shape, or their masks, cannot be changed like this."""
        if self.policy != "none" and masks:
            hint = "leave it out; flip, crop, shift and rotation move masks, too"
            raise Mistakes(Problem(f"{self.policy} moves images, but not their masks", "policy", hint=hint))
        if self.policy != "none" and image.channels not in (1, 3):
            hint = "the other fields of augment work on them"
            raise Mistakes(
                Problem(f"{self.policy} cannot change images of {image.channels} channels", "policy", hint=hint)
            )
        if self.hue and image.channels != 3:
            has = "1 channel" if image.channels == 1 else f"{image.channels} channels"
            hint = "leave hue out, or set it to 0; images of 3 channels have hues"
            raise Mistakes(Problem(f"images of {has} have no hue", "hue", hint=hint))

    def __call__(self, batch: Batch, masks: Collection[str] = ()) -> Batch:
        """Change a batch of images, float32 (N, C, H, W) in [0, 1].

        Args:
            batch: The batch.
            masks: The names of the targets that are masks (N, H, W), which move with the images. Of a pixel that comes
                from outside of the image, the class is unknown.
        """
        images, targets = batch.inputs, dict(batch.targets)
        if self.policy != "none":
            images = _by_policy(images, self.policy)
        if self.crop < 1 or self.shift or self.rotation:
            maps = self._maps(images)
            images = _resampled(images, maps)
            targets |= {name: _resampled_mask(targets[name], maps) for name in masks}
        elif self.flip:
            chosen = _chosen(images, 0.5)
            images = torch.where(chosen, images.flip(-1), images)
            targets |= {name: torch.where(chosen[:, 0], targets[name].flip(-1), targets[name]) for name in masks}
        if self.color:
            images = _colored(images, self.color)
        if self.hue:
            images = _turned_in_hue(images, self.hue)
        if self.erase:
            images = torch.where(_chosen(images, self.erase) & _rectangles(images), 0.0, images)
        images = images.contiguous(memory_format=torch.channels_last)
        return self._mixed(Batch(images, targets), masks) if self.mixes else Batch(images, targets)

    def _maps(self, images: Tensor) -> Tensor:
        """Draw for each image the affine map (N, 2, 3) from places in the result to places in the image, in [-1, 1]."""
        count, (height, width) = len(images), images.shape[-2:]
        angle = _uniform(images, count, -self.rotation, self.rotation) * (math.pi / 180)
        area = _uniform(images, count, self.crop, 1.0)
        aspect = _uniform(images, count, -_ASPECT, _ASPECT) * (self.crop < 1)
        # Where the whole width or height is less than the drawn aspect ratio asks for, the share is kept instead.
        across = (area.sqrt() * (aspect / 2).exp()).clamp(max=1).maximum(area)
        down = area / across
        flipped = 1 - 2 * (torch.rand(count, device=images.device) < 0.5 * self.flip).float()
        cos, sin = angle.cos(), angle.sin()
        x = _uniform(images, count, -1, 1) * (1 - across)
        y = _uniform(images, count, -1, 1) * (1 - down)
        if self.shift:
            x = x + (2 / width) * _uniform(images, count, -self.shift - 0.5, self.shift + 0.5).round()
            y = y + (2 / height) * _uniform(images, count, -self.shift - 0.5, self.shift + 0.5).round()
        rows = (
            torch.stack([across * cos * flipped, -down * sin * (height / width), x], dim=1),
            torch.stack([across * sin * (width / height) * flipped, down * cos, y], dim=1),
        )
        return torch.stack(rows, dim=1)

    def _mixed(self, batch: Batch, masks: Collection[str]) -> Batch:
        images, count = batch.inputs, len(batch)
        cut = self.cutmix > 0 and (self.mixup == 0 or torch.rand(()).item() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = torch.distributions.Beta(alpha, alpha).sample().item()  # on the host, which does not wait for it
        order = torch.randperm(count).to(images.device, non_blocking=True)
        own, other = dict(batch.targets), {name: each[order] for name, each in batch.targets.items()}
        if cut:
            height, width = images.shape[-2:]
            tall, wide = (round(side * math.sqrt(1 - share)) for side in (height, width))
            top, left = (int(torch.randint(most + 1, ()).item()) for most in (height - tall, width - wide))
            images = images.clone(memory_format=torch.channels_last)
            box = (..., slice(top, top + tall), slice(left, left + wide))
            images[box] = batch.inputs[order][box]
            share = 1 - tall * wide / (height * width)
            for name in masks:  # a mask is cut as the image is: nothing of it is left to blend
                own[name] = own[name].clone()
                own[name][box] = other[name][box]
                other[name] = own[name]
        else:
            images = torch.lerp(images[order], images, share)
        return Batch(images, own, Mixed(other, share))


def _uniform(images: Tensor, count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, device=images.device) * (high - low) + low


def _chosen(images: Tensor, share: float) -> Tensor:
    """Choose a share of the images: booleans (N, 1, 1, 1)."""
    return torch.rand((len(images), 1, 1, 1), device=images.device) < share


def _resampled(images: Tensor, maps: Tensor) -> Tensor:
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    found = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # Black begins at the edge of the image: grid_sample's own zeros would darken its outermost pixels, too.
    return found * (grid.abs() <= 1 + 1e-5).all(dim=-1).unsqueeze(1)


def _resampled_mask(mask: Tensor, maps: Tensor) -> Tensor:
    """Move a mask, uint8 (N, H, W), as `_resampled` moves images: each pixel has the class of the nearest one."""
    values = mask.float().unsqueeze(1)
    grid = F.affine_grid(maps, list(values.shape), align_corners=False)
    found = F.grid_sample(values, grid, mode="nearest", padding_mode="border", align_corners=False).squeeze(1)
    return torch.where((grid.abs() <= 1 + 1e-5).all(dim=-1), found, IGNORED).to(mask.dtype)


def _colored(images: Tensor, most: float) -> Tensor:
    def factor() -> Tensor:
        return _uniform(images, len(images), 1 - most, 1 + most).view(-1, 1, 1, 1)

    images = (images * factor()).clamp(0, 1)
    images = torch.lerp(_grey(images).mean(dim=(1, 2, 3), keepdim=True), images, factor()).clamp(0, 1)
    if images.shape[1] == 3:
        images = torch.lerp(_grey(images), images, factor()).clamp(0, 1)
    return images


def _turned_in_hue(images: Tensor, most: float) -> Tensor:
    """Turn the hues of each image by one angle; each pixel keeps its value and its saturation, those of HSV."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    divisor = chroma.clamp(min=torch.finfo(images.dtype).tiny)  # grey has no chroma, so any hue of it is grey
    hue = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, hue)  # in sixths of the circle
    turned = hue + 6 * _uniform(images, len(images), -most, most).view(-1, 1, 1)
    sixths = (turned.unsqueeze(1) + torch.arange(5, 0, -2, device=images.device).view(-1, 1, 1)) % 6
    missing = torch.minimum(sixths, 4 - sixths).clamp(0, 1)  # the share of the chroma that each channel lacks
    return value.unsqueeze(1) - chroma.unsqueeze(1) * missing


def _grey(images: Tensor) -> Tensor:
    """Return the brightness (N, 1, H, W) of images, with the weights of ITU-R BT.601 if they have three channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _rectangles(images: Tensor) -> Tensor:
    """Draw a rectangle for each image: booleans (N, 1, H, W)."""
    count, (height, width) = len(images), images.shape[-2:]
    area = _uniform(images, count, *_ERASED_SHARE)
    aspect = _uniform(images, count, -_ERASED_ASPECT, _ERASED_ASPECT)
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for side, sign, shape in ((height, -1, (1, 1, -1, 1)), (width, 1, (1, 1, 1, -1))):
        share = (area.sqrt() * (sign * aspect / 2).exp()).clamp(max=1)
        start = torch.rand(count, device=images.device) * (1 - share) * side
        place = torch.arange(side, device=images.device).view(shape) + 0.5
        first, last = start.view(-1, 1, 1, 1), (start + share * side).view(-1, 1, 1, 1)
        inside = inside & (place >= first) & (place < last)
    return inside


def _by_policy(images: Tensor, policy: Literal["trivial", "rand"]) -> Tensor:
    from torchvision.transforms import v2

    transform = v2.TrivialAugmentWide() if policy == "trivial" else v2.RandAugment()
    pixels = images.mul(255).round().to(torch.uint8)
    return torch.stack([transform(each) for each in pixels]).to(torch.float32) / 255
