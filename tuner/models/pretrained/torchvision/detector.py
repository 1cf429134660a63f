"""The module that has a detector of torchvision compute images as these are.

torchvision's own transform resizes and normalizes them: that is left to the data and to `Normalize`. It also puts the
masks of what is found, which have the size of their boxes, into the image, which `in_image` does here.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.interfaces import ImageShape, Output
from tuner.interfaces.instances import mask_sides
from tuner.models.detection.layers import Pad
from tuner.models.detection.protocol import Boxes, Detector
from tuner.models.detection.suppression import float32
from tuner.models.heads import Normalize
from tuner.models.pretrained.torchvision.selection import selected


def wrapped(model: Any, image: ImageShape, head: str, output: Output, first: int) -> nn.Module:
    """Make a `Detector` of a model of torchvision, which is changed.

    Args:
        model: A model of torchvision that finds boxes, or masks, too.
        image: The images.
        head: Name of the output; ``""`` to return a tensor.
        output: The output.
        first: Label of the first class.
    """
    pad = Pad(model.transform.size_divisible)
    trunk = nn.Sequential(OrderedDict[str, nn.Module](normalize=Normalize(image), pad=pad, backbone=model.backbone))
    for name, layer in list(trunk.named_modules()):
        if isinstance(layer, nn.Conv2d) and ".extra" in name and layer.stride[0] > 1:
            trunk.set_submodule(name, _Float32(layer))
    model.backbone = _Features()
    model.transform = _Given(model.transform.image_mean, model.transform.image_std)
    last, layers = model, [model.head] if hasattr(model, "head") else [model.rpn.head, model.roi_heads.box_predictor]
    if hasattr(model, "roi_heads"):
        last = model.roi_heads
        last.box_roi_pool = _Pool(last.box_roi_pool, pad.size(image.height, image.width))
        if last.has_mask():
            last.mask_roi_pool = _Pool(last.mask_roi_pool, pad.size(image.height, image.width))
            layers.append(last.mask_predictor)
    # Boxes have more digits than bfloat16: they are computed in float32 from what autocast lets layers compute in it.
    for layer in layers:
        layer.register_forward_hook(_as_float32)
    return _TorchvisionDetector(trunk, model, head, output, first, last.detections_per_img)


def _as_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {key: _as_float32(module, inputs, value) for key, value in outputs.items()}
    return type(outputs)(_as_float32(module, inputs, value) for value in outputs)


class _TorchvisionDetector(Detector):
    """A trunk, and a model of torchvision that gets its features.

    Args:
        trunk: Maps images to a dict of features.
        detector: The model, whose backbone is a `_Features`, and whose transform a `_Given`.
        head: See `Detector`, and the others, too.
    """

    def __init__(
        self, trunk: nn.Module, detector: nn.Module, head: str, output: Output, first: int, detections: int
    ) -> None:
        super().__init__(head, output, first, detections)
        self.trunk = trunk
        self.detector = detector

    def losses(self, images: Tensor, targets: list[Boxes]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.detector(self._computed(images), targets)
        return losses

    def detect(self, images: Tensor) -> list[Boxes]:
        found: list[Boxes] = self.detector(self._computed(images))
        if self.output.masks:
            size = (images.shape[-2], images.shape[-1])
            for each in found:
                each["masks"] = in_image(each["masks"], each["boxes"], size, mask_sides(*size))
        return found

    def rows(self, images: Tensor) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        features, padded = self._features(images)
        one = _Computed(images[:1], features, padded)
        rows, masks = selected(self.detector, features, one, size, self.first, self.detections)
        if masks is None:
            return rows
        sides = mask_sides(*size)
        boxes = rows[..., :4].flatten(0, 1)
        whole = in_image(masks.flatten(0, 1).unsqueeze(1), boxes, size, sides).view(*rows.shape[:2], -1)
        whole = torch.where((rows[..., 5] >= 0).unsqueeze(2), whole, torch.zeros_like(whole))
        return torch.cat([rows, whole], dim=2)

    def _computed(self, images: Tensor) -> "_Computed":
        return _Computed(images, *self._features(images))

    def _features(self, images: Tensor) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """The features of images by level, and the height and width of the padded images."""
        trunk: Any = self.trunk
        features = {level: each.float() for level, each in trunk(images).items()}
        return features, trunk.pad.size(*images.shape[-2:])


def in_image(masks: Tensor, boxes: Tensor, size: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    """Put the masks of boxes where these lie in their image. Nothing waits for the device.

    Args:
        masks: Masks of what the boxes hold (n, 1, m, m).
        boxes: The boxes (n, 4), in pixels.
        size: Height and width of the image.
        sides: Height h and width w of the masks of the image.

    Returns:
        The masks of the image, (n, 1, h, w): their value in the centre of each pixel, and 0 outside of the boxes.
    """
    left, top, right, bottom = (each.view(-1, 1) for each in boxes.unbind(dim=1))
    down, across = (
        (torch.arange(n, device=boxes.device) + 0.5) * (each / n) for n, each in zip(sides, size, strict=True)
    )
    y, x = (down - top) / (bottom - top) * 2 - 1, (across - left) / (right - left) * 2 - 1  # from -1 to 1 in the box
    shape = (boxes.shape[0], *sides)
    places = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=3)
    inside = (x.abs() <= 1)[:, None, :] & (y.abs() <= 1)[:, :, None]
    sampled = functional.grid_sample(masks, places, padding_mode="border", align_corners=False)
    return sampled * inside.unsqueeze(1)


class _Float32(nn.Conv2d):
    """A convolution with the weights of another one, in float32 also where autocast computes in less.

    On CPUs, the bfloat16 gradient of a 3x3 convolution of stride 2 is memory that nobody has written if its input is
    one pixel, as are the coarsest features of small images, which the extra layers of a detector compute.

    Args:
        layer: The other one.
    """

    def __init__(self, layer: Any) -> None:
        settings = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
        super().__init__(**{each: getattr(layer, each) for each in settings}, bias=layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, features: Tensor) -> Tensor:
        device = "cpu" if features.is_meta else features.device.type
        with float32(device):
            return super().forward(features.float())


class _Computed:
    """Images whose features are known. torchvision's models take it for a list of images, and for an ``ImageList``.

    Args:
        images: Images (N, C, H, W), of which only the shapes are read.
        features: Their features by the name of the level.
        padded: Height and width of the padded images, of which the features are.
    """

    def __init__(self, images: Tensor, features: dict[str, Tensor], padded: tuple[int, int]) -> None:
        self.images = images
        self.features = features
        self.image_sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        self.shape = torch.Size((*images.shape[:2], *padded))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.images)

    @property
    def tensors(self) -> "_Computed":
        """What torchvision computes features of, and asks for the shape of a batch."""
        return self


class _Features(nn.Module):
    """A backbone of torchvision that returns the features that are known."""

    def forward(self, images: _Computed) -> dict[str, Tensor]:
        return images.features


class _Given(nn.Module):
    """A transform of torchvision that leaves images and boxes as they are.

    Args:
        mean: Mean of each channel with which torchvision's weights were trained.
        std: Their standard deviation.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: _Computed, targets: Any = None) -> tuple[_Computed, Any]:
        return images, targets

    def postprocess(self, found: list[Boxes], *sizes: Any) -> list[Boxes]:
        """Return detections as they are: in pixels of the images."""
        return found


