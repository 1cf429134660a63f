"""Folders with everything wrong that a folder can have, and datasets with images twice."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import encoded_files
import numpy as np
import pytest
import torch
from PIL import Image

from tuner.data import Digits, ImageFolder, ParquetImages
from tuner.errors import UserError
from tuner.inspection.datasets import inspect_dataset, inspect_folder
from tuner.inspection.findings import Findings, Item, Same

Photo = Callable[..., Path]


def silent(done: int, total: int, broken: int) -> None:
    assert 0 <= broken <= done <= total


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    """Writes an image of random pixels below a folder, another one each time."""
    rng = np.random.default_rng(0)

    def write(name: str, size: tuple[int, int] = (20, 30), mode: str = "RGB") -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def photos(photo: Photo, tmp_path: Path) -> Path:
    """A folder of two classes, with which nothing is wrong."""
    for number in range(6):
        photo(f"cats/{number}.png")
        photo(f"dogs/{number}.jpg", size=(40, 20))
    return tmp_path / "photos"


def found(folder: Path) -> Findings:
    return inspect_folder(folder, silent)


def test_a_folder_with_which_nothing_is_wrong(photos: Path) -> None:
    findings = found(photos)
    assert not findings.is_broken
    assert findings.counts == {"": {"cats": 6, "dogs": 6}}
    assert findings.sides == ([20, 30, 40], [20, 25, 30])
    assert findings.modes == {"RGB": 12}
    assert (findings.imbalance, findings.same, findings.notes) == (1.0, [], [])


def test_the_sets_of_a_folder_are_counted_one_by_one(photo: Photo, tmp_path: Path) -> None:
    for split, count in (("train", 8), ("Val", 2)):
        for number in range(count):
            photo(f"{split}/cats/{number}.png")
            photo(f"{split}/dogs/{number}.png")
    photo("train/dogs/one more.png")
    findings = found(tmp_path / "photos")
    assert findings.splits == ["train", "validation"]
    assert findings.counts == {"train": {"cats": 8, "dogs": 9}, "validation": {"cats": 2, "dogs": 2}}
    assert findings.imbalance == 9 / 8
    assert not findings.is_broken


@pytest.mark.slow
def test_every_broken_file_is_named_with_why(photos: Path, photo: Photo) -> None:
    (photos / "cats" / "text.jpg").write_text("no image")
    (photos / "cats" / "empty.png").touch()
    whole = photo("cats/whole.jpg", size=(200, 200)).read_bytes()
    (photos / "dogs" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (20_000, 20_000)).save(photos / "dogs" / "enormous.png")
    findings = found(photos)
    assert findings.is_broken
    assert set(findings.broken) == {"cats/text.jpg", "cats/empty.png", "dogs/cut.jpg", "dogs/enormous.png"}
    assert "not an image" in findings.broken["cats/text.jpg"]
    assert "runcated" in findings.broken["dogs/cut.jpg"]
    assert "too large" in findings.broken["dogs/enormous.png"]
    assert findings.refused == [], "training refuses the folder for its broken files alone, which are listed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_broken(photos: Path) -> None:
    (photos / "cats" / "0.png").chmod(0)
    assert list(found(photos).broken) == ["cats/0.png"]


def test_the_same_image_in_two_sets_leaks(photo: Photo, tmp_path: Path) -> None:
    for name in ("train/cats/a.png", "train/cats/b.png", "train/dogs/c.png", "test/cats/d.png", "test/dogs/e.png"):
        photo(name)
    root = tmp_path / "photos"
    shutil.copy(root / "train/cats/a.png", root / "test/cats/copy.png")
    shutil.copy(root / "train/cats/b.png", root / "train/dogs/copy.png")
    findings = found(root)
    assert findings.leaks == [Same(("test/cats/copy.png", "train/cats/a.png"), ("test", "train"), ("cats",))]
    assert [each for each in findings.same if each.contradicts] == [
        Same(("train/cats/b.png", "train/dogs/copy.png"), ("train",), ("cats", "dogs"))
    ]
    assert findings.same[0].leaks, "what matters most is listed first"


def test_files_of_one_size_with_other_bytes_are_not_the_same(photos: Path, photo: Photo) -> None:
    first, second = photo("cats/one.bmp"), photo("cats/two.bmp")
    assert first.stat().st_size == second.stat().st_size
    assert found(photos).same == []


def test_what_is_odd_is_noted(photos: Path, photo: Photo) -> None:
    (photos / "cats" / "notes.txt").write_text("")
    (photos / "cats" / "dead.png").symlink_to("nowhere")
    (photos / "cats" / "loop").symlink_to("..")
    (photos / "cats" / "self.png").symlink_to("self.png")
    os.mkfifo(photos / "cats" / "pipe.png")
    (photos / "cats" / "folder.png").mkdir()
    photo("cats/cmyk.jpg", mode="CMYK")
    photo("cats/deep/inside.png")
    photo("loose.png")
    photo(f"cats/{'n' * 240}.png")
    Image.fromarray(np.full((9, 9), 4000, dtype=np.uint16)).save(photos / "cats" / "16 bits.png")
    one = Image.new("RGB", (20, 30))
    one.save(photos / "cats" / "two frames.gif", save_all=True, append_images=[Image.new("RGB", (20, 30), "red")])
    exif = one.getexif()
    exif[0x0112] = 6
    one.save(photos / "cats" / "rotated.jpg", exif=exif)
    os.mkdir(os.fsencode(photos) + b"/\xff")  # noqa: PTH102 - a name that is no text
    findings = found(photos)
    notes = "\n".join(findings.notes)
    for note in (
        "1 file without the suffix of an image (1 .txt): cats/notes.txt",
        "3 links to nothing or in a circle, ignored: cats/dead.png, cats/loop, cats/self.png",
        "1 special file (a pipe, a socket or a device), ignored: cats/pipe.png",
        "1 folder without images in a class's folder: cats/folder.png",
        "1 image in folders within a class's folder: cats/deep/inside.png",
        "1 image outside of the classes' folders: loose.png",
        "1 CMYK (printing colours)",
        "1 I;16 (16 bits)",
        "1 image has several frames",
        "1 image is rotated as EXIF data say",
        "1 folder whose name is not UTF-8: \\udcff",
        "1 folder without images: \\udcff",
    ):
        assert note in notes
    assert findings.broken == {}
    assert findings.is_broken, "training would not know to which class the deep image belongs"
    assert findings.images == 19


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no images"),
        (["a.png", "b.png"], "no folders of classes"),
        (["cats/a.png"], "one class"),
        (["a/cats/1.png", "b/dogs/2.png"], "too deep"),
        (["train/cats/1.png", "train/dogs/2.png", "test/birds/3.png"], "classes that train lacks: birds"),
        (["cats/1.png", "dogs/2.png"], "fewer images than sets"),
    ],
)
def test_what_training_would_refuse_is_told(names: list[str], message: str, photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in names:
        photo(name)
    findings = found(tmp_path / "photos")
    assert findings.is_broken
    [problem] = findings.refused
    assert message in problem.message
    assert problem.hint
    assert findings.images == len(names)


@pytest.mark.parametrize("is_experiment", [True, False])
def test_an_image_in_colour_among_grey_ones_is_found_as_training_finds_it(
    is_experiment: bool, photo: Photo, tmp_path: Path
) -> None:
    for number in range(8):
        for name in ("train/cats", "train/dogs", "test/cats", "test/dogs"):
            photo(f"{name}/{number}.png", mode="L")
    photo("test/cats/red.png")
    root = tmp_path / "photos"
    data = ImageFolder(root=str(root), size=8)
    with pytest.raises(UserError, match=r"test/cats/red.png: it is in colour"):
        data.load_test()
    findings = inspect_dataset(data, silent) if is_experiment else found(root)
    assert findings.broken == {"test/cats/red.png": "it is in colour"}
    assert "channels: 3" in findings.notes[-1]
    assert not inspect_dataset(ImageFolder(root=str(root), size=8, channels=3), silent).is_broken


def test_what_an_experiment_ignores_is_what_its_training_ignores(photo: Photo, tmp_path: Path) -> None:
    for number in range(8):
        for name in ("train/cats", "train/dogs", "heldout/cats", "heldout/dogs", "extra/birds"):
            photo(f"{name}/{number}.png")
    data = ImageFolder(root=str(tmp_path / "photos"), size=8, validation="heldout")
    findings = inspect_dataset(data, silent)
    assert findings.notes == ["ignored: 1 folder beside train (extra)"]
    assert findings.counts["validation"] == {"cats": 8, "dogs": 8}


def test_an_unreadable_row_is_broken_and_nothing_else(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [b"", *map(encoded_files.encoded, range(39))]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 20}), tmp_path / "all.parquet")
    data = ParquetImages(file=str(tmp_path / "all.parquet"), size=8, channels=3, mean_std="imagenet")
    findings = inspect_dataset(data, silent)
    assert (findings.broken, findings.images) == ({"all.parquet:00": "it has no bytes"}, 40)


def test_a_dataset_in_files_is_counted_in_the_sets_of_its_trials(photos: Path) -> None:
    shutil.copy(photos / "cats" / "0.png", photos / "cats" / "copy.png")
    data = ImageFolder(root=str(photos), size=8, validation=0.2, test=0.2)
    findings = inspect_dataset(data, silent)
    sizes = {split: sum(classes.values()) for split, classes in findings.counts.items()}
    assert sizes == data.describe().sizes
    [same] = findings.same
    assert set(same.names) == {"cats/0.png", "cats/copy.png"}


def test_a_dataset_in_memory_is_compared_image_by_image() -> None:
    findings = inspect_dataset(Digits(size=16), silent)
    assert findings.images == 1797
    assert findings.classes == list("0123456789")
    assert findings.same == []
    assert findings.as_dict()["width"] == {"min": 16, "median": 16, "max": 16}


def test_counts_of_many_images_take_little_memory() -> None:
    findings = Findings("many", "")
    tracemalloc.start()
    try:
        findings.add(Item(f"{number}", "train", f"{number % 7}", 32, 32, "RGB") for number in range(10_000))
        assert tracemalloc.get_traced_memory()[1] < 100_000, "less than ten bytes an image"
    finally:
        tracemalloc.stop()
    assert findings.images == 10_000
    assert findings.sides == ([32, 32, 32], [32, 32, 32])
    assert findings.forms == {(32, 32): 10_000}
    assert torch.tensor(list(findings.counts["train"].values())).sum() == 10_000
