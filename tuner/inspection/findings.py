"""What was found in a dataset: counts, forms, broken images, images that are there more than once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tuner.errors import Problem

IMBALANCE = 3.0
"""How many times as many images as the smallest class the largest one has when accuracy says too little."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a dataset.

    Args:
        name: Its file, or its number in its set.
        split: ``train``, ``validation`` or ``test``; empty if the dataset is not split.
        label: The name of its class; empty if it has none.
        width: In pixels; 0 if unknown.
        height: In pixels; 0 if unknown.
        mode: Pillow's name of its pixels' format; empty if unknown.
        failure: Why it cannot be decoded; empty if it can.
        digest: A digest of its content; empty if no other image can be the same.
    """

    name: str
    split: str
    label: str
    width: int = 0
    height: int = 0
    mode: str = ""
    failure: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Same:
    """Images with the same content.

    Args:
        names: Their names.
        splits: The splits that they are in, without repetitions.
        labels: The classes that they are in, without repetitions.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether a model is measured on an image that it was trained on, or that it was selected by."""
        return len(self.splits) > 1

    @property
    def contradicts(self) -> bool:
        """Whether one image is in several classes."""
        return len(self.labels) > 1


@dataclass(frozen=True)
class BoxCounts:
    """How many boxes a set has.

    Args:
        images: The number of its images.
        without: The number of its images without boxes.
        by_class: The number of boxes by class.
        ignored: How many of them are neither trained on nor measured, such as crowds.
    """

    images: int
    without: int
    by_class: dict[str, int]
    ignored: int

    @property
    def boxes(self) -> int:
        """The number of boxes."""
        return sum(self.by_class.values())


@dataclass
class Findings:
    """What was found in a dataset.

    Args:
        what: A phrase that says what it is.
        where: Where it is.
    """

    what: str
    where: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """The number of images by split and class. The split is empty if the dataset is not split."""
    forms: Counter[tuple[int, int]] = field(default_factory=Counter)
    """The number of images by width and height."""
    modes: Counter[str] = field(default_factory=Counter)
    """The number of images by Pillow's name of their pixels' format."""
    broken: dict[str, str] = field(default_factory=dict)
    """The images that cannot be decoded, and why."""
    same: list[Same] = field(default_factory=list)
    """The images that are there more than once; those that leak first."""
    boxes: dict[str, BoxCounts] = field(default_factory=dict)
    """The boxes of each set; none if the images have no boxes."""
    refused: list[Problem] = field(default_factory=list)
    """Why training refuses the dataset."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, in phrases: what is ignored, what is converted."""

    def add(self, items: Iterable[Item]) -> None:
        """Add all images."""
        by_digest: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            of_split = self.counts.setdefault(item.split, {})
            of_split[item.label] = of_split.get(item.label, 0) + 1
            if item.failure:
                self.broken[item.name] = item.failure
            if item.width:
                self.forms[item.width, item.height] += 1
            if item.mode:
                self.modes[item.mode] += 1
            if item.digest:
                by_digest[item.digest].append(item)
        same = [_same(group) for group in by_digest.values() if len(group) > 1]
        self.same = sorted(same, key=lambda each: (not each.leaks, not each.contradicts))

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(map(sum, (classes.values() for classes in self.counts.values())))

    @property
    def splits(self) -> list[str]:
        """The splits, in their order."""
        return sorted(self.counts, key=lambda split: SPLITS.index(split) if split in SPLITS else -1)

    @property
    def classes(self) -> list[str]:
        """The names of all classes."""
        return sorted({label for classes in self.counts.values() for label in classes})

    @property
    def imbalance(self) -> float | None:
        """How many times as many training images as the smallest class the largest one has; None for one class."""
        counts = [count for count in self.counts.get("train", self.counts.get("", {})).values() if count]
        return max(counts) / min(counts) if len(counts) > 1 else None

    @property
    def leaks(self) -> list[Same]:
        """The images that are in more than one split."""
        return [each for each in self.same if each.leaks]

    @property
    def is_broken(self) -> bool:
        """Whether training would refuse the dataset, or fail on one of its images."""
        return bool(self.broken or self.refused)

    @property
    def sides(self) -> tuple[list[int], list[int]] | None:
        """The smallest, the median and the largest width and height, in pixels; None if no image can be opened."""
        if not self.forms:
            return None
        widths = Counter(width for width, _ in self.forms.elements())
        heights = Counter(height for _, height in self.forms.elements())
        return _range(widths), _range(heights)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON; the keys are stable."""
        width, height = self.sides or (None, None)
        return {
            "what": self.what,
            "where": self.where,
            "is_broken": self.is_broken,
            "images": self.images,
            "splits": {split or "all": self.counts[split] for split in self.splits},
            "imbalance": self.imbalance,
            "width": width and dict(zip(("min", "median", "max"), width, strict=True)),
            "height": height and dict(zip(("min", "median", "max"), height, strict=True)),
            "modes": dict(self.modes.most_common()),
            "broken": [{"name": name, "why": why} for name, why in self.broken.items()],
            "duplicates": [{"names": each.names, "splits": each.splits, "classes": each.labels} for each in self.same],
            "refused": [{"message": each.message, "hint": each.hint} for each in self.refused],
            "boxes": {split: asdict(each) | {"boxes": each.boxes} for split, each in self.boxes.items()},
            "notes": self.notes,
        }


def _same(group: Sequence[Item]) -> Same:
    splits, labels = ({getattr(item, name) for item in group} for name in ("split", "label"))
    return Same(tuple(item.name for item in group), tuple(sorted(splits)), tuple(sorted(labels)))


def _range(sides: Counter[int]) -> list[int]:
    return [min(sides), round(median(sorted(sides.elements()))), max(sides)]
