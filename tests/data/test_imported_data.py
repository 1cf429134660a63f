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
    [(["a", "b", "c"], ("a", "b", "c")), ([1, 2, 3], ())],
)
def test_its_classes_have_the_names_that_it_says(names: list[Any], known: tuple[str, ...], module: str) -> None:
    data = ImportedData(target=f"{module}:Named", args={"names": names})
    assert data.targets["label"].classes == known and data.targets["label"].size == 3


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["a", "b"]])
def test_more_or_fewer_names_than_classes_are_told(names: list[str], module: str) -> None:
    problem = refused(f"{module}:Named", args={"names": names})
    assert f"its attribute classes has {len(names)} names, and its labels are 0 to 2" in problem.message


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
        ("Ragged", "(train=True): image 1 is 5x6 with 1 channel (an array (6, 5) of float64), and image 0 is 5x5 with"),
        ("nothing", "(train=True): it has no images"),
        ("only_train", "TypeError: only_train() got an unexpected keyword argument 'train'"),
        ("broken", "(train=True) cannot be read as pairs of image and class: OSError: no"),
        ("words", "(train=True): image 0 has the label 'cat'"),
    ],
)
def test_what_is_wrong_with_it_is_told(name: str, message: str, module: str) -> None:
    problem = refused(f"{module}:{name}")
    assert message in problem.message and problem.key == "target"


UNCLEAR = """
import numpy as np
import torch
from PIL import Image

SETS = {
    "too large floats": lambda i: (np.full((6, 6), 1.0 + i), i % 2),
    "normalized": lambda i: (torch.full((3, 6, 6), -1.0 + i), i % 2),
    "nan": lambda i: (np.full((6, 6), np.nan if i == 5 else 0.5), i % 2),
    "int64": lambda i: (np.full((6, 6), i), i % 2),
    "int32 from Pillow": lambda i: (Image.fromarray(np.full((6, 6), i, np.int32)), i % 2),
    "negative": lambda i: (np.full((6, 6), -i, np.int8), i % 2),
    "six channels": lambda i: (np.zeros((9, 9, 6), np.uint8), i % 2),
    "a batch": lambda i: (np.zeros((1, 9, 9, 3), np.uint8), i % 2),
    "text": lambda i: ("cat.jpg", i % 2),
    "None": lambda i: (None, i % 2),
    "mixed modes": lambda i: (Image.new("L" if i == 7 else "RGB", (6, 6)), i % 2),
    "bytes in uint16": lambda i: (np.full((6, 6), 200 + i, np.uint16), i % 2),
    "random": lambda i: (np.random.randint(0, 255, (6, 6)).astype(np.uint8), i % 2),
    "float labels": lambda i: (np.zeros((6, 6)), 1.0),
    "negative labels": lambda i: (np.zeros((6, 6)), i % 3 - 1),
    "one-hot labels": lambda i: (np.zeros((6, 6)), np.eye(2)[i % 2]),
    "gaps": lambda i: (np.zeros((6, 6)), 2 * (i % 2)),
    "from 1": lambda i: (np.zeros((6, 6)), 1 + i % 2),
    "one class": lambda i: (np.zeros((6, 6)), 0),
    "a class of one image": lambda i: (np.zeros((6, 6)), 2 if i == 19 else i % 2),
    "huge label": lambda i: (np.zeros((6, 6)), 10**12),
    "triples": lambda i: (np.zeros((6, 6)), i % 2, 0),
    "damaged": lambda i: (np.zeros((6, 6)), 0 // (i - 7) + i % 2),
    "leaves": lambda i: exit(3),
}
FINE = SETS["fine"] = lambda i: (np.zeros((6, 6)), i % 2)
TESTS = {
    "a class of the test set alone": lambda i: (np.zeros((6, 6)), i % 3),
    "another shape in the test set": lambda i: (np.zeros((6, 7)), i % 2),
    "nothing in the test set": None,
}

class Made:
    def __init__(self, train, name):
        self.item = SETS.get(name, FINE) if train else TESTS.get(name, FINE)

    def __len__(self):
        return 20 if self.item else 0

    def __getitem__(self, index):
        return self.item(index)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too large floats", "image 1 is float64 in [2, 2], not in [0, 1]"),
        ("normalized", "image 0 is float32 in [-1, -1], not in [0, 1]"),
        ("nan", "image 5 has values that are NaN or infinite"),
        ("int64", "image 0 is int64 in [0, 0]: its scale is ambiguous"),
        ("int32 from Pillow", "image 0 is int32 in [0, 0]: its scale is ambiguous"),
        ("negative", "image 0 is int8 in [0, 0]: its scale is ambiguous"),
        ("six channels", "image 0 has the shape (9, 9, 6): it is unclear which dimension holds the channels"),
        ("a batch", "image 0 has the shape (1, 9, 9, 3): it is not one image"),
        ("text", "image 0 is no image: its values are <U7"),
        ("None", "image 0 is no image: its values are object"),
        ("mixed modes", "image 7 is 6x6 with 1 channel (a PIL image of mode L), and image 0 is 6x6 with 3 channels"),
        ("bytes in uint16", "its images have 16 bits, but no value exceeds 255"),
        ("random", "image 0 differs when it is read twice"),
        ("float labels", "image 0 has the label 1.0"),
        ("negative labels", "image 0 has the label -1"),
        ("one-hot labels", "image 0 has the label array([1., 0.])"),
        ("gaps", "its labels go to 2, but not every class has two images: class 1 has 0"),
        ("from 1", "class 0 has 0"),
        ("one class", "all its training images have the class 0"),
        ("a class of one image", "class 2 has 1"),
        ("huge label", "has the label 1000000000000"),
        ("triples", "item 0 is a tuple"),
        ("damaged", "item 7 cannot be read: ZeroDivisionError: integer division or modulo by zero (/"),
        ("leaves", "item 0 cannot be read: SystemExit: 3 (/"),
        ("a class of the test set alone", "image 2 has the class 2"),
        ("another shape in the test set", "the training images are 6x6 with 1 channel, and the test images 7x6"),
        ("nothing in the test set", "(train=False, name='nothing in the test set'): it has no images"),
    ],
)
def test_what_is_ambiguous_is_refused_with_the_image_and_what_to_do(name: str, message: str, own: Own) -> None:
    problem = refused(f"{own(UNCLEAR)}:Made", args={"name": name})
    assert message in problem.message and problem.hint and problem.key == "target"


def test_images_are_kept_once_and_every_split_of_them_is_right(module: str) -> None:
    """The second split cannot move the images in place: the first one's trial may still use them."""
    splits = {seed: ImportedData(target=f"{module}:Squares", seed=seed) for seed in (0, 1)}
    loaded = {seed: data.load() for seed, data in splits.items()}
    original = splits[0]._set(True).images
    assert torch.equal(original[:, 0, 0, 0], (2 * torch.arange(60)).to(torch.uint8))
    for train, validation in loaded.values():
        assert train.images.untyped_storage().data_ptr() == validation.images.untyped_storage().data_ptr()
        for part in (train, validation):
            assert torch.equal(part.targets["label"], part.images[:, 0, 0, 0].long() // 2 % 3)
    assert splits[1]._set(True)._images.data_ptr() == loaded[1][0].images.data_ptr(), "no second copy is kept"


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
