"""Inspection of a folder of images, and of the dataset of an experiment."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from tuner.data import ImageFolder
from tuner.data.decoding import IN_COLOUR
from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.listing import stamps
from tuner.data.images import ImageData, Images
from tuner.error_text import escaped
from tuner.errors import Problem, UserError, mistakes_in
from tuner.formatting import counted, listed
from tuner.inspection.box_counts import counts_of_boxes
from tuner.inspection.examine import Examined, Progress, examine
from tuner.inspection.findings import SPLITS, Findings, Item
from tuner.inspection.walk import Tree, walk
from tuner.interfaces import Target, TargetKind

_SHOWN = 5
"""Most names in a note."""
_LOSES = {
    "CMYK": "printing colours",
    "P": "a palette",
    "LA": "transparency",
    "RGBA": "transparency",
    "PA": "transparency",
    "I;16": "16 bits",
    "I;16B": "16 bits",
    "I": "16 or 32 bits",
    "F": "floats",
}
"""What training converts to bytes of grey, or of red, green and blue, by Pillow's name of the format."""


def inspect_folder(root: Path, progress: Progress) -> Findings:
    """Look at a folder of images, whatever is wrong with it.

    Args:
        root: The folder.
        progress: Called as files are examined.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise UserError(Problem(what, where=str(root), hint="give a folder of images, or an experiment's YAML file"))
    root = Path(os.path.normpath(root.absolute()))
    tree = walk(root)
    findings = Findings(_what(tree), str(root))
    for split, label in tree.folders:
        findings.counts.setdefault(split, {})[escaped(label)] = 0
    names, sizes = [file.name for file in tree.files], [file.size for file in tree.files]
    data, problems = _as_dataset(root)
    only_grey = data is not None and data.only_grey
    examined = examine(names, lambda name: f"{root}/{name}", sizes, progress, only_grey=only_grey)
    findings.add(
        _item(file.name, file.split, file.label, each) for file, each in zip(tree.files, examined, strict=True)
    )
    findings.notes += [*_notes(tree), *_forms(findings, examined)]
    findings.refused += [each for each in problems if not (findings.broken and each.items)]
    return findings


def inspect_dataset(data: ImageData, progress: Progress) -> Findings:
    """Look at the dataset of an experiment, in the sets that its trials would train and be measured on.

    Args:
        data: The dataset, prepared.
        progress: Called as images are examined.
    """
    description = data.describe()
    findings = Findings(f"the dataset {description.name}", description.source)
    findings.notes += [f"ignored: {each}" for each in data.ignored]
    if isinstance(data, EncodedImages):
        _add_encoded(findings, data, progress)
    else:
        findings.add(_in_memory(data, progress))
    findings.boxes = counts_of_boxes(data)
    if not findings.broken:
        findings.notes += _shares_of_classes(data)
    return findings


def _add_encoded(findings: Findings, data: EncodedImages, progress: Progress) -> None:
    found = [
        (name, split, caption)
        for split, items in data.files().items()
        for name, caption in zip(items.names, data.captions(items), strict=True)
    ]
    found.sort()  # neighbours on a disk, and in a group of rows, are read one after another
    names = [name for name, *_ in found]
    sizes = _sizes(data, names)
    unread = data.unread(names)
    examined = [
        seen if seen.failure else replace(seen, failure=unread.get(name, ""))
        for name, seen in zip(
            names, examine(names, data.encoded, sizes, progress, only_grey=data.only_grey), strict=True
        )
    ]
    findings.add(_item(*each, seen) for each, seen in zip(found, examined, strict=True))
    findings.broken |= {escaped(name): escaped(why) for name, why in data.absent().items()}
    findings.notes += _forms(findings, examined)


def _sizes(data: EncodedImages, names: list[str]) -> list[int]:
    """The sizes of the images' files in bytes; -1 where there is none."""
    if not data.has_files:
        return [-1] * len(names)
    return [-1 if stamp is None else stamp[0] for stamp in stamps(map(str, map(data.encoded, names)))]


def _in_memory(data: ImageData, progress: Progress) -> Iterator[Item]:
    train, validation = data.load()
    sets = dict(zip(SPLITS, (train, validation, data.load_test()), strict=True))
    total, done = sum(map(len, sets.values())), 0
    for split, images in sets.items():
        yield from _of_set(split, images, data.targets.get("label"))
        done += len(images)
        progress(done, total, 0)


def _shares_of_classes(data: ImageData) -> Iterator[str]:
    """How many of the training images' pixels, boxes or objects each class has, for each target of these."""
    counted_by: dict[TargetKind, str] = {"mask": "pixels", "boxes": "boxes", "instances": "objects"}
    targets = {name: target for name, target in data.targets.items() if target.kind in counted_by}
    counts = data.class_counts() if targets else {}
    for name, target in targets.items():
        of, unit = counts[name], counted_by[target.kind]
        shares = zip(target.classes, of.counts, strict=True)
        text = ", ".join(f"{label} {count / max(of.samples, 1):.1%}" for label, count in shares)
        yield f"{name}, by the {unit} of the training images: {text}"


