import json
import os
import shutil
from pathlib import Path

import pytest
from commands import tuner
from encoded_files import write_coco, write_masks, write_parquet, write_voc_boxes, write_yolo
from pages import Page
from PIL import Image

from tuner.data import ImageFolder

EXPERIMENT = """\
name: photos
objective: val_accuracy
trial:
  data: {kind: image_folder, root: photos, size: 8, augment: {flip: true, mixup: 0.3}}
  model: {kind: mlp}
search: {kind: grid}
"""


STREETS = """\
name: streets
objective: val_miou
trial:
  task: {kind: semantic_segmentation}
  data: {kind: image_mask_folder, root: streets, size: 16}
  model: {kind: unet, levels: 2, width: 4}
space:
  optimizer.lr: {grid: [0.1, 0.01]}
search: {kind: grid}
"""


COCO = """\
name: coco
objective: val_map
trial:
  task: {kind: detection}
  data: {kind: coco, root: coco, size: 32}
  model: {kind: yolo, width: 8}
space:
  optimizer.lr: {grid: [0.1, 0.01]}
search: {kind: grid}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with an experiment and its folder of images."""
    for label, red in (("cats", 0), ("<dogs>", 100)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (9, 7), (red, number, 0)).save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "photos.yaml").write_text(EXPERIMENT, encoding="utf-8")
    return tmp_path


