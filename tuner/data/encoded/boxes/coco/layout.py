"""Where the annotation files and the images of a dataset of COCO's format lie."""

import re
from pathlib import Path

from tuner.data.encoded.listing import split_of
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem

_NAME = re.compile(r"(?:instances[_-])?([a-z]+?)(\d{4})?\.json", re.IGNORECASE)
"""The names of files in the folder annotations, such as instances_train2017.json or val.json."""
_ROBOFLOW = "_annotations.coco.json"
LAYOUT = (
    "a folder has annotations/instances_train2017.json and instances_val2017.json with train2017 and val2017, as COCO; "
    f"or train, valid and test with {_ROBOFLOW} in each; or one JSON file. annotations names another file"
)


def files_in(root: Path) -> dict[str, Path]:
    """The annotation files in a folder by split, that of the training images first; none if it has none.

    Raises:
        Mistakes: It cannot be read, or has several files for one set.
    """
    try:
        folders = {each.name: each for each in sorted(root.iterdir()) if each.is_dir()}
        roboflow = {
            split: path
            for name, folder in folders.items()
            if (split := split_of(name)) and (path := folder / _ROBOFLOW).is_file()
        }
        if "train" in roboflow:
            return {"train": roboflow["train"], **roboflow}
        for folder in (root / "annotations", root):
            if not folder.is_dir():
                continue
            files = sorted(each for each in folder.iterdir() if each.suffix.lower() == ".json")
            if found := _by_split(files):
                return found
            if len(files) == 1:
                return {"train": files[0]}
    except OSError as error:
        message = f"{escaped(str(root))} cannot be read: {error.strerror or error}"
        raise Mistakes(Problem(message, "root", hint="a path is relative to the folder of the YAML file")) from None
    return {}


def _by_split(files: list[Path]) -> dict[str, Path]:
    """The split of each file by its name; that of val is the test set if there is no other one."""
    matches = [(file, match) for file in files if (match := _NAME.fullmatch(file.name)) and split_of(match[1])]
    instances = [each for each in matches if each[0].name.lower().startswith("instances")]
    found: dict[str, Path] = {}
    for file, match in instances or matches:
        split = split_of(match[1])
        assert split is not None
        if split in found:
            what = f"{found[split].name} and {file.name} would both be the {split} set"
            hint = f"name that of the training images: annotations: {file.parent.name}/{file.name}"
            raise Mistakes(Problem(f"{escaped(str(file.parent))}: {what}", "annotations", hint=hint))
        found[split] = file
    if "train" not in found:
        return {}
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    return {"train": found["train"], **found}


def folders_of(root: Path, file: Path) -> list[Path]:
    """Where the images of an annotation file in a folder may lie."""
    stem = re.sub(r"^[a-z]+[_-](?=[a-z]+\d*$)", "", file.stem)  # instances_train2017: train2017
    word = stem.rstrip("0123456789")
    places = [root / name for name in dict.fromkeys((stem, word))]
    return [file.parent, *places, *(root / "images" / each.name for each in places), root / "images", root]
