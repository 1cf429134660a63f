"""Where places of resized images are in the originals."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from tuner.data.decoding import Form, Resize, formed
from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.placing import placed
from tuner.data.placing import ASSUMED, form_of, placement

SIZES = [(64, 48), (48, 64), (9, 31), (16, 16), (7, 7), (500, 100)]
FORMS = [Form(*shape, resize) for shape in ((3, 16, 16), (1, 12, 20)) for resize in get_args(Resize)]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_box_is_moved_back_to_where_the_dataset_moved_it_from(size: tuple[int, int], form: Form) -> None:
    width, height = size
    middle = np.array([[width * 0.4, height * 0.45, width * 0.6, height * 0.55]])
    boxes = Boxes(np.array([0]), middle, np.array([2]), np.array([0]))
    moved = torch.from_numpy(placed(boxes, np.array([size]), form).rows[:, :4])
    back = placement(size, form).boxes(moved)
    assert back.numpy() == pytest.approx(middle, abs=1e-3 * max(size)), "no crop cuts off the middle"
    everything = torch.tensor([[-9.0, -9.0, 99.0, 99.0]])
    assert placement(size, form).boxes(everything).min() >= 0
    assert (placement(size, form).boxes(everything)[0, 2:] <= torch.tensor(size)).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("size", [(64, 48), (40, 90), (33, 33)], ids=str)
def test_values_are_moved_back_to_the_pixels_that_they_are_of(size: tuple[int, int], form: Form) -> None:
    across, down = np.meshgrid(np.linspace(20, 220, size[0]), np.linspace(20, 220, size[1]))
    image = Image.fromarray(np.stack([across, down, across], axis=-1).astype(np.uint8))
    pixels = formed(image, Form(3, form.height, form.width, form.resize))
    where = placement(size, form)
    rows, columns = where.covered
    back = where.values(torch.from_numpy(pixels).float())[:, rows, columns].numpy()
    wanted = np.moveaxis(np.asarray(image), -1, 0)[:, rows, columns]
    inner = (slice(None), slice(6, -6), slice(6, -6))  # at the edges, `pad` blends with black
    assert np.abs(back[inner] - wanted[inner]).max() < 12
    is_whole = (rows, columns) == (slice(0, size[1]), slice(0, size[0]))
    assert is_whole == (form.resize != "crop" or size[0] * form.height == size[1] * form.width)


def test_values_of_an_image_of_the_input_s_size_stay_as_they_are() -> None:
    values = torch.randn(4, 13, 29)
    where = placement((29, 13), Form(3, 13, 29, "crop"))
    assert torch.equal(where.values(values), values)
    assert where.covered == (slice(0, 13), slice(0, 29))


def test_fewer_values_cover_the_same_area() -> None:
    values = torch.randn(1, 8, 8)
    where = placement((16, 16), Form(3, 16, 16, "crop"))
    wanted = torch.nn.functional.interpolate(values[None], size=(16, 16), mode="bilinear")[0]
    torch.testing.assert_close(where.values(values), wanted)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_form_is_read_back_from_its_steps(form: Form) -> None:
    assert form_of(form.steps, form.channels, form.height, form.width) == form


@pytest.mark.parametrize(
    "steps",
    [[], [{"kind": "resize", "height": 8, "width": 8, "interpolation": "bilinear"}], [{"kind": "canvas", "side": 8}]],
)
def test_a_signature_that_does_not_say_how_other_sizes_are_resized_means_a_crop(steps: list[dict[str, object]]) -> None:
    assert form_of(steps, 1, 8, 8) == Form(1, 8, 8, ASSUMED) == Form(1, 8, 8, "crop")