class TestInspect:
    def test_a_folder(self, here: Path) -> None:
        status, said = tuner(here, "inspect", "photos")
        assert status == 0
        assert "a folder of images in 2 classes, not split: training splits it by a seed, 16 images" in said
        assert "width  9 pixels" in said
        assert "nothing is broken" in said

    def test_a_folder_with_a_broken_file_has_status_1(self, here: Path) -> None:
        (here / "photos" / "cats" / "x.png").write_text("")
        status, said = tuner(here, "inspect", "photos")
        assert status == 1
        assert "1 file cannot be used:\n  cats/x.png: " in said
        assert "nothing is broken" not in said

    def test_a_folder_as_json(self, here: Path) -> None:
        status, said = tuner(here, "inspect", "photos", "--json")
        found = json.loads(said)
        assert (status, found["is_broken"], found["images"], found["page"]) == (0, False, 16, None)
        assert found["splits"] == {"all": {"<dogs>": 8, "cats": 8}}

    def test_an_experiment_and_what_its_networks_will_see(self, here: Path) -> None:
        status, said = tuner(here, "inspect", "photos.yaml")
        assert status == 0
        assert "what a network sees: photos.html" in said
        text = (here / "photos.html").read_text(encoding="utf-8")
        page = Page(text)
        assert "photos: what a network sees" in page.text
        assert "<dogs>" in page.text, "a class may have any name"
        assert "flip True, mixup 0.3" in page.text
        pictures = [given for tag, given in page.tags if tag == "img"]
        assert len(pictures) == 7 * 12
        assert all(str(given["src"]).startswith("data:image/png;base64,") for given in pictures)
        assert "plotly" not in text, "the page has no plots"

    def test_an_experiment_with_overrides_and_another_page(self, here: Path) -> None:
        status, said = tuner(here, "inspect", "photos.yaml", "trial.data.augment={}", "-o", "out.html")
        assert status == 0
        assert "out.html" in said
        assert "the network sees the images as they are" in (here / "out.html").read_text(encoding="utf-8")
        assert not (here / "photos.html").exists()

    def test_an_experiment_whose_folder_is_broken_names_the_files(self, here: Path) -> None:
        files = ImageFolder(root=str(here / "photos"), size=9).files()  # another sample is measured
        sample = [name for split in ("train", "validation") for name in files[split].names if name.startswith("cats/")]
        for name in [*sample, *files["test"].names]:
            (here / "photos" / name).write_text("")
        status, said = tuner(here, "inspect", "photos.yaml")
        broken = [*sample, *files["test"].names]
        assert status == 1
        assert len(sample) > 5
        assert f"{len(broken)} files cannot be used" in said
        assert all(f"{name}: it is not an image" in said for name in broken)
        assert "photos.html is not written" in said
        assert not (here / "photos.html").exists()
        status, said = tuner(here, "inspect", "photos")
        assert status == 1
        assert all(f"{name}: it is not an image" in said for name in broken)
        status, said = tuner(here, "validate", "photos.yaml")
        assert status == 2
        assert "tuner inspect looks at all images" in said

    def test_an_image_of_the_page_is_broken(self, here: Path) -> None:
        name = ImageFolder(root=str(here / "photos"), size=8).files()["train"].names[0]
        (here / "photos" / name).write_text("")
        status, said = tuner(here, "inspect", "photos.yaml", "trial.data.channels=3", "trial.data.mean_std=imagenet")
        assert status == 1, "no image was measured, so the file has no mistake"
        assert f"1 file cannot be used:\n  {name}: it is not an image" in said
        assert "photos.html is not written" in said

    @pytest.mark.parametrize("split", ["", ",split"])
    def test_all_broken_images_of_a_csv_file_are_named(self, split: str, here: Path) -> None:
        rows = [
            f"photos/{label}/{number}.png,{label}{split and ',test' if number > 5 else split and ',train'}"
            for label in ("cats", "<dogs>")
            for number in range(8)
        ]
        (here / "photos.csv").write_text("\n".join([f"path,label{split}", *rows]), encoding="utf-8")
        broken = [f"photos/cats/{number}.png" for number in range(8)]
        for name in broken:
            (here / name).write_text("")
        status, said = tuner(here, "inspect", "photos.csv")
        assert status == 1
        assert "16 images" in said
        assert "8 files cannot be used:" in said
        assert all(f"  {name}: it is not an image" in said for name in broken)
        status, said = tuner(here, "init", "photos.csv", "-o", "-")
        assert status == 2, "broken images are no reason to leave out the column of the sets"
        assert "cannot be read: photos/cats/" in said

    def test_a_folder_of_damaged_shards_or_a_wrong_list_says_what_is_wrong_with_them(self, here: Path) -> None:
        for number, name in enumerate(("train-0", "train-1")):
            write_parquet(here / "shards" / f"{name}.parquet", ["a", "b"] * 10, first=100 * number)
        whole = here / "shards" / "train-1.parquet"
        whole.write_bytes(whole.read_bytes()[:-20])
        status, said = tuner(here, "inspect", "shards")
        assert status == 1
        assert "as Parquet files: " in said and "train-1.parquet cannot be read" in said
        (here / "photos" / "list.csv").write_text("path,label\ncats/0.png,a\ncats/nowhere.png,b", encoding="utf-8")
        shutil.rmtree(here / "photos" / "<dogs>")
        status, said = tuner(here, "inspect", "photos")
        assert status == 1
        assert "it has one class, cats" in said
        assert "cats/nowhere.png (line 3)" in said

    def test_broken_rows_of_shards_are_named(self, here: Path) -> None:
        write_parquet(here / "shards" / "train.parquet", ["a", "b"] * 10, broken=[2, 4])
        write_parquet(here / "shards" / "test.parquet", ["a", "b"] * 5, first=50, broken=[7])
        status, said = tuner(here, "inspect", "shards")
        assert status == 1
        assert all(f"  {row}: it has no bytes" in said for row in ("train.parquet:02", "train.parquet:04"))
        assert "  test.parquet:07: it has no bytes" in said

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_a_pipe_is_not_waited_for(self, suffix: str, here: Path) -> None:
        os.mkfifo(here / f"pipe.{suffix}")
        status, said = tuner(here, "inspect", f"pipe.{suffix}")
        assert (status, "nothing is broken" in said) == (1, False)
        (here / "p.yaml").write_text(EXPERIMENT.replace("image_folder, root: photos", f"{suffix}, file: pipe.{suffix}"))
        status, said = tuner(here, "validate", "p.yaml")
        assert status == 2
        assert "is not a file" in said

    def test_a_csv_file(self, here: Path) -> None:
        rows = [f"photos/{label}/{number}.png,{label}" for label in ("cats", "<dogs>") for number in range(8)]
        (here / "photos.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
        status, said = tuner(here, "inspect", "photos.csv")
        assert status == 0
        assert "images that a CSV file lists" in said
        (here / "lacks.csv").write_text("\n".join(["path,label", *rows, "nowhere.png,cats"]), encoding="utf-8")
        status, said = tuner(here, "inspect", "lacks.csv")
        assert status == 1
        assert "training refuses it: " in said
        assert "nowhere.png" in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nowhere",), "no such file"),
            (("photos", "--output", "x.html"), "a folder has no augmentation"),
            (("photos", "trial.epochs=1"), "a folder has no augmentation"),
            (("photos.yaml", "-o", "nowhere/x.html"), "there is no folder nowhere"),
            (("photos.yaml", "-o", "photos"), "photos is a folder"),
            (("photos.yaml", "-o", "photos.yaml"), "is the experiment"),
            (("photos.yaml", "-o", "photos/../photos.yaml"), "is the experiment"),
            (("photos.yaml", "-o", "link.html"), "is the experiment"),
            (("photos.yaml", "-o", f"{'x' * 300}.html"), "cannot be written: File name too long"),
        ],
    )
    def test_what_cannot_work_is_told(self, arguments: tuple[str, ...], message: str, here: Path) -> None:
        (here / "link.html").symlink_to("photos.yaml")
        status, said = tuner(here, "inspect", *arguments)
        assert status == 2
        assert message in said
        assert "Traceback" not in said
        assert (here / "photos.yaml").read_text(encoding="utf-8") == EXPERIMENT

    @pytest.mark.parametrize("more", [(), ("-o", "photos.csv"), ("-o", "photos.html")])
    def test_a_page_replaces_a_page_and_no_other_file(self, more: tuple[str, ...], here: Path) -> None:
        page = here / (more[-1] if more else "photos.html")
        page.write_text("<!doctype html>\n<p>Mine", encoding="utf-8")
        status, said = tuner(here, "inspect", "photos.yaml", *more)
        assert status == 2, said
        assert f"{page.name} exists, and is no page that tuner wrote" in said
        assert page.read_text(encoding="utf-8") == "<!doctype html>\n<p>Mine"
        page.write_text("", encoding="utf-8")
        for _ in range(2):
            assert tuner(here, "inspect", "photos.yaml", *more)[0] == 0
        assert "what a network sees" in page.read_text(encoding="utf-8")

    def test_a_page_that_cannot_be_written_in_the_end(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *arguments: True)  # as for root, of a disk that is read-only
        status, said = tuner(here, "inspect", "photos.yaml", "-o", "/proc/page.html")
        assert status == 2
        assert "/proc/page.html cannot be written" in said
        assert "Traceback" not in said

    def test_a_mistake_in_the_file_is_told_without_a_look_at_all_images(self, here: Path) -> None:
        name = ImageFolder(root=str(here / "photos"), size=8).files()["test"].names[0]
        (here / "photos" / name).write_text("")
        status, said = tuner(here, "inspect", "photos.yaml", "trial.epochs=none")
        assert status == 2
        assert "epochs" in said
        assert name not in said

    @pytest.mark.slow
    def test_a_folder_is_what_init_says_that_it_is(self, here: Path) -> None:
        rows = [f"{label}/{number}.png,{label}" for label in ("cats", "<dogs>") for number in range(6)]
        (here / "photos" / "some.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
        status, said = tuner(here, "init", "photos", "-o", "-")
        assert status == 0
        assert "kind: image_folder\n" in said
        status, said = tuner(here, "inspect", "photos")
        assert status == 0
        assert "a folder of images in 2 classes" in said
        assert "16 images" in said

    def test_each_broken_mask_and_image_is_named(self, here: Path) -> None:
        root = write_masks(here / "streets", 30)
        (root / "masks" / "3.png").write_bytes(b"nothing")
        (root / "masks" / "29.png").write_bytes(b"nothing")
        content = (root / "images" / "7.png").read_bytes()
        (root / "images" / "7.png").write_bytes(content[:100])
        (here / "streets.yaml").write_text(STREETS, encoding="utf-8")
        for path in ("streets", "streets.yaml"):
            status, said = tuner(here, "inspect", path)
            assert status == 1, said
            for name in ("images/3.png", "images/29.png", "images/7.png"):
                assert name in said
            assert "Traceback" not in said
        (root / "classes.txt").write_text("sky\nroad\n")
        status, said = tuner(here, "inspect", "streets")
        assert status == 1

    def test_masks_whose_classes_are_unknown_are_told(self, here: Path) -> None:
        (write_masks(here / "streets", 30) / "classes.txt").unlink()
        status, said = tuner(here, "inspect", "streets")
        assert status == 1
        assert "the classes are unknown" in said

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["voc", "yolo"])
    def test_classes_that_the_data_do_not_say_are_an_option(self, kind: str, here: Path) -> None:
        if kind == "voc":
            write_voc_boxes(here / "farm", 20, 10, classes=("cow", "ewe", "hen"))
        else:
            (write_yolo(here / "farm", 20, 6, 4) / "data.yaml").unlink()
        status, said = tuner(here, "inspect", "farm")
        assert status == 1
        assert "tuner inspect, init and evaluate take them as --classes cat,dog" in said
        status, said = tuner(here, "inspect", "farm", "--classes", "cow, ewe,hen")
        assert status == 0, said
        assert "3 classes" in said
        status, said = tuner(here, "init", "farm", "--classes", "cow, ewe,hen", "-o", "-")
        assert status == 0, said
        assert "    classes: [cow, ewe, hen]\n" in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("inspect", "photos"), "photos says itself what its classes are"),
            (("init", "photos", "-o", "-"), "photos says itself what its classes are"),
            (("inspect", "photos.yaml"), "an experiment says its classes itself"),
            (("inspect", "photos", "--classes", "a,,b"), "'a,,b' has a class without a name"),
        ],
    )
    def test_classes_that_cannot_be_said_are_told(self, arguments: tuple[str, ...], message: str, here: Path) -> None:
        status, said = tuner(here, *arguments, *(() if "--classes" in arguments else ("--classes", "cow,ewe")))
        assert status == 2
        assert "--classes" in said and message in said


