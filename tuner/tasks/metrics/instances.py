"""The meters of objects with masks."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch import Tensor

from tuner.interfaces.instances import NUMBERS, binary_masks, boxes_of, numbers_of
from tuner.tasks.metrics.boxes import AveragePrecision
from tuner.tasks.metrics.coco import Array, COCOMeter, categories
from tuner.tasks.metrics.meter import ByClass, ErrorKind

if TYPE_CHECKING:
    from hotcoco import COCO

_BOX = 6
"""Values of a detection before those of its mask."""


class MaskAveragePrecision(COCOMeter):
    """COCO's average precision of the masks of detections (N, K, 6 + h * w) for instances (N, H, W).

    The meter keeps the masks as run-length codes, and waits for the device at each batch.
    """

    compared = "segm"

    def __init__(self) -> None:
        super().__init__()
        self._true: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        from hotcoco import mask as coding

        boxes, numbers = boxes_of(target.detach().cpu(), NUMBERS - 1)
        maps = numbers_of(target.detach().cpu()).numpy()
        for image, (rows, own, pixels) in enumerate(zip(boxes.numpy(), numbers.numpy(), maps, strict=True)):
            rows, own = rows[own > 0], own[own > 0]
            for row, code in zip(rows, coding.encode(pixels[..., None] == own), strict=True):
                segmentation = {"segmentation": code, "area": float(coding.area(code)), "iscrowd": int(row[5])}
                edges = [float(each) for each in (row[0], row[1], row[2] - row[0], row[3] - row[1])]
                self._true.append(self._row(image, row[4]) | segmentation | {"bbox": edges})
        for image, found in enumerate(output.detach().cpu()):
            rows = found[found[:, 5] >= 0]
            shown = binary_masks(rows[:, _BOX:], *target.shape[1:]).byte().permute(1, 2, 0).numpy()
            for row, code in zip(rows[:, :_BOX].numpy(), coding.encode(shown), strict=True):
                self._found.append(self._row(image, row[5]) | {"segmentation": code, "score": float(row[4])})
        self._changed(len(output))

    def merge(self, other: Self) -> None:
        for own, others in ((self._true, other._true), (self._found, other._found)):
            own += [row | {"image_id": row["image_id"] + self._images} for row in others]
        self._changed(other._images)

    def _row(self, image: int, category: float) -> dict[str, Any]:
        return {"image_id": self._images + image, "category_id": int(category)}

    def _counted(self) -> Array:
        return np.array([row["category_id"] for row in self._true if not row["iscrowd"]], dtype=np.int64)

    def _objects(self, images: list[dict[str, Any]]) -> "COCO":
        from hotcoco import COCO

        classes = (np.array([row["category_id"] for row in rows]) for rows in (self._true, self._found))
        annotations = [row | {"id": number + 1} for number, row in enumerate(self._true)]
        return COCO({"images": images, "annotations": annotations, "categories": categories(*classes)})

    def _detections(self, objects: "COCO") -> "COCO":
        return objects.load_res(self._found)


class BoxesOfInstances(AveragePrecision):
    """COCO's average precision of the boxes of detections (N, K, 6 + h * w) for those of instances (N, H, W)."""

    names = ("box_map", "box_map50")

    def update(self, output: Tensor, target: Tensor) -> None:
        super().update(output[..., :_BOX], boxes_of(target, NUMBERS - 1)[0])

    def compute(self) -> dict[str, float]:
        found = super().compute()
        return {name: found[name.removeprefix("box_")] for name in self.names}

    def by_class(self) -> ByClass:
        return {f"box_{name}": values for name, values in super().by_class().items() if name != "support"}

    def errors(self) -> list[ErrorKind]:
        return []  # those of the masks are told apart
