"""Images that cannot be used are left out on request, of datasets of every format: found once, the same for all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoded_files import (
    noise,
    problem_of,
    shape_of,
    write_coco,
    write_csv,
    write_imagenet,
    write_masks,
    write_parquet,
    write_voc_boxes,
    write_yolo,
)
from PIL import Image

from tuner.data import (
    COCO,
    CSVImages,
    ImageFolder,
    ImageMaskFolder,
    ImageNet,
    ParquetImages,
    VOCDetection,
    YOLOFolder,
)
from tuner.data.encoded import cached, dataset
from tuner.data.encoded.dataset import EncodedImages
from tuner.data.encoded.folders.listing import listing_of
from tuner.data.loading.source import ALONE
from tuner.errors import UserError
from tuner.inspection.datasets import inspect_dataset

pytestmark = pytest.mark.usefixtures("own_data_dir")


def cut(path: Path) -> str:
    """Cut a file short, and return its name."""
    content = path.read_bytes()
    path.write_bytes(content[: -len(content) // 6])
    return path.name


def folder(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    for number in range(60):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        noise(number, (60, 50)).save(root / "ab"[number % 2] / f"{number}.png")
    return ImageFolder, {"root": str(root)}, cut(root / "a" / "10.png")


def imagenet(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_imagenet(root, 60, 5)
    return ImageNet, {"root": str(root)}, cut(root / "train" / "n02012849" / "n02012849_3.JPEG")


def csv(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    file = write_csv(root, 60)
    return CSVImages, {"file": str(file)}, cut(root / "images" / "deeper" / "7.png")


def parquet(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    file = write_parquet(root / "a.parquet", [0, 1] * 30, ["x", "y"], broken=[7])
    return ParquetImages, {"file": str(file)}, "a.parquet:07"


def masks(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_masks(root, 60)
    return ImageMaskFolder, {"root": str(root)}, cut(root / "images" / "7.png")


def broken_masks(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_masks(root, 60)
    Image.new("L", (3, 4)).save(root / "masks" / "7.png")
    return ImageMaskFolder, {"root": str(root)}, "7.png"


def coco(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_coco(root, 30, 6)
    return COCO, {"root": str(root)}, cut(root / "train2017" / "000000000004.jpg")


def other_sizes(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_coco(root, 30, 6)
    noise(4, shape_of(4)[::-1]).save(root / "train2017" / "000000000004.jpg")
    return COCO, {"root": str(root)}, "000000000004.jpg"


def objects(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    kind, fields, name = coco(root)
    return kind, fields | {"instances": True}, name


def yolo(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_yolo(root, 20, 10, 5)
    return YOLOFolder, {"root": str(root)}, cut(root / "images" / "val" / "25.jpg")


def voc(root: Path) -> tuple[type[EncodedImages], dict[str, Any], str]:
    write_voc_boxes(root, 40, 10)
    return VOCDetection, {"root": str(root)}, cut(root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2008_000004.jpg")


FORMATS = [folder, imagenet, csv, parquet, masks, broken_masks, coco, other_sizes, objects, yolo, voc]
Written = tuple[type[EncodedImages], dict[str, Any], str]


@pytest.mark.parametrize("write", FORMATS, ids=lambda each: each.__name__)
def test_an_image_that_cannot_be_used_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path], Written]
) -> None:
    kind, given, name = write(tmp_path / "root")
    fields = {"size": 24, "channels": 3, "mean_std": "imagenet", **given}
    data = kind(**fields, skip_broken=True)
    every = sum(map(len, data._complete.splits.values()))
    description = data.describe()
    assert sum(description.sizes.values()) == every - 1
    assert not any(Path(each).name == name for split in data.files() for each in data.names(split))
    [ignored] = [each for each in description.ignored if name in each]
    assert ignored.startswith("1 image that cannot be used (")
    assert capsys.readouterr().err.count(f"decoding {every} images once") == 1
    test = data.load_test()
    wanted = [*data.load(), test]
    assert [len(each) for each in wanted] == list(description.sizes.values())
    for cache in ("disk", "none"):
        with kind(**fields, skip_broken=True, cache=cache).opened(torch.device("cpu"), ALONE) as sets:
            for source, images in zip(sets, wanted, strict=False):
                [batch] = source.batches(len(images), None)
                assert torch.equal((batch.inputs * 255).round().to(torch.uint8), images.images)
                assert all(torch.equal(batch.targets[key], images.targets[key]) for key in images.targets)
    assert not inspect_dataset(data, lambda *_: None).is_broken
    assert "decoding" not in capsys.readouterr().err  # that was remembered


@pytest.mark.parametrize("write", [folder, coco, other_sizes], ids=lambda each: each.__name__)
def test_without_being_asked_for_nothing_is_left_out(tmp_path: Path, write: Callable[[Path], Written]) -> None:
    kind, fields, name = write(tmp_path / "root")
    fields = {"size": 24, "channels": 3, "mean_std": "imagenet", **fields}
    if write is other_sizes:
        problem = problem_of(kind, **fields)
        assert name in problem.message and "skip_broken: true leaves it out" in problem.hint
        return
    with pytest.raises(UserError) as error:
        kind(**fields).load()
    [problem] = error.value.problems
    assert name in problem.message and "skip_broken: true leaves them out" in problem.hint


def test_boxes_stay_with_their_images(tmp_path: Path) -> None:
    _, fields, name = coco(tmp_path / "root")
    data = COCO(**fields, size=24, skip_broken=True)
    whole, left = data._complete, data._listing
    assert set(whole.row) - set(left.row) == {f"train2017/{name}"}
    before, after = (
        {
            each: rows.tolist()
            for each, rows in zip(listing.row, listing.placed(data.form).padded(listing.rows(listing.row)), strict=True)
        }
        for listing in (whole, left)
    )
    assert after == {each: rows for each, rows in before.items() if not each.endswith(name)}
    assert left.digest != whole.digest


def test_what_has_changed_is_looked_at_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, fields, _ = folder(tmp_path / "root")
    assert len(kind(**fields, skip_broken=True).ignored) == 1
    noise(99, (60, 50)).save(tmp_path / "root" / "a" / "10.png")
    cut(tmp_path / "root" / "b" / "11.png")
    for each in (cached._file, cached._names, dataset._usable, dataset._sets, listing_of):
        each.cache_clear()  # as in another process
    [ignored] = kind(**fields, skip_broken=True).ignored
    assert "b/11.png" in ignored and "a/10.png" not in ignored
    assert capsys.readouterr().err.count("decoding 60 images once") == 2


def test_a_set_without_images_that_can_be_used_is_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "root", 20, 3)
    for path in (root / "val2017").iterdir():
        path.write_bytes(b"nothing")
    problem = problem_of(COCO, root=str(root), size=24, skip_broken=True)
    assert "test has no images left: ignored 3 images that cannot be used (val2017/" in problem.message
    assert problem.key == "root"


def test_a_class_without_images_that_can_be_used_is_refused(tmp_path: Path) -> None:
    kind, fields, _ = folder(tmp_path / "root")
    for path in (tmp_path / "root" / "b").iterdir():
        cut(path)
    assert "1 class has fewer images than sets: b (0)" in problem_of(kind, **fields, skip_broken=True).message


def test_it_works_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, fields, _ = csv(tmp_path / "root")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "file"))
    assert sum(kind(**fields, size=8, skip_broken=True).describe().sizes.values()) == 59


def test_what_is_remembered_names_why(tmp_path: Path, own_data_dir: Path) -> None:
    kind, fields, name = folder(tmp_path / "root")
    assert kind(**fields, skip_broken=True).ignored
    [file] = (own_data_dir / "decoded").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o644  # as other users may share the folder
    [(found, why)] = json.loads(file.read_text()).items()
    assert found == f"a/{name}" and "truncated" in why
