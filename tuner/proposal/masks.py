"""Folders of images and masks, by the names that people give them."""

from collections import Counter
from itertools import islice
from pathlib import Path

from tuner.data.decoding import is_image

_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "segmentation", "segmentations", "gt")
"""The names of the two folders, in any case."""
_LOOKED_AT = 500
"""Most files of a folder by whose names masks are recognized."""
_SHARE = 0.5
"""Share of the images that need to have a mask, so that two folders are not taken for two classes."""


def fields_of_masks(root: Path) -> dict[str, str] | None:
    """The fields of `ImageMaskFolder` that say where images and masks are in a folder; None if it has none."""
    folders = [root, *sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))]
    for folder in folders:
        names = {each.name.lower(): each.name for each in folder.iterdir() if each.is_dir()}
        images = next((names[name] for name in _IMAGES if name in names), None)
        masks = next((names[name] for name in _MASKS if name in names), None)
        if images is None or masks is None:
            continue
        suffix = _suffix(_stems(folder / images), _stems(folder / masks))
        if suffix is not None:
            found = {"images": images, "masks": masks, "mask_suffix": suffix}
            usual = {"images": "images", "masks": "masks", "mask_suffix": ""}
            return {name: value for name, value in found.items() if value != usual[name]}
    return None


def _stems(folder: Path) -> list[str]:
    files = (each.stem for each in folder.rglob("*") if is_image(each.name))
    return list(islice(files, _LOOKED_AT))


def _suffix(images: list[str], masks: list[str]) -> str | None:
    """What most masks have behind the name of their image; None if too few images have a mask."""
    known = set(images)
    ends: Counter[str] = Counter()
    for mask in masks:
        length = next((length for length in range(len(mask), 0, -1) if mask[:length] in known), None)
        if length is not None:
            ends[mask[length:]] += 1
    if not ends:
        return None
    suffix, count = ends.most_common(1)[0]
    return suffix if count >= _SHARE * len(known) else None
