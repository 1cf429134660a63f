"""Decoding of files, each made here with Pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tuner.data.decoding import Form, Undecodable, suffixes
from tuner.data.loading.decoder import Decoder
from tuner.data.pixels import Bytes

SQUARE = Form(3, 8, 8, "crop")


def decode(file: Path, form: Form) -> Bytes:
    """Decode one file."""
    images: list[Bytes] = []
    outcome = Decoder(str, form, only_grey=False).each([str(file)], lambda _, image: images.append(image))
    if outcome.failures:
        raise Undecodable(outcome.failures[str(file)])
    return images[0]


def halves(width: int = 16, height: int = 8) -> Image.Image:
    """An image whose left half is red and whose right half is blue."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_any_mode_of_a_file_becomes_the_form(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "x.tiff"
    if mode in ("I;16", "I"):
        Image.fromarray(np.full((9, 9), 65535, np.uint16 if mode == "I;16" else np.int32)).save(file)
    elif mode == "F":
        Image.fromarray(np.ones((9, 9), np.float32)).save(file)
    else:
        Image.new("RGB", (9, 9), "white").convert(mode).save(file)
    assert Image.open(file).mode == mode
    for channels in (1, 3):
        pixels = decode(file, Form(channels, 8, 8, "squash"))
        assert pixels.shape == (channels, 8, 8) and pixels.dtype == np.uint8 and pixels.min() >= 254
    own = 3 if mode in ("P", "RGB", "RGBA", "CMYK", "YCbCr") else 1
    assert decode(file, Form(0, 8, 8, "squash")).shape[0] == own


def test_an_image_of_the_form_s_size_is_not_changed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    for resize in ("crop", "squash", "pad"):
        assert (decode(tmp_path / "x.png", Form(3, 8, 8, resize)) == np.moveaxis(pixels, -1, 0)).all()


def test_how_an_image_that_is_not_square_is_resized(tmp_path: Path) -> None:
    image = Image.new("RGB", (24, 8), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    image.paste((0, 0, 255), (16, 0, 24, 8))
    image.save(tmp_path / "x.png")
    crop, squash, pad = (decode(tmp_path / "x.png", Form(3, 8, 8, each)) for each in ("crop", "squash", "pad"))
    assert (crop == np.array([0, 255, 0])[:, None, None]).all(), "the centre"
    assert squash[:, 4, 0].tolist() == [255, 0, 0] and squash[:, 4, 7].tolist() == [0, 0, 255]
    assert not pad[:, 0].any() and not pad[:, 7].any() and pad[1, 4, 4] > 200


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_s_rotation_is_applied(orientation: int, tmp_path: Path) -> None:
    image = halves(64, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.jpg", exif=exif, quality=95)
    expected = np.moveaxis(np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "x.jpg")).convert("RGB")), -1, 0)
    assert (decode(tmp_path / "x.jpg", Form(3, 64, 64, "crop")) == expected).all()


def test_damaged_exif_data_does_no_harm(tmp_path: Path) -> None:
    halves(8, 8).save(tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff damaged")
    assert decode(tmp_path / "x.jpg", SQUARE).shape == (3, 8, 8)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 1024), np.linspace(0, 255, 768))
    Image.fromarray(np.stack([x, y, x], axis=-1).astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    whole = Image.open(tmp_path / "x.jpg").resize((32, 32), Image.Resampling.BILINEAR)
    pixels = decode(tmp_path / "x.jpg", Form(3, 32, 32, "squash"))
    assert np.abs(pixels.astype(int) - np.moveaxis(np.asarray(whole).astype(int), -1, 0)).max() <= 4


def test_a_rotated_jpeg_keeps_what_a_form_that_is_not_square_can_show(tmp_path: Path) -> None:
    """The fraction of its size is that of the image as it is shown."""
    stripes = np.zeros((1024, 128, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255  # two pixels of the form each
    shown = Image.fromarray(stripes)
    shown.save(tmp_path / "x.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.jpg", exif=exif, quality=95)
    as_it_is, rotated = (decode(tmp_path / name, Form(3, 8, 64, "crop")) for name in ("x.jpg", "rotated.jpg"))
    assert as_it_is.std() > 80, "the stripes can be seen"
    assert np.abs(rotated.astype(int) - as_it_is).max() <= 8


def test_of_an_animation_the_first_frame_is_used_which_is_told(tmp_path: Path) -> None:
    for suffix in ("gif", "png", "tiff"):
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
        assert decode(tmp_path / f"x.{suffix}", SQUARE)[:, 0, 0].tolist() == [255, 0, 0]
    halves().save(tmp_path / "still.gif")
    files = [str(each) for each in sorted(tmp_path.iterdir())]
    images, outcome = Decoder(str, SQUARE, only_grey=False).all(files)
    assert len(images) == 4 and not outcome.failures
    assert [Path(each).name for each in outcome.animated] == ["x.gif", "x.png", "x.tiff"]


def test_what_cannot_be_decoded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((256, 256), 60).save(buffer, "jpeg")
    bad = {
        "no.jpg": (b"this is text", "not an image"),
        "empty.png": (b"", "not an image"),
        "cut.jpg": (buffer.getvalue()[:3000], "damaged or cut off: .*truncated"),
    }
    for name, (content, why) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Undecodable, match=why):
            decode(tmp_path / name, SQUARE)
    with pytest.raises(Undecodable, match="No such file"):
        decode(tmp_path / "gone.png", SQUARE)
    halves(100, 100).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Undecodable, match=r"too large.*10000 pixels"):
        decode(tmp_path / "large.png", SQUARE)


def test_many_files_are_decoded_in_order_and_every_failure_is_told(tmp_path: Path) -> None:
    files = []
    for number in range(200):
        files.append(str(tmp_path / f"{number}.png"))
        Image.new("L", (5, 5), number).save(files[-1])
    for number in (7, 150):
        Path(files[number]).write_bytes(b"\x89PNG no")
    images, outcome = Decoder(str, Form(1, 4, 4, "crop"), only_grey=False).all(files)
    assert list(outcome.failures) == [files[7], files[150]]
    good = [number for number in range(200) if number not in (7, 150)]
    assert images[good, 0, 2, 2].tolist() == good


def test_an_image_in_colour_among_grey_ones_is_a_failure_where_only_grey_is_wanted(tmp_path: Path) -> None:
    halves().save(tmp_path / "x.png")
    Image.new("L", (5, 5)).save(tmp_path / "grey.png")
    files = [str(tmp_path / "x.png"), str(tmp_path / "grey.png")]
    assert Decoder(str, Form(1, 4, 4, "crop"), only_grey=True).all(files)[1].failures == {files[0]: "it is in colour"}


def test_the_steps_of_a_signature_tell_all_of_the_form() -> None:
    assert Form(3, 20, 30, "pad").steps == [
        {"kind": "decode", "channels": 3, "orientation": "exif", "frame": 0},
        {"kind": "resize", "height": 20, "width": 30, "interpolation": "bilinear", "fit": "pad"},
    ]


def test_the_suffixes_are_those_of_images() -> None:
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"} <= suffixes()
    assert not {".txt", ".csv", ".json", ".xml", ".pdf", ".mpg", ".h5", ""} & suffixes()