def _of_set(split: str, images: Images, target: Target | None) -> Iterator[Item]:
    mode = {1: "L", 3: "RGB"}.get(images.images.shape[1], f"{images.images.shape[1]} channels")
    height, width = images.images.shape[-2:]
    for number, pixels in enumerate(images.images):
        digest = hashlib.blake2b(np.ascontiguousarray(pixels.numpy()).data).hexdigest()
        names = [] if target is None else target.names(images.targets["label"][number])
        label = f"images with {', '.join(images.targets)}" if target is None else listed(names)
        yield Item(f"{split} image {number}", split, label, width, height, mode, digest=digest)


def _item(name: str, split: str, label: str, seen: Examined) -> Item:
    return Item(escaped(name), split, escaped(label), seen.width, seen.height, seen.mode, seen.failure, seen.digest)


def _what(tree: Tree) -> str:
    classes = {label for _, label in tree.folders}
    kind = f"a folder of images in {counted(len(classes), 'class', 'classes')}"
    if not classes:
        kind = "a folder of images without classes" if tree.files else "a folder without images"
    if not tree.splits:
        return f"{kind}, not split: training splits it by a seed" if classes else kind
    return f"{kind}, in folders for {', '.join(tree.splits)}"


def _notes(tree: Tree) -> Iterator[str]:
    """What is odd about a folder, and what training ignores of it."""
    if tree.others:
        kinds = ", ".join(f"{count:,} {escaped(suffix) or 'without a suffix'}" for suffix, count in tree.others.items())
        total = counted(tree.others.total(), "file")
        yield f"{total} without the suffix of an image ({kinds}): {_some(tree.other_names)}"
    for names, what in (
        (tree.loose, "outside of the classes' folders"),
        (tree.deep, "in folders within a class's folder"),
    ):
        if names:
            yield f"{counted(len(names), 'image')} {what}: {_some(names)}"
    if tree.links:
        yield f"{counted(len(tree.links), 'link')} to nothing or in a circle, ignored: {_some(tree.links)}"
    if tree.special:
        total = counted(len(tree.special), "special file")
        yield f"{total} (a pipe, a socket or a device), ignored: {_some(tree.special)}"
    if tree.within:
        yield f"{counted(len(tree.within), 'folder')} without images in a class's folder: {_some(tree.within)}"
    if tree.beside:
        yield f"{counted(len(tree.beside), 'folder')} beside those of the splits, ignored: {_some(tree.beside)}"
    for folder, why in tree.unreadable.items():
        yield f"the folder {escaped(folder)} cannot be read: {why}"
    empty = [f"{split}/{label}" if split else label for (split, label), count in tree.folders.items() if not count]
    if empty:
        yield f"{counted(len(empty), 'folder')} without images: {_some(empty)}"
    if tree.not_utf8:
        yield f"{counted(len(tree.not_utf8), 'folder')} whose name is not UTF-8: {_some(tree.not_utf8)}"
    trained = {label for (split, label), count in tree.folders.items() if split == "train" and count}
    for split in tree.splits:
        unseen = sorted(label for (of, label), n in tree.folders.items() if of == split and n and label not in trained)
        if unseen and trained:
            yield f"{split} has {counted(len(unseen), 'class', 'classes')} that train lacks: {_some(unseen)}"


def _forms(findings: Findings, examined: list[Examined]) -> Iterator[str]:
    """What training converts of the images."""
    converted = [f"{findings.modes[mode]:,} {mode} ({what})" for mode, what in _LOSES.items() if findings.modes[mode]]
    if converted:
        yield f"converted to bytes of grey or colour: {', '.join(converted)}"
    if any(each.failure == IN_COLOUR for each in examined):
        yield "the first images are grey, so training fails on one in colour unless it has channels: 3, or channels: 1"
    if rotated := sum(each.is_rotated for each in examined):
        yield f"{counted(rotated, 'image is', 'images are')} rotated as EXIF data say"
    if animated := sum(each.has_frames for each in examined):
        yield f"{counted(animated, 'image has', 'images have')} several frames, of which the first is used"


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(escaped, names[:_SHOWN])) + more


def _as_dataset(root: Path) -> tuple[ImageFolder | None, list[Problem]]:
    """The dataset of a folder as training would read it; None, and why, if training would refuse the folder."""
    try:
        return ImageFolder(root=str(root)), []
    except ValidationError as error:
        return None, mistakes_in(error)
