"""``tuner predict`` for the frames of videos."""

import csv
import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
import videos
from commands import tuner
from PIL import Image

import tuner as package
from tuner.data.decoding import Form, Undecodable
from tuner.deploy import video
from tuner.deploy.ahead import decoded_ahead
from tuner.deploy.listing import Item


def lines_of(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def _checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.small(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(_checkpoint: Path, tmp_path: Path) -> Path:
    """A folder with a model, a film of 20 frames and an image."""
    (tmp_path / "model").symlink_to(_checkpoint)
    videos.write(tmp_path / "film.mp4")
    Image.new("RGB", (9, 9), "white").save(tmp_path / "white.png")
    return tmp_path


class TestFrames:
    def test_each_has_a_line(self, here: Path) -> None:
        status, said = tuner(here, "predict", "model", "white.png", "film.mp4", "white.png")
        found = lines_of(said)
        assert status == 0 and [each["path"] for each in found] == ["white.png", *["film.mp4"] * 20, "white.png"]
        assert [each["frame"] for each in found[1:-1]] == list(range(20))
        assert [each["time"] for each in found[1:-1]] == [number / 10 for number in range(20)]
        assert list(found[1])[:3] == ["path", "frame", "time"] and "frame" not in found[0] == found[-1]

    def test_are_predicted_for_as_their_pictures_are(self, here: Path) -> None:
        model = package.load(here / "model")
        results = model.predict([here / "film.mp4", here / "white.png"])
        pictures = [each.image() for each in video.frames(str(here / "film.mp4"))]
        assert [each.index for each in results] == list(range(21)) and results[-1].frame is None
        assert [each.as_dict()["top"] for each in results[:-1]] == [
            each.as_dict()["top"] for each in model.predict(pictures)
        ]
        assert "film.mp4, frame 3: " in str(results[3])

    def test_come_in_their_order_from_several_threads(self, here: Path) -> None:
        videos.write(here / "long.mp4", count=29)
        item = Item("long.mp4", str(here / "long.mp4"))
        form = Form(1, 48, 64, "squash")
        for threads in (1, 4):
            found = list(decoded_ahead([item, item], form, threads=threads, ahead=100, every=2))
            assert [each.frame for each, _ in found] == 2 * list(range(0, 29, 2))
            brightness = [int(np.median(each.pixels[0, 24:])) for _, each in found]  # type: ignore[union-attr]
            wanted = 2 * [videos.brightness(number) for number in range(0, 29, 2)]
            assert np.abs(np.subtract(brightness, wanted)).max() <= 3
        decoding = decoded_ahead([item] * 1000, form, threads=2, ahead=20)
        next(decoding)
        decoding.close()

    def test_some_of_them(self, here: Path) -> None:
        assert [each["frame"] for each in lines_of(tuner(here, "predict", "model", "film.mp4", "--every", "8")[1])] == [
            *(0, 8, 16)
        ]

    def test_are_rotated_as_they_are_shown(self, here: Path) -> None:
        videos.rotate(here / "film.mp4")
        [first, *_] = video.frames(str(here / "film.mp4"))
        shown = first.image()
        assert shown.size == (48, 64)
        pixels = np.asarray(shown.convert("L")).astype(int)
        assert pixels[5, 40] < 5 and min(pixels[5, 5], pixels[60, 5], pixels[60, 40]) > 10, "black is upper right"
        [found, *_] = package.load(here / "model").predict(here / "film.mp4")
        assert (found.width, found.height) == (48, 64)

    def test_of_a_folder_only_images_are_read(self, here: Path) -> None:
        (here / "photos").mkdir()
        (here / "film.mp4").rename(here / "photos" / "film.MP4")
        (here / "white.png").rename(here / "photos" / "white.png")
        assert len(lines_of(tuner(here, "predict", "model", "photos")[1])) == 1
        assert len(lines_of(tuner(here, "predict", "model", "photos/*")[1])) == 21, "a glob names it"


class TestOutput:
    def test_csv(self, here: Path) -> None:
        assert tuner(here, "predict", "model", "white.png", "film.mp4", "-o", "x.csv") == (0, "")
        with (here / "x.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[:3] == ["path", "frame", "time"] and rows[0]["frame"] == ""
        assert [(row["frame"], row["time"]) for row in rows[1:3]] == [("0", "0.0"), ("1", "0.1")]

    def test_pictures(self, here: Path) -> None:
        assert tuner(here, "predict", "model", "film.mp4", "film.mp4", "--every", "9", "-o", "seen") == (0, "")
        names = sorted(str(each.relative_to(here / "seen")) for each in (here / "seen").rglob("*.*") if each.is_file())
        assert names == [f"film.mp4/{number:06}.jpg" for number in (0, 9, 18)]
        with Image.open(here / "seen" / "film.mp4" / "000009.jpg") as picture:
            brightness = np.asarray(picture.convert("L"))[30:48, 40:]
        assert abs(int(np.median(brightness)) - videos.brightness(9)) <= 4

    def test_coco_s_results_tell_frames_apart(self, here: Path) -> None:
        scenes = {"kind": "mnist_scenes", "size": 32, "source": "digits", "largest": 28}
        checkpoints.write(here / "boxes", model={"kind": "yolo", "width": 4}, data=scenes, task={"kind": "detection"})
        command = ["predict", "boxes", "film.mp4", "--threshold", "0", "--every", "10", "-o", "x.json"]
        assert tuner(here, *command) == (0, "")
        results = json.loads((here / "x.json").read_text())
        assert {each["image_id"] for each in results} == {"film.mp4#0", "film.mp4#10"}


class TestBroken:
    def test_what_comes_before_a_cut_is_predicted_for(self, here: Path) -> None:
        videos.write(here / "cut.mp4", count=40, movflags="faststart")
        (here / "cut.mp4").write_bytes((content := (here / "cut.mp4").read_bytes())[: len(content) // 2])
        status, said = tuner(here, "predict", "model", "cut.mp4", "white.png")
        found = lines_of(said)
        assert status == 1 and found[-1]["path"] == "white.png"
        assert [each["frame"] for each in found[:-1]] == list(range(len(found) - 1)) and 5 < len(found) < 36
        assert "skipped cut.mp4: it is cut off: it ends after " in said and "and should last 4.0 s" in said

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mpg"])
    def test_none_of_a_damaged_one_is_missing_silently(self, suffix: str, here: Path) -> None:
        content = videos.write(here / f"film.{suffix}").read_bytes()
        for number, damaged in enumerate((b"", b"no video" * 99, content[: len(content) // 3])):
            (here / f"{number}.{suffix}").write_bytes(damaged)
        status, said = tuner(here, "predict", "model", f"[0-2].{suffix}", f"film.{suffix}")
        found = lines_of(said)
        assert status == 1 and [each["frame"] for each in found if each["path"] == f"film.{suffix}"] == list(range(20))
        skipped = [line for line in said.splitlines() if line.startswith("skipped ")]
        assert len(skipped) >= 2 and "Traceback" not in said
        assert all(f"skipped {number}.{suffix}: " in said for number in (0, 1))

    def test_a_frame_that_is_damaged_is_skipped(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = video.Frame.image

        def image(frame: video.Frame) -> Any:
            if frame.number == 7:
                raise Undecodable("frame 7 is damaged")
            return real(frame)

        monkeypatch.setattr(video.Frame, "image", image)
        status, said = tuner(here, "predict", "model", "film.mp4")
        assert status == 1 and "skipped film.mp4: frame 7 is damaged\n" in said
        assert [each["frame"] for each in lines_of(said)] == [number for number in range(20) if number != 7]

    def test_the_extra_is_named_where_it_is_missing(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(video, "find_spec", lambda name: None)
        status, said = tuner(here, "predict", "model", "film.mp4", "white.png")
        assert status == 2 and "PyAV is not installed" in said and "pip install 'tuner[video]'" in said
        assert not lines_of(said)
        status, said = tuner(here, "predict", "model", "*")
        assert status == 1 and "skipped film.mp4: PyAV is not installed" in said and "tuner[video]" in said
        assert len(lines_of(said)) == 1


def test_sound_without_pictures_is_told(tmp_path: Path) -> None:
    import av

    file = tmp_path / "sound.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(Undecodable, match="it has no pictures"):
        list(video.frames(str(file)))


def test_torch_s_threads_read_a_video(here: Path) -> None:
    torch.set_num_threads(2)
    assert len(package.load(here / "model").predict(here / "film.mp4", batch_size=3)) == 20
