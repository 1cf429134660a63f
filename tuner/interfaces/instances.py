"""Targets of objects with masks: which pixel belongs to which object, in one number for each pixel.

As in Cityscapes, the number of a pixel says both the class of its object and which object of the image it is: class *
1024 + number, with numbers from 1 to 1023 that no two objects of an image share. 0 is the background. Objects that are
neither trained on nor measured, such as crowds, have the negative of that.
"""

import torch
from torch import Tensor

NUMBERS = 1024
"""Numbers of the objects of an image; 0 is none."""
_LONGEST = 160
"""Longest side of the masks that models predict, in pixels: larger ones take much memory."""


def numbers_of(instances: Tensor) -> Tensor:
    """Which object of its image each pixel belongs to, from 1; 0 for none, of integers of any shape."""
    return instances.abs() % NUMBERS


def classes_of(instances: Tensor) -> Tensor:
    """The class of the object of each pixel; -1 for none, of integers of any shape."""
    return torch.where(instances == 0, -1, instances.abs() // NUMBERS)


def boxes_of(instances: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Find the boxes of what is visible of objects. Nothing waits for the device.

    Args:
        instances: The target, int32 (N, H, W).
        most: Most objects of an image M; those with the highest numbers are left out if there are more.

    Returns:
        The boxes, (N, M, 6), as `tuner.interfaces.TargetKind` describes them, and the numbers of their objects, int64
        (N, M).
    """
    count, height, width = instances.shape
    flat = instances.flatten(1).long()
    numbers = numbers_of(flat)

    def extreme(values: Tensor, how: str, start: int) -> Tensor:
        found = torch.full((count, NUMBERS), start, dtype=torch.int64, device=flat.device)
        return found.scatter_reduce_(1, numbers, values.expand(count, -1), how)

    down = torch.arange(height, device=flat.device).repeat_interleave(width).unsqueeze(0)
    across = torch.arange(width, device=flat.device).repeat(height).unsqueeze(0)
    left, top = extreme(across, "amin", width), extreme(down, "amin", height)
    right, bottom = extreme(across, "amax", -1) + 1, extreme(down, "amax", -1) + 1
    codes = torch.zeros((count, NUMBERS), dtype=torch.int64, device=flat.device).scatter_(1, numbers, flat)
    codes[:, 0] = 0
    is_object = codes != 0
    edges = [torch.where(is_object, each, 0) for each in (left, top, right, bottom)]
    classes = torch.where(is_object, codes.abs() // NUMBERS, -1)
    rows = torch.stack([*edges, classes, (codes < 0).long()], dim=2).float()
    # Objects first: their order is that of their numbers.
    order = (codes == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return rows.gather(1, order.unsqueeze(2).expand(-1, -1, 6)), order * (codes.gather(1, order) != 0)


def masks_of(instances: Tensor, numbers: Tensor, sides: tuple[int, int]) -> Tensor:
    """The masks of objects, float32 (N, M, h, w) in [0, 1]: the share of each pixel that is the object's.

    Args:
        instances: The target, int32 (N, H, W).
        numbers: The numbers of the objects, (N, M); those of 0 are empty.
        sides: Height and width of the masks.
    """
    own = numbers_of(instances).unsqueeze(1) == numbers.view(*numbers.shape, 1, 1)
    own = own & (numbers > 0).view(*numbers.shape, 1, 1)
    return torch.nn.functional.adaptive_avg_pool2d(own.float(), sides)


def mask_sides(height: int, width: int) -> tuple[int, int]:
    """The height and the width of the masks that models predict for images: a power of 2 smaller, up to 160 pixels."""
    while max(height, width) > _LONGEST:
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def binary_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Which pixels of an image predicted masks have, booleans (K, H, W): those of 0.5 and more.

    Args:
        masks: The masks of K detections, (K, h * w) in [0, 1], with the `mask_sides` of the image.
        height: Height of the image, in pixels.
        width: Its width.
    """
    sides = mask_sides(height, width)
    probabilities = masks.float().view(1, -1, *sides)
    if sides != (height, width) and len(masks):
        probabilities = torch.nn.functional.interpolate(probabilities, size=(height, width), mode="bilinear")
    return probabilities.view(-1, height, width) >= 0.5


def instances_of(detections: Tensor, height: int, width: int) -> Tensor:
    """The masks of detections as a target has them, int32 (H, W); those of the surest lie in front.

    Args:
        detections: Rows of x1, y1, x2, y2, score, class and a mask, (K, 6 + h * w), of at most 1,023 objects.
        height: Height of the image, in pixels.
        width: Its width.
    """
    codes = torch.zeros((height, width), dtype=torch.int32)
    order = detections[:, 4].argsort(stable=True).tolist()
    masks = binary_masks(detections[:, 6:], height, width)
    for number, row in enumerate(order, start=1):
        codes[masks[row].cpu()] = int(detections[row, 5]) * NUMBERS + number
    return codes
