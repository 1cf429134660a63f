"""``tuner predict`` as somebody types it."""

import copy
import csv
import io
import json
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from commands import tuner
from encoded_files import noise, write_coco
from PIL import Image
from pycocotools.coco import COCO
from torch import nn

import tuner as package
from tuner.deploy.images import items_of
from tuner.deploy.model import about_of
from tuner.deploy.pipeline import Pipeline
from tuner.errors import UserError
from tuner.tasks.predictions.coding import decoded
from tuner.user_code import resolve

SCENES: dict[str, Any] = {"kind": "mnist_scenes", "size": 32, "source": "digits", "largest": 28}
OBJECTS: dict[str, Any] = {"model": {"kind": "yolo", "width": 4}, "data": SCENES, "task": {"kind": "detection"}}


def lines_of(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def _checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.small(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(_checkpoint: Path, tmp_path: Path) -> Path:
    """A folder with a model, and with photos in folders."""
    (tmp_path / "model").symlink_to(_checkpoint)
    for number, name in enumerate(("b.png", "a.JPG", "deep/er/c.png", ".hidden.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(number, (9 + number, 8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "readme.txt").write_text("these are photos")
    return tmp_path


class TestImages:
    def test_a_folder_is_read_at_any_depth(self, here: Path) -> None:
        status, said = tuner(here, "predict", "model", "photos")
        found = lines_of(said)
        assert status == 0 and len(found) == len(said.splitlines())
        assert [each["path"] for each in found] == ["photos/a.JPG", "photos/b.png", "photos/deep/er/c.png"]
        results = package.load(here / "model").predict(here / "photos")
        wanted = [each.as_dict() | {"path": each.path.removeprefix(f"{here}/")} for each in results]
        assert found == wanted, "in Python it is the same"
        assert all(set(each) == {"path", "label", "probability", "top"} and len(each["top"]) == 5 for each in found)

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("photos/*.png", ["photos/b.png"]),
            ("photos/**/*.png", ["photos/b.png", "photos/deep/er/c.png"]),
            ("ph[o]tos/d*", ["photos/deep/er/c.png"]),
        ],
    )
    def test_a_quoted_glob_is_expanded(self, pattern: str, names: list[str], here: Path) -> None:
        status, said = tuner(here, "predict", "model", pattern, "--top", "1")
        assert status == 0 and [each["path"] for each in lines_of(said)] == names

    def test_a_list_on_standard_input(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = b"photos/b.png\n\nphotos/gone.png\r\nphotos/deep\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
        status, said = tuner(here, "predict", "model", "-")
        assert [each["path"] for each in lines_of(said)] == ["photos/b.png", "photos/deep/er/c.png"]
        assert status == 1 and "skipped photos/gone.png: there is no such file\n" in said

    def test_what_cannot_be_read_is_skipped_and_told(self, here: Path) -> None:
        (here / "photos" / "cut.png").write_bytes((here / "photos" / "b.png").read_bytes()[:100])
        (here / "photos" / "empty.jpg").write_bytes(b"")
        Image.new("1", (20_000, 20_000)).save(here / "photos" / "large.png")
        odd = here / "photos" / "\udcff.png"
        noise(9).save(odd)
        status, said = tuner(here, "predict", "model", "photos", "photos/readme.txt", "--batch-size", "2")
        assert status == 1 and len(lines_of(said)) == 4
        assert "skipped photos/cut.png: " in said and "skipped photos/empty.jpg: it is not an image of a format" in said
        assert "skipped photos/large.png: it is too large: " in said
        assert "skipped photos/readme.txt: it is not an image of a format that Pillow reads\n" in said
        assert lines_of(said)[-1]["path"] == "photos/\udcff.png", "JSON escapes what is not UTF-8"

    def test_circles_of_links_end(self, here: Path) -> None:
        (here / "photos" / "deep" / "again").symlink_to(here / "photos")
        (here / "photos" / "nowhere.png").symlink_to(here / "gone")
        assert len(lines_of(tuner(here, "predict", "model", "photos")[1])) == 3


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["model", "phots"], "there is no file or folder phots"),
            (["model", "photos/*.bmp"], "no file matches photos/*.bmp"),
            (["model", "empty"], "there are no images in the folder empty"),
            (["model", "s3://bucket/photos"], "is a URI, and images are files of this machine"),
            (["model", "photos", "-o", "x.xml"], "--output: .xml is no format of predictions"),
            (["model", "photos", "-o", "nowhere/x.csv"], "there is no folder nowhere"),
            (["model", "photos", "-o", "a_file"], "a_file is a file without a suffix"),
            (["model", "photos", "-o", "."], "pictures in . could replace the images themselves"),
            (["model", "photos", "-o", "loop"], "the picture of photos/a.JPG would replace the image"),
            (["model", "photos", "--threshold", "0.5"], "--threshold: it has no effect: the model predicts one class"),
            (["./model", "photos", "-o", "x.xml.csv", "--address", "127.0.0.1:1"], "--address: no Ray answers there"),
            (["./modle", "photos"], "there is no folder"),
            (["photos/", "photos"], "is not a checkpoint"),
        ],
    )
    def test_are_told_and_nothing_is_started(self, arguments: list[str], what: str, here: Path) -> None:
        (here / "empty").mkdir()
        (here / "a_file").write_text("")
        (here / "loop").mkdir()
        (here / "loop" / "photos").symlink_to(here / "photos")
        status, said = tuner(here, "predict", *arguments)
        assert status == 2 and what in said and said.startswith("error: ") and "Traceback" not in said
        assert not lines_of(said) and not list(here.glob("x.xml*"))

    def test_all_arguments_that_lead_nowhere_are_told_at_once(self, here: Path) -> None:
        status, said = tuner(here, "predict", "model", "one", "photos", "two")
        assert status == 2 and "folder one" in said and "folder two" in said

    @pytest.mark.parametrize("given", [io.BytesIO(b"\n"), None], ids=["no paths", "closed"])
    def test_an_empty_standard_input(
        self, given: io.BytesIO | None, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", given and io.TextIOWrapper(given))
        status, said = tuner(here, "predict", "model", "-")
        assert status == 2 and "standard input has no paths" in said

    def test_numbers_out_of_range(self, here: Path) -> None:
        for option in (["--top", "0"], ["--batch-size", "0"], ["--threshold", "2"]):
            assert tuner(here, "predict", "model", "photos", *option)[0] == 2

    def test_a_model_of_channels_that_no_file_has(self, here: Path, own: Callable[[str], str]) -> None:
        data = {"kind": "import", "target": f"{own(FIVE_CHANNELS)}:Five"}
        checkpoints.write(here / "five", data=data, model={"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8})
        status, said = tuner(here, "predict", "five", "photos")
        assert status == 2 and "the model takes images of 5 channels" in said and "predict(images)" in said
        [found] = package.load(here / "five").predict(torch.zeros(5, 20, 30))
        assert (found.width, found.height) == (30, 20)


FIVE_CHANNELS = """\
import torch

class Five:
    def __init__(self, train):
        self.images = torch.rand(40, 5, 12, 10, generator=torch.Generator().manual_seed(int(train)))

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return self.images[index], index % 2
"""

OWN = """\
from torch import nn

class Net(nn.Module):
    fails = False

    def __init__(self, channels, classes):
        super().__init__()
        self.predict = nn.Linear(channels, classes)

    def forward(self, images):
        if self.fails and images.max() > 0:  # not in the check when it is loaded
            raise ValueError("no more")
        return self.predict(images.mean(dim=(2, 3)))
"""


class TestOwnModels:
    @pytest.fixture
    def target(self, here: Path, own: Callable[[str], str]) -> str:
        """A model of the user's own, whose checkpoint is the folder ``mine``, and whose code is in ``own``."""
        target = f"{own(OWN)}:Net"
        checkpoints.write(here / "mine", data={"kind": "digits"}, model={"kind": "import", "target": target})
        return target

    def test_are_trusted_by_name(self, here: Path, target: str) -> None:
        status, said = tuner(here, "predict", "mine", "photos")
        assert status == 2 and f"loading it would run code that it names: {target}" in said
        assert f"--trust {target}" in said
        status, said = tuner(here, "predict", "mine", "photos", "--trust", target, "--code", "own")
        assert status == 0 and len(lines_of(said)) == 3
        status, said = tuner(here, "predict", "mine", "photos", "--trust", target, "--code", "won")
        assert status == 2 and "there is no folder 'won'" in said

    def test_are_found_in_the_working_directory(self, here: Path, target: str) -> None:
        module = f"own_{secrets.token_hex(4)}"
        (here / f"{module}.py").write_text(OWN)
        trial = here / "mine" / "trial.yaml"
        trial.write_text(trial.read_text().replace(target, f"{module}:Net"))
        status, said = tuner(here, "predict", "mine", "photos", "--trust", f"{module}:Net")
        assert status == 0 and len(lines_of(said)) == 3, said

    def test_keep_what_they_have_by_the_name_of_ours(self, here: Path, target: str) -> None:
        model = package.load(here / "mine", trust=[target])
        assert isinstance(model, resolve(target))
        assert isinstance(model.predict, nn.Linear) and copy.deepcopy(model)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)

    def test_that_fail_are_told_in_a_line(self, here: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        arguments = ["predict", "mine", "photos", "--trust", target]
        monkeypatch.setattr(resolve(target), "fails", True)
        status, said = tuner(here, *arguments)
        assert status == 2 and f"{target} fails with images (3, 1, 8, 8): ValueError: no more" in said
        assert "Traceback" not in said

    def test_that_return_something_else_are_told(
        self, here: Path, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = package.load(here / "mine", trust=[target])
        pipeline = Pipeline(model, about_of(model), torch.device("cpu"))
        for returned, what in (
            (torch.zeros(2, 10), r"a tensor \(2, 10\) for 1 images"),
            (torch.zeros(1, 9), r"a tensor \(1, 9\) for 1 images"),
            ({"other": torch.zeros(1, 10)}, "no tensor for 1 images"),
        ):
            monkeypatch.setattr(resolve(target), "forward", lambda self, images, returned=returned: returned)
            with pytest.raises(UserError, match=f"the model returns {what}: its checkpoint says one class"):
                list(pipeline(items_of(noise(0))))


class TestOutput:
    def test_lines_and_a_list_of_json(self, here: Path) -> None:
        assert tuner(here, "predict", "model", "photos", "-o", "x.jsonl") == (0, "")
        lines = lines_of((here / "x.jsonl").read_text(encoding="utf-8"))
        assert lines == lines_of(tuner(here, "predict", "model", "photos")[1])
        assert tuner(here, "predict", "model", "photos", "-o", "x.json") == (0, "")
        assert json.loads((here / "x.json").read_text(encoding="utf-8")) == lines

    def test_csv(self, here: Path) -> None:
        assert tuner(here, "predict", "model", "photos", "-o", "x.csv") == (0, "")
        with (here / "x.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        wanted = lines_of(tuner(here, "predict", "model", "photos")[1])
        assert rows == [{name: str(each[name]) for name in ("path", "label", "probability")} for each in wanted]

    def test_pictures(self, here: Path) -> None:
        (here / "photos" / "bad.png").write_bytes(b"")
        assert tuner(here, "predict", "model", "photos", "-o", "seen")[0] == 1
        found = sorted(str(each.relative_to(here)) for each in (here / "seen").rglob("*.*"))
        assert found == ["seen/photos/a.JPG", "seen/photos/b.png", "seen/photos/deep/er/c.png"]
        with Image.open(here / "seen" / "photos" / "b.png") as picture:
            assert picture.height > 9, "a line of text is below it"
            text = np.asarray(picture.convert("L"))[9:]
            assert text[:, 8:].min() < 100 and text[:, -1].min() == 255, "it is not cut off at the width of the image"

    def test_pictures_in_a_folder_of_images_are_no_images(self, here: Path) -> None:
        for _ in range(2):
            assert tuner(here, "predict", "model", ".", "-o", "photos/seen") == (0, "")
        pictures = {str(each.relative_to(here)) for each in (here / "photos" / "seen").rglob("*.*")}
        assert pictures == {f"photos/seen/photos/{name}" for name in ("a.JPG", "b.png", "deep/er/c.png")}

    def test_several_heads(self, here: Path) -> None:
        heads = {
            "digit": {"target": "label", "loss": {"kind": "cross_entropy"}},
            "where": {"target": "position", "loss": {"kind": "smooth_l1"}},
        }
        checkpoints.write(
            here / "two",
            task={"kind": "multitask", "heads": heads},
            data={"kind": "digits", "canvas": 12},
            model={"kind": "multitask_cnn", "width1": 4, "width2": 4},
        )
        status, said = tuner(here, "predict", "two", "photos/b.png", "--top", "2")
        [found] = lines_of(said)
        assert status == 0 and set(found) == {"path", "heads"}
        assert len(found["heads"]["digit"]["top"]) == 2 and found["heads"]["where"]["unit"] == "pixels"
        tuner(here, "predict", "two", "photos/b.png", "-o", "x.csv")
        with (here / "x.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["head"], row["label"], row["unit"]) for row in rows] == [
            ("digit", found["heads"]["digit"]["label"], ""),
            ("where", "", "pixels"),
        ]

    def test_boxes(self, here: Path) -> None:
        checkpoints.write(here / "boxes", **OBJECTS)
        (here / "scenes").mkdir()
        noise(1, (50, 90)).save(here / "scenes" / "000000000139.jpg")
        status, said = tuner(here, "predict", "boxes", "scenes", "--threshold", "0")
        [found] = lines_of(said)
        assert status == 0 and found["boxes"], "weights that learnt nothing find anything"
        for each in found["boxes"]:
            left, top, right, bottom = each["box"]
            assert 0 <= left < right <= 90 and 0 <= top < bottom <= 50 and each["label"] in "0123456789"
        assert max(each["box"][2] for each in found["boxes"]) > 50, "not in pixels of the input"
        assert tuner(here, "predict", "boxes", "scenes", "--threshold", "0", "-o", "x.json")[0] == 0
        results = json.loads((here / "x.json").read_text())
        assert len(results) == len(found["boxes"]) and {each["image_id"] for each in results} == {139}
        left, top, right, bottom = found["boxes"][0]["box"]
        assert results[0]["bbox"] == [left, top, right - left, bottom - top]
        assert results[0]["category_id"] == int(results[0]["category_name"]) + 1
        tuner(here, "predict", "boxes", "scenes", "--threshold", "1", "-o", "x.csv")
        assert (here / "x.csv").read_text().splitlines() == [
            "path,label,score,left,top,right,bottom",
            "scenes/000000000139.jpg,,,,,,",
        ]
        assert tuner(here, "predict", "boxes", "scenes", "--top", "2")[0] == 2, "there is no second best"

    def test_coco_s_results_have_the_ids_of_its_files(self, here: Path) -> None:
        data = {"kind": "coco", "root": str(write_coco(here / "coco", train=12, val=3)), "size": 32}
        checkpoints.write(here / "boxes", **OBJECTS | {"data": data})
        shutil.rmtree(here / "coco" / "annotations")
        command = ["predict", "boxes", "coco/val2017", "--threshold", "0", "-o", "x.json"]
        assert tuner(here, *command)[0] == 0
        results = json.loads((here / "x.json").read_text())
        ids = {"person": 1, "dog": 18, "cup": 90}
        assert results and all(each["category_id"] == ids[each["category_name"]] for each in results)
        assert {each["image_id"] for each in results} <= {12, 13, 14}
        reference = COCO()
        images = [{"id": number, "width": 9, "height": 9} for number in (12, 13, 14)]
        reference.dataset = {"images": images, "annotations": [], "categories": [{"id": each} for each in ids.values()]}
        reference.createIndex()
        assert len(reference.loadRes(str(here / "x.json")).anns) == len(results), "COCO's own tools read them"
        signature = json.loads((here / "boxes" / "signature.json").read_text())
        del signature["outputs"][""]["ids"]  # an older version had none
        (here / "boxes" / "signature.json").write_text(json.dumps(signature))
        assert tuner(here, *command)[0] == 0
        from_one = {each["category_name"]: each["category_id"] for each in json.loads((here / "x.json").read_text())}
        assert from_one.items() <= {"person": 1, "dog": 2, "cup": 3}.items()

    def test_masks_of_objects_are_drawn(self, here: Path, own: Callable[[str], str]) -> None:
        target = f"{own(FINDS)}:Finds"
        model = {"kind": "import", "target": target}
        checkpoints.write(here / "finds", task={"kind": "instance_segmentation"}, data=SCENES, model=model)
        Image.new("RGB", (64, 64), "white").save(here / "white.png")
        arguments = ["predict", "finds", "white.png", "--trust", target]
        status, said = tuner(here, *arguments)
        [found] = lines_of(said)
        assert status == 0
        [each] = found["boxes"]
        assert each["box"] == [0, 0, 32, 64] and each["label"] == "0"
        pixels = decoded(each["mask"])
        assert pixels[:, :31].all() and not pixels[:, 33:].any()
        tuner(here, *arguments, "-o", "seen")
        with Image.open(here / "seen" / "white.png") as picture:
            shown = np.asarray(picture.convert("RGB")).astype(int)
        assert (shown[30, 50] == 255).all() and (shown[30, 10] < 255).any()

    def test_the_classes_of_pixels(self, here: Path) -> None:
        checkpoints.write(
            here / "pixels",
            task={"kind": "semantic_segmentation"},
            data=SCENES,
            model={"kind": "unet", "width": 4, "levels": 2},
        )
        noise(1, (40, 60)).save(here / "wide.jpg")
        status, said = tuner(here, "predict", "pixels", "wide.jpg")
        [found] = lines_of(said)
        assert status == 0 and sum(each["share"] for each in found["masks"]) == pytest.approx(1)
        assert all(each["mask"]["size"] == [40, 60] for each in found["masks"])
        tuner(here, "predict", "pixels", "wide.jpg", "-o", "seen")
        with Image.open(here / "seen" / "wide.jpg.classes.png") as picture:
            classes = np.asarray(picture)
            assert picture.mode == "P" and classes.shape == (40, 60)
        names = ("background", *"0123456789")
        for each in found["masks"]:
            assert (decoded(each["mask"]) == (classes == names.index(each["label"]))).all()
        assert (classes[:, :10] == 255).all() and (classes[:, 10:50] != 255).all(), "the crop is unknown"
        with Image.open(here / "seen" / "wide.jpg") as picture:
            assert picture.width >= 60


FINDS = """\
import torch
from torch import nn

class Finds(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images, targets=None):
        if self.training:
            return {"loss": self.weight.sum()}
        masks = torch.zeros(1, 1, 32, 32)
        masks[..., :16] = 1
        one = {
            "boxes": torch.tensor([[0.0, 0, 16, 32]]),
            "labels": torch.tensor([1]),
            "scores": torch.tensor([0.9]),
            "masks": masks,
        }
        return [one for _ in images]
"""
