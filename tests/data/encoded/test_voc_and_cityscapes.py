"""Pascal VOC and Cityscapes in their true layouts, written here in small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_files import noise_of, problem_of, write_cityscapes, write_voc
from PIL import Image

from tuner.data import Cityscapes, VOCSegmentation
from tuner.data.encoded.masks.cityscapes import CLASSES
from tuner.interfaces import IGNORED


def as_trained(mask: Any, size: int) -> Any:
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def test_voc_is_read_by_its_lists(tmp_path: Path) -> None:
    write_voc(tmp_path, 20, 6)
    inside = tmp_path / "VOCdevkit" / "VOC2012"
    for root in (tmp_path, inside):
        data = VOCSegmentation(root=str(root), size=10, resize="squash")
        assert data.describe().sizes == {"train": 17, "validation": 3, "test": 6}
        for name, mask in zip(data.names("test"), data.load_test().targets["mask"], strict=True):
            number = int(Path(name).stem.removeprefix("2007_"))
            assert np.array_equal(mask, as_trained(noise_of([*range(21), 255], number), 10))
    assert data.targets["mask"].size == 21
    # What torchvision reads of the same folder.
    from torchvision.datasets import VOCSegmentation as Theirs

    theirs = Theirs(str(tmp_path), year="2012", image_set="val")
    assert len(theirs) == 6
    assert np.array_equal(np.asarray(theirs[0][1]), noise_of([*range(21), 255], 20))


def test_cityscapes_has_19_classes_and_the_rest_is_unknown(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, 20, 6)
    data = Cityscapes(root=str(tmp_path), size=10)
    assert data.describe().sizes == {"train": 18, "validation": 2, "test": 6}
    from torchvision.datasets import Cityscapes as Theirs

    theirs = {each.id: each.train_id for each in Theirs.classes}
    assert {each.id: each.name for each in Theirs.classes if each.train_id not in (-1, 255)} == {
        number: name for name, number in CLASSES.items()
    }
    test = data.load_test()
    for name, mask in zip(data.names("test"), test.targets["mask"], strict=True):
        seed = 20 + int(Path(name).name.split("_")[1])
        ids = as_trained(noise_of([*range(34), 255], seed), 10)
        expected = np.vectorize(lambda number: theirs.get(number if number != 255 else -1, 255))(ids)
        expected = np.where((expected < 0) | (expected > 18), IGNORED, expected)
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("VOCdevkit/VOC2012/JPEGImages/2007_000003.jpg", "train.txt lists 1 file that cannot be found"),
        ("VOCdevkit/VOC2012/SegmentationClass/2007_000021.png", "val.txt lists 1 file that cannot be found"),
        ("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", "val.txt cannot be read"),
    ],
)
def test_what_voc_lacks_is_told(tmp_path: Path, spoil: str, said: str) -> None:
    write_voc(tmp_path, 20, 6)
    (tmp_path / spoil).unlink()
    assert said in problem_of(VOCSegmentation, root=str(tmp_path)).message


def test_a_folder_that_is_not_voc_or_cityscapes_is_told(tmp_path: Path) -> None:
    assert "it has no folder JPEGImages" in problem_of(VOCSegmentation, root=str(tmp_path)).message
    assert "it has no folder leftImg8bit/train" in problem_of(Cityscapes, root=str(tmp_path)).message
    write_cityscapes(tmp_path, 20, 6)
    next((tmp_path / "gtFine" / "train" / "bonn").glob("*_labelIds.png")).unlink()
    assert "1 image has no mask" in problem_of(Cityscapes, root=str(tmp_path)).message
