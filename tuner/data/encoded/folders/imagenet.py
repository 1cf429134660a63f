"""ImageNet: the folders and the devkit of ILSVRC2012, as torchvision has them."""

import io
import re
import tarfile
from functools import cached_property, lru_cache
from hashlib import md5
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner.data.encoded.dataset import Share
from tuner.data.encoded.folders.listing import FolderListing, Lister
from tuner.data.encoded.labelled_files import LabelledFiles
from tuner.data.encoded.listing import Items
from tuner.data.encoded.measured import Size
from tuner.data.encoded.published import PublishedImages
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted

_DEVKIT = "ILSVRC2012_devkit_t12"
_FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


class ImageNet(PublishedImages, LabelledFiles):
    """ImageNet (ILSVRC2012): the folders train and val with a folder for each WordNet ID, or val without these.

    The labels of the real test set are not public: the images of val, on which results are published, are the test set,
    and the winner alone sees them. The validation set, which chooses the winner, is split off the training images.
    """

    kind: Literal["imagenet"] = "imagenet"
    root: str
    """The folder of train and val and, for the names of the classes, meta.bin or the devkit; relative to the file."""
    size: Size = 224
    """Side in pixels to which the images are resized; [height, width] for others than squares."""
    validation: Share = 0.02
    """Share of the training images of each class that is held out as the validation set: 26 of 1,300."""

    @property
    def _complete(self) -> "ImageNetListing":
        return _listing_of(Path(self.root))


class ImageNetListing(FolderListing):
    """The images of ImageNet."""

    @cached_property
    def digest(self) -> str:
        """A digest of the names of all files: the sizes of 1.3 million would take minutes on a network."""
        found = md5()
        for split, items in sorted(self.splits.items()):
            found.update("\n".join([split, *items.names, ""]).encode(errors="surrogateescape"))
        return found.hexdigest()


@lru_cache(maxsize=2)
def _listing_of(root: Path) -> ImageNetListing:
    """List the images.

    Raises:
        Mistakes: A folder is missing or empty, or the classes of the images in val are unknown.
    """
    lister = Lister(root)
    train = lister.classes_in(root / "train")
    wnids = sorted(name for name, files in train.items() if files)
    if len(wnids) < 2:
        _refuse(root, f"train has {counted(len(wnids), 'class', 'classes')} with images", "a folder for each class")
    meta = _Meta(root)
    names = meta.names
    classes = [names.get(wnid, wnid) for wnid in wnids]
    classes = [
        f"{name} ({wnid})" if classes.count(name) > 1 else name for name, wnid in zip(classes, wnids, strict=True)
    ]
    label = {wnid: number for number, wnid in enumerate(wnids)}
    test = _validation_images(root, lister, meta)
    if unseen := sorted(set(test) - set(wnids)):
        _refuse(root, f"val has classes that train lacks: {', '.join(unseen[:10])}", "add their training images")
    if not names:
        lister.ignored.append(f"the names of the classes: there is no meta.bin and no {_DEVKIT}")

    def items(found: dict[str, list[str]]) -> Items:
        each = [(label[wnid], name) for wnid in wnids for name in sorted(found.get(wnid, []))]
        return Items([name for _, name in each], np.array([number for number, _ in each], dtype=np.int64))

    return ImageNetListing(tuple(classes), {"train": items(train), "test": items(test)}, tuple(lister.ignored), root)


def _validation_images(root: Path, lister: Lister, meta: "_Meta") -> dict[str, list[str]]:
    """The images of the folder val by their WordNet IDs."""
    flat = {}
    for entry, is_folder in lister.entries(root / "val"):
        if not is_folder and (match := _FLAT.fullmatch(entry.name)):
            flat[int(match[1])] = f"val/{entry.name}"
    if not flat:
        by_class = lister.classes_in(root / "val")
        if not any(by_class.values()):
            _refuse(root, "val has no images", "a folder for each class, or ILSVRC2012_val_00000001.JPEG and so on")
        return {wnid: files for wnid, files in by_class.items() if files}
    truth = meta.truth
    if not truth:
        hint = f"put torchvision's meta.bin, or {_DEVKIT} or its archive, into {root}"
        _refuse(root, "val has no folders of classes, and the classes of its images are unknown", hint)
    if max(flat) > len(truth):
        _refuse(root, f"val has image {max(flat)}, and the classes of {len(truth)} are known", "use the devkit of 2012")
    found: dict[str, list[str]] = {}
    for number, name in sorted(flat.items()):
        found.setdefault(truth[number - 1], []).append(name)
    return found


class _Meta:
    """What meta.bin or the devkit says: the names of the classes, and the classes of the images in val."""

    def __init__(self, root: Path) -> None:
        self.names: dict[str, str] = {}
        """The first name of each WordNet ID; empty if it is unknown."""
        self.truth: list[str] = []
        """The WordNet ID of each image in val, by its number; empty if it is unknown."""
        try:
            self._read(root)
        except Exception as error:  # damaged files raise many types
            hint = "delete it, or get it again"
            _refuse(root, f"meta.bin or the devkit cannot be read: {type(error).__name__}: {error}", hint)

    def _read(self, root: Path) -> None:
        if (root / "meta.bin").is_file():
            from torchvision.datasets.imagenet import load_meta_file

            names, self.truth = load_meta_file(str(root))
            self.names = {wnid: each if isinstance(each, str) else each[0] for wnid, each in names.items()}
        elif (folder := root / _DEVKIT / "data").is_dir():
            truth = folder / "ILSVRC2012_validation_ground_truth.txt"
            self._of_devkit((folder / "meta.mat").read_bytes(), truth.read_text())
        elif (archive := root / f"{_DEVKIT}.tar.gz").is_file():
            with tarfile.open(archive) as files:
                meta, truth_file = (
                    files.extractfile(f"{_DEVKIT}/data/{name}")
                    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
                )
                assert meta and truth_file
                self._of_devkit(meta.read(), truth_file.read().decode())

    def _of_devkit(self, meta: bytes, truth: str) -> None:
        """Read the devkit as torchvision's `parse_devkit_archive` does, which writes into the folder."""
        from scipy.io import loadmat

        synsets: Any = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = [synset for synset in synsets if synset[4] == 0]  # those without children
        wnids = {int(synset[0]): str(synset[1]) for synset in leaves}
        self.names = {str(synset[1]): str(synset[2]).split(", ")[0] for synset in leaves}
        self.truth = [wnids[int(line)] for line in truth.split()]


def _refuse(root: Path, what: str, hint: str) -> None:
    raise Mistakes(Problem(f"{root}: {what}", "root", hint=hint))