class _Pool(nn.Module):
    """A pooling of regions that takes features for those of padded images, which they are.

    Of small images torchvision's would not find out by which factor features are smaller.

    Args:
        pool: torchvision's pooling.
        size: Height and width of the padded images.
    """

    def __init__(self, pool: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.pool = pool
        self.size = size

    def forward(self, features: dict[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        pooled: Tensor = self.pool(features, regions, [self.size] * len(sizes))
        return pooled

    def of_regions(self, features: Mapping[str, Tensor], regions: Tensor) -> Tensor:
        """Pool regions (R, 5), the number of the image and the edges of each, in tensors of fixed shapes."""
        from torchvision.ops import roi_align
        from torchvision.ops.poolers import _setup_scales

        pool: Any = self.pool
        levels = [features[name] for name in pool.featmap_names if name in features]
        if pool.scales is None:
            pool.scales, pool.map_levels = _setup_scales(
                levels, [self.size], pool.canonical_scale, pool.canonical_level
            )
        of_level = pool.map_levels([regions[:, 1:]]) if len(levels) > 1 else None
        pooled: Tensor | None = None
        for number, (level, scale) in enumerate(zip(levels, pool.scales, strict=True)):
            found: Tensor = roi_align(level, regions, pool.output_size, scale, pool.sampling_ratio)
            if pooled is None or of_level is None:
                pooled = found
            else:
                pooled = torch.where((of_level == number).view(-1, 1, 1, 1), found, pooled)
        assert pooled is not None
        return pooled
