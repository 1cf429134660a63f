"""A dataset of the user's own: any that is called with ``train`` and holds pairs of image and class."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tuner.data import ImportedData
from tuner.errors import Mistakes, Problem
from tuner.train.trial_config import TrialConfig

Own = Callable[[str], str]

SETS = '''
import numpy as np
import torch
from PIL import Image

class Squares:
    """Sixty images of three classes; the image says its index, so that one can follow it."""

    def __init__(self, train, shape=(6, 5, 3), as_what="array", count=60, classes=3):
        self.train, self.shape, self.as_what, self.classes = train, tuple(shape), as_what, classes
        self.count = count if train else 12

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        pixels = np.full(self.shape, 2 * index + (not self.train), dtype=np.uint8)
        image = {
            "array": lambda: pixels,
            "floats": lambda: pixels / 255,
            "tensor": lambda: torch.from_numpy(pixels).float() / 255,
            "PIL": lambda: Image.fromarray(pixels),
        }[self.as_what]()
        return image, index % self.classes

class Ragged(Squares):
    def __getitem__(self, index):
        return np.zeros((5 + index % 2, 5)), 0

def nothing(train):
    return []

class Named(Squares):
    def __init__(self, train, names):
        super().__init__(train)
        self.classes = names

    def __getitem__(self, index):
        image = np.zeros((6, 5, 3), dtype=np.uint8)
        return image, index % 3

def only_train():
    return Squares(True)

def broken(train, reason="no"):
    raise OSError(reason)

def words(train):
    return [(np.zeros((4, 4)), "cat")] * 9
'''


@pytest.fixture
def module(own: Own) -> str:
    return own(SETS)


def refused(target: str, **more: Any) -> Problem:
    """What is wrong with a dataset."""
    with pytest.raises(ValidationError) as error:
        ImportedData(target=target, **more)
    [details] = error.value.errors()
    mistakes = details["ctx"]["error"]
    assert isinstance(mistakes, Mistakes)
    [problem] = mistakes.problems
    return problem


@pytest.mark.parametrize(
    ("shape", "as_what", "stored"),
    [
        ((6, 5, 3), "array", (3, 6, 5)),
        ((6, 5, 3), "floats", (3, 6, 5)),
        ((6, 5, 3), "PIL", (3, 6, 5)),
        ((6, 5), "PIL", (1, 6, 5)),
        ((6, 5), "array", (1, 6, 5)),
        ((1, 6, 5), "tensor", (1, 6, 5)),
        ((3, 6, 5), "tensor", (3, 6, 5)),
        ((6, 5, 4), "array", (4, 6, 5)),
    ],
)
def test_an_image_may_be_a_picture_an_array_or_a_tensor(
    shape: tuple[int, ...], as_what: str, stored: tuple[int, ...], module: str
) -> None:
    data = ImportedData(target=f"{module}:Squares", args={"shape": shape, "as_what": as_what})
    assert (data.image.channels, data.image.height, data.image.width) == stored
    train, validation = data.load()
    test = data.load_test()
    assert train.images.dtype == torch.uint8 and train.images.shape[1:] == stored
    for part, first in ((train, 0), (validation, 0), (test, 1)):
        indices = (part.images[:, 0, 0, 0].long() - first) // 2
        assert torch.equal(part.targets["label"], indices % 3)  # each with its own class


def test_validation_is_a_stratified_share_of_the_training_images(module: str) -> None:
    data = ImportedData(target=f"{module}:Squares", validation=0.2)
    train, validation = data.load()
    assert (len(train), len(validation), len(data.load_test())) == (48, 12, 12)
    assert torch.bincount(validation.targets["label"]).tolist() == [4, 4, 4]
    assert not set(train.images[:, 0, 0, 0].tolist()) & set(validation.images[:, 0, 0, 0].tolist())


def test_classes_and_statistics_are_those_of_the_training_images(module: str) -> None:
    data = ImportedData(target=f"{module}:Squares", args={"classes": 5})
    assert data.targets["label"].size == 5
    pixels = np.arange(60) * 2 / 255
    assert data.image.mean == pytest.approx([pixels.mean()] * 3)
    assert data.image.std == pytest.approx([pixels.std()] * 3, rel=0.02)


@pytest.mark.parametrize(
    ("names", "known"),
    [(["a", "b", "c"], ("a", "b", "c")), (["a", "b", "c", "d"], ("a", "b", "c")), (["a", "b"], ()), ([1, 2, 3], ())],
)
def test_its_classes_have_the_names_that_it_says(names: list[Any], known: tuple[str, ...], module: str) -> None:
    data = ImportedData(target=f"{module}:Named", args={"names": names})
    assert data.targets["label"].classes == known and data.targets["label"].size == 3


def test_it_is_described_by_its_name_its_sizes_and_a_digest_of_its_images(module: str) -> None:
    data = ImportedData(target=f"{module}:Squares", limit=10)
    said = data.describe()
    assert (said.name, said.source) == ("Squares", f"{module}:Squares")
    assert said.sizes == {"train": 10, "validation": 6, "test": 12}
    others = [
        ImportedData(target=f"{module}:Squares", **more)
        for more in ({"args": {"count": 61}}, {"seed": 1}, {"validation": 0.2})
    ]
    assert len({each.describe().digest for each in (data, *others)}) == 4
    assert ImportedData(target=f"{module}:Squares").describe().digest == said.digest


def test_it_is_there_and_needs_no_preparing(module: str) -> None:
    data = ImportedData(target=f"{module}:Squares")
    assert data.prepare() == (data, "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Ragged", "(train=True) cannot be read as pairs of image and class: ValueError: all input arrays"),
        ("nothing", "(train=True) cannot be read as pairs of image and class: ValueError: need at least one"),
        ("only_train", "TypeError: only_train() got an unexpected keyword argument 'train'"),
        ("broken", "(train=True) cannot be read as pairs of image and class: OSError: no"),
        ("words", "ValueError: invalid literal for int()"),
    ],
)
def test_what_is_wrong_with_it_is_told(name: str, message: str, module: str) -> None:
    problem = refused(f"{module}:{name}")
    assert message in problem.message and problem.key == "target"


def test_its_arguments_are_told_with_it(module: str) -> None:
    assert "broken(train=True, reason='gone') cannot" in refused(f"{module}:broken", args={"reason": "gone"}).message


def test_too_few_images_to_validate_on_are_told(module: str) -> None:
    problem = refused(f"{module}:Squares", validation=0.001)
    assert (problem.message, problem.key) == (
        "0.001 of 60 images leaves fewer images than classes in one of the two sets",
        "validation",
    )
    assert refused(f"{module}:Squares", validation=0.999).key == "validation"


@pytest.mark.parametrize("validation", [0.02, 0.98])
def test_fewer_images_than_classes_are_too_few(validation: float, module: str) -> None:
    """Else the split, which is stratified, fails in every trial."""
    assert refused(f"{module}:Squares", validation=validation).key == "validation"


def test_a_canvas_is_not_for_it(module: str) -> None:
    with pytest.raises(ValidationError, match="canvas"):
        ImportedData(target=f"{module}:Squares", canvas=20)


def test_a_name_that_is_not_there_is_told(module: str) -> None:
    assert "has no 'Sqares'" in refused(f"{module}:Sqares").message


def test_in_a_trial_its_code_is_known_to_be_needed_and_its_split_may_not_change_while_it_trains(module: str) -> None:
    def trial(**more: Any) -> TrialConfig:
        data = {"kind": "import", "target": f"{module}:Squares", "args": {"shape": [8, 8, 3]}} | more
        return TrialConfig.model_validate({"data": data, "model": {"kind": "cnn", "hidden": 8}, "seed": 1})

    assert trial().targets == [f"{module}:Squares"]
    assert trial().build_model()(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert trial().why_not_resumable_as(trial(batch_size=3)) == ""
    assert "the validation set would change" in trial().why_not_resumable_as(trial(validation=0.3))