class TestInit:
    @pytest.mark.slow
    def test_it_writes_an_experiment_that_can_be_validated_and_trained(self, here: Path) -> None:
        (here / "photos.yaml").unlink()
        status, said = tuner(here, "init", "photos", "--time", "2m")
        assert status == 0
        assert f"wrote {here / 'photos.yaml'}: " in said
        text = (here / "photos.yaml").read_text(encoding="utf-8")
        assert "root: photos\n" in text, "folder and file can be moved together"
        assert "timeout: 2m\n" in text
        assert tuner(here, "validate", "photos.yaml")[0] == 0
        assert tuner(here, "train", "photos.yaml", "trial.epochs=1", "scheduler={kind: fifo}")[0] == 0
        assert sorted(path.name for path in here.iterdir()) == ["photos", "photos.yaml"]

    @pytest.mark.slow
    def test_it_prints_it_and_overwrites_nothing(self, here: Path) -> None:
        status, said = tuner(here, "init", "photos")
        assert status == 2
        assert "exists already" in said
        assert (here / "photos.yaml").read_text(encoding="utf-8") == EXPERIMENT
        status, said = tuner(here, "init", "photos", "-o", "-")
        assert status == 0
        assert f"root: {here / 'photos'}\n" in said
        assert (here / "photos.yaml").read_text(encoding="utf-8") == EXPERIMENT

    @pytest.mark.slow
    @pytest.mark.usefixtures("own_data_dir")
    def test_it_leaves_out_what_is_broken_where_it_is_asked_to(self, here: Path) -> None:
        (here / "photos" / "cats" / "7.png").write_text("")
        status, said = tuner(here, "init", "photos", "-o", "x.yaml")
        assert status == 2
        assert "--skip-broken leaves out what is broken" in said
        status, said = tuner(here, "init", "photos", "-o", "x.yaml", "--skip-broken")
        assert status == 0, said
        assert "    skip_broken: true\n" in (here / "x.yaml").read_text(encoding="utf-8")
        assert tuner(here, "validate", "x.yaml")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nowhere",), "does not exist"),
            (("photos/cats", "-o", "x.yaml"), "as a folder of images: "),
            (("photos", "--force", "--time", "soon"), "'soon' is not a duration"),
            (("photos", "--force", "--time", "5s"), "too short"),
            (("photos", "-o", "photos"), "is a folder"),
            (("photos", "-o", f"{'x' * 300}.yaml"), "cannot be written: File name too long"),
        ],
    )
    def test_what_cannot_work_is_told(self, arguments: tuple[str, ...], message: str, here: Path) -> None:
        status, said = tuner(here, "init", *arguments)
        assert status == 2
        assert message in said


