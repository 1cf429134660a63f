"""Tiny datasets in the layouts of files that people have, whose images are noise, and their refusals."""

import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.voc_folder import OBJECTS
from tuner.errors import Mistakes, Problem

WNIDS = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",)}
"""WordNet IDs and names; two classes of ImageNet have the same name."""


def problem_of(kind: type[EncodedImages], **fields: Any) -> Problem:
    """The one problem for which a dataset is refused."""
    with pytest.raises(ValidationError) as error:
        kind(**fields)
    [details] = error.value.errors()
    mistakes = details["ctx"]["error"]
    assert isinstance(mistakes, Mistakes)
    [problem] = mistakes.problems
    assert problem.hint
    return problem


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """An image like no other."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def encoded(seed: int) -> bytes:
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    noise(seed).save(buffer, "png")
    return buffer.getvalue()


def write_csv(folder: Path, count: int = 210, classes: Sequence[str] = ("a", "b", "c")) -> Path:
    """Write images in a folder of folders, and a CSV file with the columns path and label beside it."""
    lines = ["path,label"]
    (folder / "images" / "deeper").mkdir(parents=True)
    for number in range(count):
        noise(number).save(folder / "images" / "deeper" / f"{number}.png")
        lines.append(f"images/deeper/{number}.png,{classes[number % len(classes)]}")
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return folder / "photos.csv"


def write_parquet(
    file: Path,
    labels: Sequence[Any],
    names: Sequence[str] | None = None,
    first: int = 0,
    group: int = 10,
    broken: Collection[int] = (),
) -> Path:
    """Write a Parquet file as Hugging Face does: images as structs of bytes and path, names of classes as metadata.

    Those in the rows `broken` have no bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [
        {"bytes": b"" if number in broken else encoded(first + number), "path": f"{number}.png"}
        for number in range(len(labels))
    ]
    table = pa.table({"image": images, "label": list(labels)})
    if names is not None:
        feature: dict[str, Any] = {"names": list(names), "_type": "ClassLabel"}
        if labels and isinstance(labels[0], list):
            feature = {"feature": feature, "_type": "List"}
        about = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=group)
    return file


