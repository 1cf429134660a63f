import numpy as np
import pytest
import torch
from PIL import Image

from tuner.data.pixels import Unclear, as_bytes, as_class


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_a_picture_of_any_colour_mode_is_read_as_its_colours(mode: str) -> None:
    red = Image.new("RGB", (5, 4), (255, 0, 0)).convert("RGB" if mode == "RGBX" else mode)
    if mode == "RGBX":
        red = Image.frombytes("RGBX", (5, 4), bytes([255, 0, 0, 9] * 20))
    pixels = as_bytes(red)
    assert pixels.shape == (3, 4, 5) and pixels.dtype == np.uint8
    assert np.abs(pixels[:, 1, 1].astype(int) - [255, 0, 0]).max() <= 2


def test_a_palette_is_not_read_as_indices_even_with_transparency() -> None:
    picture = Image.new("P", (3, 3), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.info["transparency"] = bytes([255, 0])
    assert as_bytes(picture)[:, 0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize(
    ("mode", "value", "stored"),
    [
        ("1", 1, [255]),
        ("L", 7, [7]),
        ("LA", (7, 9), [7, 9]),
        ("RGBA", (1, 2, 3, 4), [1, 2, 3, 4]),
        ("I;16", 65535, [255]),
        ("I;16", 257 * 7, [7]),
        ("I;16B", 257 * 7, [7]),
        ("F", 0.5, [128]),
    ],
)
def test_grey_alpha_and_deep_pictures_keep_their_values(mode: str, value: float, stored: list[int]) -> None:
    assert as_bytes(Image.new(mode, (5, 4), value))[:, 2, 3].tolist() == stored


@pytest.mark.parametrize(
    ("image", "stored"),
    [
        (np.full((9, 8, 3), 65535, np.uint16), (3, 9, 8)),
        (np.full((9, 8), True), (1, 9, 8)),
        (np.full((9, 8), 1.001), (1, 9, 8)),  # a little more than 1, as after interpolation
        (torch.ones(3, 9, 8, dtype=torch.bfloat16), (3, 9, 8)),
        (torch.ones(9, 8, 3, requires_grad=True), (3, 9, 8)),
        (torch.ones(6, 9, 8), (6, 9, 8)),
        (torch.ones(3, 4, 4), (3, 4, 4)),
        (np.ones((4, 2, 3)), (3, 4, 2)),
    ],
)
def test_arrays_and_tensors_of_white_are_white(image: object, stored: tuple[int, ...]) -> None:
    pixels = as_bytes(image)
    assert pixels.shape == stored and (pixels == 255).all() and pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "image", [np.zeros((0, 3), np.uint8), np.zeros((0, 3)), np.ones((9, 9), complex), "x", object()]
)
def test_what_has_no_pixels_is_no_image(image: object) -> None:
    with pytest.raises(Unclear):
        as_bytes(image)


@pytest.mark.parametrize("label", [2, np.int64(2), np.array(2), torch.tensor(2), np.uint8(2)])
def test_a_class_is_any_integer(label: object) -> None:
    assert as_class(label) == 2


@pytest.mark.parametrize("label", [2.0, "2", None, np.array([2]), torch.tensor([2]), np.float32(2), -2, [2]])
def test_what_is_no_integer_is_no_class(label: object) -> None:
    with pytest.raises(Unclear, match="has the label"):
        as_class(label)