def test_the_time_of_a_run_is_its_timeout(here: Path) -> None:
    status, said = tuner(here, "run", "photos.yaml", "--time", "20m", "--dry-run")
    assert status == 0
    assert "timeout     20m" in said
    status, said = tuner(here, "run", "photos.yaml", "--time", "soon", "--dry-run")
    assert status == 2
    assert "timeout" in said


class TestValidateData:
    def test_all_images_are_read(self, here: Path) -> None:
        assert tuner(here, "validate", "photos.yaml", "--data") == (0, "photos.yaml: valid, 1 trial, 16 images read\n")

    def test_each_broken_file_is_named_whatever_else_is_wrong_with_the_data(self, here: Path) -> None:
        broken = [f"cats/{number}.png" for number in range(8)]
        for name in broken:
            (here / "photos" / name).write_text("")
        status, said = tuner(here, "validate", "photos.yaml", "--data")
        assert status == 2
        lines = [line for line in said.splitlines() if line.startswith("error: photos.yaml")]
        told = sorted(line.partition("cats/")[2] for line in lines)
        assert told == [f"{number}.png: it is not an image of a format that Pillow reads" for number in range(8)]
        assert "skip_broken: true leaves them out" in said

    def test_each_broken_box_is_named_with_its_annotation(self, here: Path) -> None:
        root = write_coco(here / "coco", 12, 4)
        file = root / "annotations" / "instances_train2017.json"
        content = json.loads(file.read_text())
        wrong = content["annotations"][:5]
        for each in wrong:
            each["bbox"][2] = 0
        file.write_text(json.dumps(content))
        image = sorted((root / "val2017").iterdir())[0]
        image.write_bytes(image.read_bytes()[:50])
        (here / "coco.yaml").write_text(COCO, encoding="utf-8")
        status, said = tuner(here, "validate", "coco.yaml", "--data")
        assert status == 2
        for each in wrong:
            assert f"annotation {each['id']} " in said
        assert f"{image.name}: " in said
        assert "Traceback" not in said

    def test_the_datasets_of_a_space_are_read(self, here: Path) -> None:
        shutil.copytree(here / "photos", here / "more")
        for folder in ("photos", "more"):  # the same name in both
            (here / folder / "cats" / "3.png").write_text("")
        space = "space:\n  data.root: {choice: [photos, more]}\n"
        given = " channels: 3, mean_std: imagenet,"
        text = EXPERIMENT.replace("size: 8,", f"size: 8,{given}").replace("search: {", f"{space}search: {{")
        (here / "both.yaml").write_text(text, encoding="utf-8")
        assert tuner(here, "validate", "both.yaml")[0] == 0
        status, said = tuner(here, "validate", "both.yaml", "--data")
        assert status == 2
        for folder in ("photos", "more"):
            assert f"{folder}: cats/3.png: it is not an image" in said

    def test_other_mistakes_are_told_first(self, here: Path) -> None:
        (here / "wrong.yaml").write_text(EXPERIMENT.replace("kind: mlp", "kind: mlpp"), encoding="utf-8")
        status, said = tuner(here, "validate", "wrong.yaml", "photos.yaml", "--data")
        assert status == 2
        assert "unknown kind 'mlpp'" in said
        assert "photos.yaml: valid, 1 trial, 16 images read" in said