def write_masks(
    root: Path, count: int = 210, classes: Sequence[str] = ("sky", "road", "car"), size: tuple[int, int] = (12, 10)
) -> Path:
    """Write images of noise, and masks with a palette that follow from their colours (`mask_of`)."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        image = noise(number, size)
        image.save(root / "images" / f"{number}.png")
        mask = Image.fromarray(mask_of(np.asarray(image)))
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        mask.save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    return root


def write_voc(root: Path, train: int = 150, val: int = 12) -> Path:
    """Write Pascal VOC in small: images of noise, and masks of noise with its palette's indices."""
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for first, count, name in ((0, train, "train"), (train, val, "val")):
        stems = [f"2007_{number:06}" for number in range(first, first + count)]
        (folder / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(stems) + "\n")
        for number, stem in enumerate(stems, start=first):
            noise(number).save(folder / "JPEGImages" / f"{stem}.jpg")
            mask = Image.fromarray(noise_of([*range(21), 255], number))
            mask.putpalette([each for number in range(256) for each in (number, 255 - number, number // 2)])
            mask.save(folder / "SegmentationClass" / f"{stem}.png")
    return root


def write_cityscapes(root: Path, train: int = 150, val: int = 12) -> Path:
    """Write Cityscapes in small: images of noise, masks of noise of all label IDs, and `objects_in` these."""
    seed = 0
    for name, count in (("train", train), ("val", val)):
        for number in range(count):
            labels = noise_of([*range(34), 255], seed)
            city = ("aachen", "bonn")[number % 2]
            stem = f"{city}_{number:06}_000019"
            for top, file, picture in (
                ("leftImg8bit", f"{stem}_leftImg8bit.png", noise(seed)),
                ("gtFine", f"{stem}_gtFine_labelIds.png", Image.fromarray(labels)),
                ("gtFine", f"{stem}_gtFine_instanceIds.png", Image.fromarray(objects_in(labels, seed))),
            ):
                (root / top / name / city).mkdir(parents=True, exist_ok=True)
                picture.save(root / top / name / city / file)
            seed += 1
    return root


def objects_in(labels: "np.ndarray[Any, np.dtype[np.uint8]]", seed: int) -> "np.ndarray[Any, np.dtype[np.uint16]]":
    """A picture that tells up to three objects of a class apart; some pixels are groups."""
    numbers = np.random.default_rng((seed, 1)).integers(-1, 3, labels.shape)
    has_objects = np.isin(labels, (24, 25, 26, 27, 28, 31, 32, 33)) & (numbers >= 0)
    return np.where(has_objects, labels.astype(np.int32) * 1000 + numbers, labels).astype(np.uint16)


def write_coco(root: Path, train: int = 150, val: int = 12) -> Path:
    """Write COCO 2017 in small: images of noise in two shapes, and boxes of `boxes_of` of three categories.

    The mask of an object is an ellipse in its box.
    """
    categories = [{"id": 90, "name": "cup"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    for first, count, name in ((0, train, "train2017"), (train, val, "val2017")):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        (root / name).mkdir(parents=True)
        for number in range(first, first + count):
            height, width = shape_of(number)
            noise(number, (height, width)).save(root / name / f"{number:012}.jpg")
            images.append({"id": 7 * number, "file_name": f"{number:012}.jpg", "width": width, "height": height})
            for x1, y1, x2, y2, label, is_crowd in boxes_of(number):
                outline = outline_of((x1, y1, x2, y2), (height, width), 3 if is_crowd else len(annotations))
                box = {
                    "segmentation": outline,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "category_id": [1, 18, 90][label],
                    "iscrowd": is_crowd,
                }
                annotations.append({"id": len(annotations) + 1, "image_id": 7 * number, **box})
        (root / "annotations").mkdir(exist_ok=True)
        content = {"info": {}, "images": images, "annotations": annotations[::-1], "categories": categories}
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return root


def write_yolo(root: Path, train: int = 150, val: int = 40, test: int = 20) -> Path:
    """Write a folder of Ultralytics in small: images of noise in two shapes, and `boxes_of` them."""
    first = 0
    sets = {split: count for split, count in (("train", train), ("val", val), ("test", test)) if count}
    for split, count in sets.items():
        for name in ("images", "labels"):
            (root / name / split).mkdir(parents=True)
        for number in range(first, first + count):
            noise(number, shape_of(number)).save(root / "images" / split / f"{number}.jpg")
            if lines := yolo_lines(number):
                (root / "labels" / split / f"{number}.txt").write_text("\n".join(lines) + "\n")
        first += count
    folders = "".join(f"{split}: images/{split}\n" for split in sets)
    (root / "data.yaml").write_text(f"path: .\n{folders}names:\n  0: person\n  1: dog\n  2: cup\n")
    return root


def write_voc_boxes(root: Path, train: int = 150, val: int = 80, classes: Sequence[str] = ()) -> Path:
    """Write Pascal VOC's objects in small: images of noise in two shapes, and `boxes_of` them, of all 20 classes."""
    folder, names = root / "VOCdevkit" / "VOC2012", classes or OBJECTS
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for first, count, name in ((0, train, "train"), (train, val, "val")):
        stems = [f"2008_{number:06}" for number in range(first, first + count)]
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems) + "\n")
        for number, stem in enumerate(stems, start=first):
            height, width = shape_of(number)
            noise(number, (height, width)).save(folder / "JPEGImages" / f"{stem}.jpg")
            objects = "".join(
                f"<object><name>{names[(number + number // 20) % len(names)]}</name>"
                f"<difficult>{hard}</difficult><bndbox><xmax>{x2:g}</xmax><xmin>{x1 + 1:g}</xmin><ymax>{y2:g}</ymax>"
                f"<ymin>{y1 + 1:g}</ymin></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
                "</object>"
                for x1, y1, x2, y2, _, hard in boxes_of(number)
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return root


def yolo_lines(number: int) -> list[str]:
    """The boxes of an image, in lines of YOLO's."""
    height, width = shape_of(number)
    return [
        f"{label} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} "
        f"{(y2 - y1) / height:.6f}"
        for x1, y1, x2, y2, label, _ in boxes_of(number)
    ]


def outline_of(box: tuple[float, float, float, float], shape: tuple[int, int], form: int) -> Any:
    """An ellipse in a box, in one of the forms of COCO: a polygon, two of them, or runs, compressed or not."""
    import pycocotools.mask

    x1, y1, x2, y2 = box
    angles = np.linspace(0, 2 * np.pi, 14)[:-1]
    points = np.stack([x1 + (x2 - x1) * (0.5 + 0.5 * np.cos(angles)), y1 + (y2 - y1) * (0.5 + 0.5 * np.sin(angles))], 1)
    if form % 4 < 2:
        parts = [points] if form % 4 == 0 else [points[:7], points[6:]]
        return [part.round(2).ravel().tolist() for part in parts]
    mask = np.zeros(shape, np.uint8, order="F")
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    across, down = (columns - (x1 + x2) / 2) / (x2 - x1), (rows - (y1 + y2) / 2) / (y2 - y1)
    mask[across**2 + down**2 <= 0.25] = 1
    mask[int(y1), int(x1)] = 1
    if form % 4 == 2:
        runs = pycocotools.mask.encode(mask)
        return {"size": list(shape), "counts": runs["counts"].decode()}
    flat = mask.ravel(order="F")
    starts = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    return {"size": list(shape), "counts": [0] * int(flat[0]) + np.diff(starts).tolist()}


def shape_of(number: int) -> tuple[int, int]:
    """The height and the width of an image with boxes."""
    return ((24, 36), (30, 20), (24, 24))[number % 3]


def boxes_of(number: int) -> list[tuple[float, float, float, float, int, int]]:
    """The boxes of an image: x1, y1, x2, y2, class and 1 for a crowd. Each tenth image has none."""
    rng = np.random.default_rng((number, 1))
    height, width = shape_of(number)
    found = []
    for _ in range(0 if number % 10 == 9 else rng.integers(1, 5)):
        (x1, x2), (y1, y2) = (np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in (width, height))
        found.append((x1, y1, x2, y2, int(rng.integers(3)), int(rng.integers(8) == 0)))
    return found


def noise_of(values: Sequence[int], seed: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A mask of the size of `noise`, of random values."""
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), (12, 10))


def mask_of(pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The mask of an image (H, W, 3): 1 where it is rather red, 2 where it is rather green, and else 0."""
    red, green = pixels[..., 0].astype(int), pixels[..., 1].astype(int)
    return np.where(red > 160, 1, np.where(green > 128, 2, 0)).astype(np.uint8)


def write_imagenet(root: Path, train: int = 100, test: int = 10, *, flat: bool = False, meta: str = "") -> Path:
    """Write ImageNet in small.

    Args:
        root: The folder.
        train: Training images of each class.
        test: Images in val of each class.
        flat: Whether val has no folders of classes.
        meta: ``bin`` for torchvision's meta.bin, ``devkit`` for the unpacked devkit, ``archive`` for its archive.
    """
    seed = 0
    truth = []
    for wnid in WNIDS:
        (root / "train" / wnid).mkdir(parents=True)
        for number in range(train):
            noise(seed := seed + 1).save(root / "train" / wnid / f"{wnid}_{number}.JPEG")
    for number in range(test * len(WNIDS)):
        wnid = list(WNIDS)[number * 7 % len(WNIDS)]
        truth.append(wnid)
        folder = root / "val" if flat else root / "val" / wnid
        folder.mkdir(parents=True, exist_ok=True)
        noise(seed := seed + 1).save(folder / f"ILSVRC2012_val_{number + 1:08}.JPEG")
    if meta == "bin":
        import torch

        torch.save((WNIDS, truth), root / "meta.bin")
    elif meta:
        _write_devkit(root, truth)
    if meta == "archive":
        import shutil
        import tarfile

        with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            archive.add(root / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
        shutil.rmtree(root / "ILSVRC2012_devkit_t12")
    return root


def _write_devkit(root: Path, truth: list[str]) -> None:
    from scipy.io import savemat

    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(number, wnid, ", ".join(WNIDS[wnid]), "", 0) for number, wnid in enumerate(reversed(WNIDS), start=1)]
    rows.append((99, "n00001740", "entity", "", 2))
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    numbers = {wnid: number for number, wnid, *_ in rows}
    lines = "".join(f"{numbers[wnid]}\n" for wnid in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
