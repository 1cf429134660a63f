"""Folders of images and boxes, by the files that say the boxes."""

from itertools import islice
from pathlib import Path

from tuner.data import COCO, VOCDetection, YOLOFolder
from tuner.data.encoded.boxes.boxed import BoxedImages
from tuner.data.encoded.boxes.coco.layout import files_in
from tuner.data.encoded.boxes.yolo.layout import yaml_in
from tuner.errors import Mistakes

_HEAD = 2**20
"""Bytes of a JSON file in which it says whether it is one of COCO's."""
_LOOKED_AT = 500
"""Most files that are looked at for a label file."""


def kind_of_boxes(root: Path) -> type[BoxedImages] | None:
    """The dataset that reads the boxes in a folder; None if it has none."""
    if _is_coco(root):
        return COCO
    if _is_yolo(root):
        return YOLOFolder
    return VOCDetection if _is_voc(root) else None


def is_coco_file(path: Path) -> bool:
    """Whether a file is one of COCO's, by what stands at its start."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as opened:
        head = opened.read(_HEAD)
    return b'"images"' in head or b'"annotations"' in head


def is_yolo_file(path: Path) -> bool:
    """Whether a file is a data.yaml of YOLO's, by its keys."""
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {"names", "train"} <= {line.partition(":")[0].strip() for line in lines}


def fields_of_coco_file(path: Path) -> dict[str, str]:
    """The fields of a dataset whose boxes stand in a file of COCO's, alone or in a folder ``annotations``."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    return {"root": str(root), "annotations": path.relative_to(root).as_posix()}


def _is_coco(root: Path) -> bool:
    try:
        file = files_in(root).get("train")
    except Mistakes:  # several files for one set: reading it says so
        return True
    return file is not None and is_coco_file(file)


def _is_yolo(root: Path) -> bool:
    file = yaml_in(root)
    if file is not None:
        return is_yolo_file(file)
    labels = (path for pattern in ("labels", "*/labels") for path in root.glob(pattern) if path.is_dir())
    return any(
        file.suffix == ".txt" and file.name != "classes.txt"
        for folder in labels
        for file in islice(folder.rglob("*"), _LOOKED_AT)
    )


def _is_voc(root: Path) -> bool:
    folders = [root, *(root / "VOCdevkit").glob("VOC*")]
    wanted = ("JPEGImages", "Annotations", "ImageSets/Main")
    return any(all((folder / name).is_dir() for name in wanted) for folder in folders)
