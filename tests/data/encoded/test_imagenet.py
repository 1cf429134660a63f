"""ImageNet in small, in the layouts of the original files and of torchvision."""

from pathlib import Path

import pytest
from encoded_files import WNIDS, write_imagenet
from pydantic import ValidationError

from tuner.data import ImageNet

CLASSES = ("tench", "crane (n02012849)", "crane (n03126707)")


@pytest.mark.parametrize(("flat", "meta"), [(False, "bin"), (True, "bin"), (True, "devkit"), (True, "archive")])
def test_the_labels_of_val_are_those_of_the_devkit(flat: bool, meta: str, tmp_path: Path) -> None:
    write_imagenet(tmp_path, train=20, flat=flat, meta=meta)
    before = sorted(tmp_path.rglob("*"))
    data = ImageNet(root=str(tmp_path), size=8)
    assert data.targets["label"].classes == CLASSES
    assert data.describe().sizes == {"train": 57, "validation": 3, "test": 30}
    test = data.files()["test"]
    for name, label in zip(test.names, test.labels.tolist(), strict=True):
        number = int(Path(name).stem.rpartition("_")[2]) - 1
        assert label == number * 7 % 3
    for name, label in zip(data.files()["train"].names, data.files()["train"].labels.tolist(), strict=True):
        assert name.split("/")[1] == list(WNIDS)[label]
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written beside the images"


def test_torchvision_reads_the_same_meta_file(tmp_path: Path) -> None:
    from torchvision.datasets import ImageNet as Torchvision

    write_imagenet(tmp_path, train=2, test=2, meta="bin")
    theirs = Torchvision(str(tmp_path), split="val")
    data = ImageNet(root=str(tmp_path), size=8)
    assert [names[0] for names in theirs.classes] == [name.split(" ")[0] for name in CLASSES]
    mine = dict(zip(data.files()["test"].names, data.files()["test"].labels.tolist(), strict=True))
    assert mine == {str(Path(path).relative_to(tmp_path)): label for path, label in theirs.samples}


def test_without_names_the_classes_are_wordnet_ids_and_this_is_told(tmp_path: Path) -> None:
    data = ImageNet(root=str(write_imagenet(tmp_path, train=4)), size=8)
    assert data.targets["label"].classes == tuple(WNIDS)
    assert "there is no meta.bin" in data.prepare()[1]
    assert data.image.mean == (0.485, 0.456, 0.406)


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    def message(root: Path) -> str:
        with pytest.raises(ValidationError) as error:
            ImageNet(root=str(root), size=8)
        return str(error.value)

    assert "train cannot be read: No such file" in message(tmp_path / "none")
    (tmp_path / "a" / "train").mkdir(parents=True)
    assert "train has 0 classes with images" in message(tmp_path / "a")
    flat = write_imagenet(tmp_path / "b", train=4, flat=True)
    assert "the classes of its images are unknown" in message(flat)
    (flat / "meta.bin").write_bytes(b"no")
    assert "meta.bin or the devkit cannot be read" in message(flat)
    other = write_imagenet(tmp_path / "c", train=4)
    (other / "val" / "n02012849").rename(other / "val" / "n99999999")
    assert "val has classes that train lacks: n99999999" in message(other)
    with pytest.raises(ValidationError, match="test"):
        ImageNet(root=str(other), test=0.1)
