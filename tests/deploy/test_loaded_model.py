"""What `tuner.load` returns."""

import copy
import io
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from encoded_files import noise
from PIL import Image
from torch import nn

import tuner
from tuner.data.decoding import Form
from tuner.deploy.ahead import decoded_ahead
from tuner.deploy.listing import Item
from tuner.deploy.model import LoadedModel
from tuner.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a model of colours, whose classes have names."""
    folder = tmp_path_factory.mktemp("model")
    model = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
    checkpoints.write(folder, data={"kind": "cifar10"}, model=model)
    return folder


@pytest.fixture
def model(folder: Path) -> LoadedModel:
    return tuner.load(folder)


def test_it_is_the_module_that_it_was(model: LoadedModel) -> None:
    assert isinstance(model, nn.Sequential) and type(model).__name__ == "Sequential"
    assert list(model.state_dict()) == list(nn.Sequential.state_dict(model))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert not model.training


def test_its_repr_says_what_it_is(model: LoadedModel, folder: Path) -> None:
    text = repr(model)
    assert text.startswith(f"tuner.load('{folder}')\n")
    assert "cnn, " in text and "parameters, on cpu" in text
    assert "one class of 10: airplane, automobile, bird, cat, deer, and 5 more" in text
    assert "val_accuracy 0.5, after epoch 1" in text
    assert "resizes them to 32x32 (crop)" in text and "float32 (N, 3, 32, 32) in [0, 1]" in text


def test_damaged_metrics_are_no_reason_not_to_load_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    for text in ("{", "[1]", '{"epoch": 1}'):
        (tmp_path / "copy" / "metrics.json").write_text(text)
        assert "measured  nothing is recorded" in repr(tuner.load(tmp_path / "copy"))


def test_a_scripted_module_predicts_too(own: Callable[[str], str], tmp_path: Path) -> None:
    """Its class does more than those of layers."""
    target = f"{own(SCRIPTED)}:build"
    checkpoints.write(tmp_path / "model", data={"kind": "digits"}, model={"kind": "import", "target": target})
    model = tuner.load(tmp_path / "model", trust=[target])
    [found] = model.predict(noise(0))
    assert 0.1 <= found.probability <= 1 and repr(model).startswith("tuner.load(")
    assert model.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


SCRIPTED = """\
import torch
import torch.fx
from torch import nn

def build(channels, classes):
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes)))
"""


def test_copies_and_pickles_predict_too(model: LoadedModel) -> None:
    image = noise(0)
    wanted = model.predict(image)[0].as_dict()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert other.predict(image)[0].as_dict() == wanted and repr(other) == repr(model)
    assert copy.deepcopy(model.predict(image))[0].as_dict() == wanted


def test_every_form_of_an_image_is_the_same_image(model: LoadedModel, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    noise(3, (50, 70)).save(file)
    pixels = np.asarray(Image.open(file))
    forms: list[Any] = [
        str(file),
        file,
        file.read_bytes(),
        Image.open(file),
        pixels,
        pixels.astype(np.float32) / 255,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        pixels.astype(np.uint16) * 257,
    ]
    results = model.predict(forms)
    assert [each.index for each in results] == list(range(len(forms)))
    assert all(each.top == results[0].top for each in results)
    assert all((each.width, each.height) == (70, 50) for each in results)
    assert results[0].path == str(file) and results[2].path == ""
    [alone] = model.predict(pixels)  # one image needs no list
    assert dict(alone.top) == pytest.approx(dict(results[0].top))
    batch = model.predict(torch.from_numpy(np.stack([pixels, pixels])).permute(0, 3, 1, 2))
    assert [dict(each.top) for each in batch] == [pytest.approx(dict(results[0].top))] * 2
    assert str(results[0]).startswith(f"{file}: {results[0].label} ")


def test_modes_of_arrays_become_the_channels_of_the_model(model: LoadedModel) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    with_alpha = np.dstack([grey, grey, grey, 255 - grey])
    one, two, three = model.predict([grey, with_alpha, Image.fromarray(grey)])
    assert one.top == two.top == three.top


def test_a_camera_s_rotation_is_applied_to_pil_images_too(model: LoadedModel) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    noise(0, (40, 90)).save(buffer, "png", exif=exif)
    opened, encoded = model.predict([Image.open(buffer), buffer.getvalue()])
    assert opened.top == encoded.top and (opened.width, opened.height) == (40, 90)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.full((9, 9), 300, np.int64), "ambiguous"),
        (np.full((9, 9, 3), 200.0), "divide by 255"),
        (np.zeros((9, 9, 5), np.uint8), "unclear which dimension"),
        (torch.zeros(5, 32, 32), "it has 5 channels, and the model takes 3"),
        (b"no image", "not an image of a format that Pillow reads"),
    ],
)
def test_what_is_no_image_is_told(image: Any, what: str, model: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"1 image cannot be read: image 1: ") as error:
        model.predict([noise(0), image])
    assert what in str(error.value) and "skip_broken=True" in str(error.value)
    [found] = model.predict([image, noise(0)], skip_broken=True)
    assert found.index == 1


@pytest.mark.parametrize("images", [3, [None], "nowhere.png", ["nowhere/*.png"]], ids=str)
def test_what_can_be_no_image_is_told(images: Any, model: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"is no image|nowhere.png: there is no such file|no file matches"):
        model.predict(images)


def test_a_file_that_is_missing_can_be_left_out(model: LoadedModel) -> None:
    [found] = model.predict(["nowhere.png", noise(0)], skip_broken=True)
    assert found.index == 1


def test_a_traced_module_predicts_too_and_can_be_pickled(own: Callable[[str], str], tmp_path: Path) -> None:
    """Its class is made for it alone, and made again when it is pickled."""
    target = f"{own(SCRIPTED.replace('torch.jit.script', 'torch.fx.symbolic_trace'))}:build"
    checkpoints.write(tmp_path / "model", data={"kind": "digits"}, model={"kind": "import", "target": target})
    model = tuner.load(tmp_path / "model", trust=[target])
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), model(images))
    assert len(model.predict(images)) == 2 and repr(model).startswith("tuner.load(")


def test_options_out_of_range_are_told(model: LoadedModel) -> None:
    for options in ({"top": 0}, {"threshold": 1.5}, {"batch_size": 0}):
        with pytest.raises(UserError, match="at least 1"):
            model.predict(noise(0), **options)
    assert len(model.predict(noise(0), top=3)[0].top) == 3
    assert model.predict([]) == []


def test_images_are_asked_for_as_they_are_needed() -> None:
    """Memory is flat: of any number of images, few are decoded before their predictions are wanted."""
    asked = []

    def items() -> Iterator[Item]:
        for number in range(10_000):
            asked.append(number)
            yield Item("", np.full((8, 8), number % 256, np.uint8))

    decoding = decoded_ahead(items(), Form(1, 8, 8, "crop"), threads=2, ahead=50)
    for number in range(500):
        _, each = next(decoding)
        assert each.pixels[0, 0, 0] == number % 256, "in their order"  # type: ignore[union-attr]
        assert len(asked) <= number + 2 * 50
    decoding.close()
    assert len(asked) < 700
