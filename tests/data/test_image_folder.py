"""Folders of images that are made here; the last test reads real ones if TUNER_DATA_DIR has them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_files import problem_of
from PIL import Image
from pydantic import ValidationError

from tuner import user_code
from tuner.data import ImageFolder
from tuner.data.decoding import Outcome, decode_each
from tuner.data.downloads import data_dir
from tuner.data.loading import decoder
from tuner.data.splits import Folds
from tuner.errors import Problem, UserError
from tuner.train.signature import Signature
from tuner.train.trial_config import TrialConfig
from tuner.user_code import without_imports

REAL = data_dir() / "cifar10-sample"


def fill(folder: Path, count: int = 10, first: int = 0, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
    """Write images, each of one colour or grey of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new(mode, size, (number, 255 - number, 0) if mode == "RGB" else number).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, 20 images each."""
    fill(tmp_path / "photos" / "cats", 20)
    fill(tmp_path / "photos" / "dogs", 20, first=100)
    return tmp_path / "photos"


def refused(root: Path, **more: Any) -> Problem:
    return problem_of(ImageFolder, root=str(root), **more)


def names(data: ImageFolder, split: str) -> set[str]:
    return set(data.files()[split].names)


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_images_need_not_become_squares(tmp_path: Path, resize: Any) -> None:
    for name in ("cats", "dogs"):
        fill(tmp_path / name, 6, size=(16, 8))
    data = ImageFolder(root=str(tmp_path), size=[6, 24], resize=resize)
    assert (data.image.height, data.image.width) == (6, 24)
    images = data.load()[0].images
    assert images.shape[1:] == (3, 6, 24)
    black = 24 - 12 if resize == "pad" else 0  # beside the image, which is twice as wide as it is high
    assert (images.sum(dim=1) == 0).all(dim=1).sum(dim=1).tolist() == [black] * len(images)
    [_, step] = data.preprocessing
    assert step == {"kind": "resize", "height": 6, "width": 24, "interpolation": "bilinear", "fit": resize}


@pytest.mark.parametrize("size", [3, 5000, "large", [8], [8, 8, 8], [8, 3], [8, "wide"], {"height": 8}], ids=str)
def test_a_size_that_no_image_has_is_told(photos: Path, size: Any) -> None:
    problem = refused(photos, size=size)
    assert problem.message == f"{size!r} is not allowed"
    assert problem.hint == "allowed: a side of 4 to 4096 pixels, or two of them: [height, width]"


def test_one_folder_is_split_by_class(photos: Path) -> None:
    data = ImageFolder(root=str(photos), size=8, validation=0.25, test=0.2)
    assert data.describe().sizes == {"train": 24, "validation": 8, "test": 8}
    assert data.targets["label"].classes == ("cats", "dogs")
    train, validation = data.load()
    for part, each in ((train, 12), (validation, 4), (data.load_test(), 4)):
        assert torch.bincount(part.targets["label"]).tolist() == [each, each]
        assert torch.equal(part.targets["label"], (part.images[:, 0, 0, 0] >= 100).long())
        assert torch.equal(part.images[:, 1, 3, 3], 255 - part.images[:, 0, 3, 3])
    assert train.images.untyped_storage().data_ptr() == validation.images.untyped_storage().data_ptr()
    assert len(set(train.targets["label"][:8].tolist())) == 2, "the first images, which limit keeps, are of all classes"


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for split, first in (("train", 0), ("Valid", 50), ("test", 80)):
        for name in ("b", "a"):
            fill(root / split / name, 5, first)
    data = ImageFolder(root=str(root), size=8)
    assert data.describe().sizes == {"train": 10, "validation": 10, "test": 10}
    assert names(data, "validation") == {f"Valid/{name}/{number:03}.png" for name in "ab" for number in range(50, 55)}
    assert set(data.load_test().images[:, 0, 0, 0].tolist()) == set(range(80, 85))
    assert data.targets["label"].classes == ("a", "b")


def test_a_set_without_a_folder_is_split_off_the_training_images(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("a", "b"):
        fill(root / "train" / name, 10)
        fill(root / "test" / name, 5, 80)
    data = ImageFolder(root=str(root), size=8, validation=0.2)
    assert data.describe().sizes == {"train": 16, "validation": 4, "test": 10}
    assert names(data, "validation").isdisjoint(names(data, "train"))
    assert names(data, "validation") != names(ImageFolder(root=str(root), size=8, validation=0.2, seed=1), "validation")


def test_a_path_is_relative_to_the_experiment_s_file(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code, "_folders", [photos.parent])
    assert ImageFolder(root="photos").root == str(photos)
    assert ImageFolder(root=str(photos)).root == str(photos)


def test_grey_images_have_one_channel_if_all_are_grey(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "grey" / name, mode="L")
        fill(tmp_path / "mixed" / name, mode="L")
        fill(tmp_path / "mixed" / name, first=100)
    grey, mixed = (ImageFolder(root=str(tmp_path / name), size=8) for name in ("grey", "mixed"))
    assert grey.image.channels == 1 and grey.load()[0].images.shape[1:] == (1, 8, 8)
    assert mixed.image.channels == 3 and mixed.load()[0].images.shape[1:] == (3, 8, 8)
    for channels in (1, 3):
        data = ImageFolder(root=str(tmp_path / "mixed"), size=8, channels=channels)
        assert data.image.channels == channels == len(data.image.mean) == data.load()[0].images.shape[1]


def test_one_image_in_colour_beyond_a_grey_sample_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, 30, mode="L")
    data = ImageFolder(root=str(tmp_path), size=8)
    assert data.image.channels == 1
    Image.new("RGB", (8, 8), "red").save(tmp_path / data._split("train").names[3])
    with pytest.raises(UserError, match=r"1 file cannot be read: .*png: it is in colour") as error:
        data.load()
    assert "channels: 3" in error.value.problems[0].hint


def test_mean_and_deviation_are_measured_on_training_images(photos: Path) -> None:
    data = ImageFolder(root=str(photos), size=8)
    values = np.array([*range(20), *range(100, 120)]) / 255
    assert data.image.mean[0] == pytest.approx(values.mean(), abs=0.02)
    assert data.image.std[0] == pytest.approx(values.std(), abs=0.02)
    assert data.image.std[2] == 1e-3, "never zero"
    assert ImageFolder(root=str(photos), mean_std="imagenet").image.mean == (0.485, 0.456, 0.406)
    assert len(ImageFolder(root=str(photos), mean_std="imagenet", channels=1).image.mean) == 1
    given = ImageFolder(root=str(photos), mean_std=[[0.5, 0.4, 0.3], [0.2, 0.2, 0.1]])
    assert (given.image.mean, given.image.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert ImageFolder.model_validate(given.model_dump(mode="json")) == given
    assert refused(photos, mean_std=[[0.5], [0.2]]).key == "mean_std"
    for wrong in (
        [[0.5, 0.5], [1, 1]],
        [[0.5], [0]],
        [[127], [50]],
        [[0.5], [1, 1, 1]],
        "imagnet",
        None,
        [["a"], ["b"]],
    ):
        with pytest.raises(ValidationError, match="is not allowed"):
            ImageFolder(root=str(photos), mean_std=wrong)


def test_no_image_is_opened_if_channels_and_scale_are_given(photos: Path) -> None:
    for file in photos.rglob("*.png"):
        file.write_bytes(b"")
    data = ImageFolder(root=str(photos), channels=3, mean_std="imagenet")
    assert data.image.channels == 3 and data.describe().sizes["train"] == 32


def test_a_copy_has_the_same_digest(photos: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(photos, tmp_path / "copy")
    data, copy = (ImageFolder(root=str(each), size=8) for each in (photos, tmp_path / "copy"))
    assert data.describe().digest == copy.describe().digest
    assert data.describe().name == "photos" and data.describe().source == str(photos)
    others = [ImageFolder(root=str(photos), **more) for more in ({"size": 9}, {"size": 8, "test": 0.3}, {"seed": 2})]
    (tmp_path / "copy" / "cats" / "000.png").unlink()
    shutil.copytree(tmp_path / "copy", tmp_path / "less")
    others.append(ImageFolder(root=str(tmp_path / "less"), size=8))
    assert len({each.describe().digest for each in (data, *others)}) == 5


def test_other_files_are_ignored_and_told(photos: Path) -> None:
    (photos / "cats" / "notes.txt").write_text("hello")
    (photos / "cats" / ".hidden.png").write_text("hidden")
    (photos / "cats" / "thumbs").mkdir()
    (photos / "readme.md").write_text("hello")
    fill(photos, 2)
    (photos / "dogs" / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "dogs" / "itself.png").symlink_to(photos / "dogs" / "itself.png")
    (photos / "dogs" / "up").symlink_to(photos)
    (photos / "nowhere").symlink_to("nowhere")
    os.mkfifo(photos / "dogs" / "pipe.png")
    data = ImageFolder(root=str(photos))
    assert data._listing.ignored[1:] == (
        "the link nowhere",
        "the folder cats/thumbs",
        "the link dogs/gone.png",
        "the link dogs/itself.png",
        "the special file dogs/pipe.png",
        "the link dogs/up",
        "2 images in photos, outside of the classes' folders",
    ), "each one is told once"
    assert "photos: ignored 2 files without" in data.prepare()[1] and data.prepare()[1].endswith(", and 3 more")
    assert ImageFolder(root=str(photos)).describe().sizes["train"] == 32


def test_links_to_images_and_to_folders_of_classes_are_followed(photos: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "cats").symlink_to(photos / "cats")
    (linked / "dogs").mkdir()
    for file in (photos / "dogs").iterdir():
        (linked / "dogs" / file.name).symlink_to(file)
    assert ImageFolder(root=str(linked), size=8).describe().sizes["train"] == 32


def test_names_of_any_characters_and_length(tmp_path: Path) -> None:
    long = "长" * 80
    for name in ("été", "日本語", "a b", long):
        fill(tmp_path / "photos" / name, 5)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / f"{'ü' * 120}.JPEG")
    data = ImageFolder(root=str(tmp_path / "photos"), size=8)
    assert set(data.targets["label"].classes) == {"été", "日本語", "a b", long}
    assert len(data.load()[0]) == 16


def test_classes_that_two_systems_spell_with_other_bytes_are_the_same(tmp_path: Path) -> None:
    import unicodedata

    for split, form in (("train", "NFC"), ("test", "NFD")):
        for name in ("été", "hiver"):
            fill(tmp_path / split / unicodedata.normalize(form, name), 4)  # type: ignore[arg-type]
    assert ImageFolder(root=str(tmp_path), size=8).targets["label"].classes == ("hiver", "été")


Make = Callable[[Path], object]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "it has no images"),
        (lambda root: fill(root), "it has 10 images, but no folders of classes"),
        (lambda root: fill(root / "a"), "it has one class, a"),
        (lambda root: (fill(root / "a"), fill(root / "b"), (root / "c").mkdir()), "it has no images of 1 class: c"),
        (lambda root: (fill(root / "a"), fill(root / "b" / "c")), "b/c/000.png lies too deep"),
        (lambda root: (fill(root / "x" / "a"), fill(root / "x" / "b" / "c")), "lies too deep"),
        (lambda root: (fill(root / "a"), fill(root / "b", 2)), "1 class has fewer images than sets: b (2)"),
        (
            lambda root: (fill(root / "val" / "a"), fill(root / "val" / "b")),
            "it has the folder val, but no folder train",
        ),
        (
            lambda root: [fill(root / split / name) for split in ("train", "val", "valid") for name in "ab"],
            "would be the validation set",
        ),
        (
            lambda root: [fill(root / split) for split in ("train/a", "train/b", "test/a", "test/c")],
            "test has classes that train lacks: c",
        ),
        (
            lambda root: [fill(root / split) for split in ("train/a", "train/b")] + [(root / "test").mkdir()],
            "no images",
        ),
        (
            lambda root: [fill(root / each) for each in "ab"] and (root / "a/x.png").write_bytes(b"no"),
            "a/x.png: it is not",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_before_training(make: Make, message: str, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    make(root)
    problem = refused(root)
    assert message in problem.message and problem.key == "root"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "gone").message
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(tmp_path / "file").message
    for root in ("s3://bucket/photos", "a\0b"):
        with pytest.raises(ValidationError, match="root"):
            ImageFolder(root=root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_told(photos: Path) -> None:
    (photos / "cats").chmod(0)
    assert "Permission denied" in refused(photos).message
    (photos / "cats").chmod(0o700)


def test_a_mistake_that_is_mended_is_no_mistake_any_more(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    refused(tmp_path)
    fill(tmp_path / "b")
    assert ImageFolder(root=str(tmp_path)).targets["label"].size == 2


def test_the_test_images_are_decoded_once_for_all_folds(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def counting(names: list[str], *more: Any, **options: Any) -> Outcome:
        seen.extend(names)
        return decode_each(names, *more, **options)

    monkeypatch.setattr(decoder, "decode_each", counting)
    first, *others = (ImageFolder(root=str(photos), size=8, folds=Folds(k=3, fold=fold), seed=4) for fold in (1, 2, 3))
    broken = photos / min(names(first, "test"))
    content = broken.read_bytes()
    broken.write_bytes(b"")
    with pytest.raises(UserError, match="1 file cannot be read"):
        first.load()
    broken.write_bytes(content)
    seen.clear()
    for data in (first, *others):
        data.load()
    test = set(names(first, "test"))
    assert sorted(name for name in seen if name in test) == sorted(test)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_files_that_cannot_be_decoded_are_named_before_training(split: str, photos: Path) -> None:
    data = ImageFolder(root=str(photos), size=8, channels=3, validation=0.4, test=0.4)
    broken = sorted(names(data, split))[:6]
    for name in broken:
        (photos / name).write_bytes((photos / name).read_bytes()[:-30])
    with pytest.raises(UserError) as error:
        data.load()
    [problem] = error.value.problems
    assert f"photos: {len(broken)} files cannot be read: " in problem.message and problem.hint
    assert sum(name in problem.message for name in broken) == 5 and "; and 1 more" in problem.message


def test_more_than_fits_into_memory_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Small:
        total = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Small)
    with pytest.raises(UserError, match=r"40 images of 8x8 pixels take 7\.\d+ KB") as error:
        ImageFolder(root=str(photos), size=8, cache="memory").prepare()
    assert "cache: auto" in error.value.problems[0].hint
    for cache in ("auto", "disk", "none"):
        ImageFolder(root=str(photos), size=8, cache=cache).prepare()


def trial(root: Path, **more: Any) -> TrialConfig:
    data = {"kind": "image_folder", "root": str(root), "size": 8} | more
    return TrialConfig.model_validate({"data": data, "model": {"kind": "cnn", "hidden": 8}, "seed": 1})


def test_a_trial_can_be_read_where_its_folder_is_not(photos: Path) -> None:
    config = trial(photos)
    assert config.class_names("label") == ("cats", "dogs")
    signature = Signature.of(config)
    assert signature.outputs[""].classes == ("cats", "dogs")
    assert [step["kind"] for step in signature.preprocessing] == ["decode", "resize"]
    with without_imports():
        data = config.model_dump(mode="json")
        data["data"]["root"] = str(photos.parent / "elsewhere")
        other = TrialConfig.model_validate(data)
        assert other.describe_data() is not None and other.count_parameters() is None


def test_an_animation_is_told_while_it_is_read(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("cats", "dogs"):
        for number in range(5):
            frames[0].save(photos / name / f"{number}.gif", save_all=True, append_images=frames[1:])
    ImageFolder(root=str(photos), size=8).load()
    assert "images with several frames, the first is used: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs cifar10-sample in TUNER_DATA_DIR")
def test_real_images_are_read_pixel_by_pixel() -> None:
    data = ImageFolder(root=str(REAL), size=32, limit=100)
    assert data.image.channels == 3 and data.targets["label"].classes[0] == "airplane"
    train, validation = data.load()
    assert data.describe().sizes == {"train": len(train), "validation": len(validation), "test": 1000}
    for index in range(0, 100, 9):
        with Image.open(REAL / data._split("train").names[index]) as image:
            assert (np.moveaxis(np.asarray(image.convert("RGB")), -1, 0) == train.images[index].numpy()).all()


def test_a_folder_of_another_name_is_named(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("holdout", 50), ("val", 80)):
        for name in "ab":
            fill(tmp_path / split / name, 5, first)
    named = ImageFolder(root=str(tmp_path), size=8, validation="holdout", test="val")
    assert names(named, "validation") == {
        f"holdout/{name}/{number:03}.png" for name in "ab" for number in range(50, 55)
    }
    assert names(named, "test") == {f"val/{name}/{number:03}.png" for name in "ab" for number in range(80, 85)}
    assert refused(tmp_path, validation="hold").key == "validation"
    both = refused(tmp_path, validation="holdout", test="holdout")
    assert both.key == "test" and "'holdout' cannot be the validation and the test set" in both.message
    assert refused(tmp_path, validation="train").key == "validation"
    assert refused(tmp_path, test="train", validation="val").key == "test"
    assert named.describe().digest != ImageFolder(root=str(tmp_path), size=8).describe().digest


def test_folds_need_images_that_no_folder_makes_the_validation_set(tmp_path: Path, photos: Path) -> None:
    sets = [
        names(ImageFolder(root=str(photos), size=8, folds=Folds(k=4, fold=fold)), "validation") for fold in (1, 2, 3, 4)
    ]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 36
    for split in ("train", "val"):
        for name in "ab":
            fill(tmp_path / "split" / split / name, 5)
    assert refused(tmp_path / "split", folds={"k": 2}).key == "folds"
    assert "40 images cannot be split into 41 folds and sets" in refused(photos, folds={"k": 40}).message
