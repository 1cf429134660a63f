"""torchvision's policies of augmentation, computed for a whole batch at once, on its device.

`distributions` draws an operation and its magnitude for each image. A `Round` computes one operation for each: it moves
pixels (`moves`), blends them with others (`blends`), and exchanges their values by a table (`tables`). The result is,
pixel by pixel, what torchvision makes of images of bytes. Nothing waits for the device.
"""

from tuner.data.augmentation.policies.policy import changed_by_policy

__all__ = ["changed_by_policy"]
