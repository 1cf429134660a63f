"""Changes of the colours of images, float32 (N, C, H, W) in [0, 1]."""

import torch
from torch import Tensor

from tuner.data.augmentation.draws import uniform

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # their weights in brightness: ITU-R BT.601


def recoloured(images: Tensor, most: float) -> Tensor:
    """Change brightness, contrast and, of three channels, saturation of each image by up to a share, `most`."""

    def factor() -> Tensor:
        return uniform(images, 1 - most, 1 + most).view(-1, 1, 1, 1)

    images = (images * factor()).clamp(0, 1)
    images = torch.lerp(_grey(images).mean(dim=(1, 2, 3), keepdim=True), images, factor()).clamp(0, 1)
    if images.shape[1] == 3:
        images = torch.lerp(_grey(images), images, factor()).clamp(0, 1)
    return images


def turned_in_hue(images: Tensor, most: float) -> Tensor:
    """Turn the hues of each image by one angle; each pixel keeps its value and its saturation, those of HSV."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    divisor = chroma.clamp(min=torch.finfo(images.dtype).tiny)  # grey has no chroma, so any hue of it is grey
    hue = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, hue)  # in sixths of the circle
    turned = hue + 6 * uniform(images, -most, most).view(-1, 1, 1)
    sixths = (turned.unsqueeze(1) + torch.arange(5, 0, -2, device=images.device).view(-1, 1, 1)) % 6
    missing = torch.minimum(sixths, 4 - sixths).clamp(0, 1)  # the share of the chroma that each channel lacks
    return value.unsqueeze(1) - chroma.unsqueeze(1) * missing


def _grey(images: Tensor) -> Tensor:
    """Return the brightness (N, 1, H, W) of images."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    # A tensor of the weights would be copied from the host, which would wait for the device.
    red, green, blue = images.unbind(1)
    return (_RED * red + _GREEN * green + _BLUE * blue).unsqueeze(1)
