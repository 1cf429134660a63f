"""The boxes of each set of a dataset, counted."""

from tuner.data.images import ImageData
from tuner.error_text import escaped
from tuner.inspection.findings import SPLITS, BoxCounts
from tuner.interfaces import Target


def counts_of_boxes(data: ImageData) -> dict[str, BoxCounts]:
    """Count the boxes of each set, as a network is trained and measured on them; empty if there are none."""
    found = {}
    for name, target in data.targets.items():
        if target.kind == "boxes":
            found = {split: _counted(data, split, name, target) for split in SPLITS}
    return found


def _counted(data: ImageData, split: str, name: str, target: Target) -> BoxCounts:
    rows = data.targets_in(split)[name]
    classes = rows[..., 4].long()
    is_box = classes >= 0
    numbers = classes[is_box].bincount(minlength=target.size).tolist()
    by_class = dict(zip(map(escaped, target.classes), numbers, strict=True))
    without = int((~is_box).all(dim=1).sum())
    return BoxCounts(len(rows), without, by_class, int((rows[..., 5][is_box] > 0).sum()))
