"""The folders of Pascal VOC, as torchvision unpacks them."""

from functools import lru_cache
from pathlib import Path

from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem

OBJECTS = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 classes of objects."""
_RELATIVE = "a path is relative to the folder of the YAML file"


@lru_cache(maxsize=4)
def folder_of(root: Path, layout: str) -> Path:
    """The folder of JPEGImages in a folder; that of the latest year, if there are several.

    Args:
        root: The folder, or one with VOCdevkit in it.
        layout: What the folder has, as a hint.

    Raises:
        Mistakes: It has none.
    """
    if not root.is_dir():
        what = "it is a file, and no folder" if root.exists() else "there is no such folder"
        raise Mistakes(Problem(f"{escaped(str(root))}: {what}", "root", hint=f"{_RELATIVE}; {layout}"))
    found = [
        each
        for each in (root, *sorted((root / "VOCdevkit").glob("VOC*"), reverse=True))
        if (each / "JPEGImages").is_dir()
    ]
    if not found:
        raise Mistakes(Problem(f"{root}: it has no folder JPEGImages", "root", hint=layout))
    return found[0]


def listed(root: Path, task: str, name: str, layout: str) -> list[str]:
    """The images of a set, without suffix.

    Args:
        root: The folder of JPEGImages.
        task: Segmentation or Main.
        name: The set: train or val.
        layout: What the folder has, as a hint.

    Raises:
        Mistakes: The list cannot be read, or is empty.
    """
    file = root / "ImageSets" / task / f"{name}.txt"
    try:
        stems = list(dict.fromkeys(file.read_text(encoding="utf-8").split()))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Mistakes(Problem(f"{file} cannot be read: {why}", "root", hint=layout)) from None
    if not stems:
        raise Mistakes(Problem(f"{root}: {file.name} is empty", "root", hint=layout))
    return stems
