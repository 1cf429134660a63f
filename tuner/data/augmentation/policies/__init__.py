"""torchvision's policies of augmentation, computed for a whole batch at once, on its device.

`distributions` draws an operation and its magnitude for each image, `operations` computes them: an operation moves the
pixels of an image (`moves`), blends them with others (`blends`), or exchanges their values by a table (`tables`). What
an operation does to a pixel is what torchvision does to one of an image of bytes. Nothing waits for the device.
"""

from tuner.data.augmentation.policies.policy import changed_by_policy

__all__ = ["changed_by_policy"]
