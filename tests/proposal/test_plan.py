"""Plans for data and machines that are described here; what a training costs is given instead of measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from encoded_files import write_coco, write_masks, write_voc_boxes, write_yolo
from PIL import Image

from tuner.data.encoded.boxes.listing import listing_of
from tuner.errors import UserError
from tuner.proposal.cost import Cost
from tuner.proposal.layout import Layout
from tuner.proposal.layouts import is_data, layout_of
from tuner.proposal.machine import Machine
from tuner.proposal.plan import Plan, plan
from tuner.proposal.text import name_of, text_of
from tuner.ray_backend.cluster.resources import ClusterResources, NodeResources, share
from tuner.spec.loader import load
from tuner.train.trial_config import TrialConfig

LAPTOP, GPUS = Machine(2, ()), Machine(16, ("H100", "H100"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, count in (("cats", 9), ("dogs", 30)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 34), (number, 0, 0)).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def costs(epoch: Callable[[TrialConfig], float]) -> Callable[[TrialConfig, Machine], Cost]:
    return lambda trial, machine: Cost(epoch(trial), 1.0)


def made(layout: Layout, machine: Machine = LAPTOP, seconds: float = 3600, epoch: float = 5, **more: Any) -> Plan:
    options = {"has_weights": lambda name: False, "measure": costs(lambda trial: epoch)} | more
    return plan(layout, machine, seconds, **options)


def test_what_a_folder_is(photos: Path) -> None:
    layout = layout_of(photos)
    assert layout.fields == {"kind": "image_folder", "root": str(photos)}
    assert layout.side == 34
    assert layout.training_images == layout.data.describe().sizes["train"]
    assert layout.imbalance > 3
    assert "2 classes" in layout.what


def test_what_is_no_data_is_told(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "as a folder of images: ")):
        with pytest.raises(UserError) as error:
            layout_of(path)
        assert message in str(error.value)
        assert error.value.problems[-1].hint


def test_small_images_keep_their_size(photos: Path) -> None:
    planned = made(layout_of(photos))
    assert planned.candidate.size == 32
    assert planned.trial["model"]["kind"] == "resnet_small"
    assert planned.trial["data"]["augment"] == {"shift": 4}


def test_photos_are_fine_tuned_where_weights_can_be_had(photos: Path) -> None:
    layout = replace(layout_of(photos), side=400)
    with_weights = made(layout, has_weights=lambda name: True)
    assert with_weights.trial["model"] == {"kind": "torchvision", "name": "resnet18", "weights": "DEFAULT"}
    assert with_weights.trial["data"]["size"] == 160
    assert made(layout, GPUS, has_weights=lambda name: True).trial["model"]["name"] == "resnet50"
    assert made(layout).trial["model"]["kind"] == "resnet_small"
    slow = made(layout, has_weights=lambda name: True, measure=costs(lambda trial: 1000.0))
    assert slow.trial["model"]["freeze"] == "backbone"


def test_the_largest_network_that_the_time_allows(photos: Path) -> None:
    layout = layout_of(photos)
    epoch = costs(lambda trial: trial.model.width / 2)  # type: ignore[union-attr]
    widths = [made(layout, seconds=seconds, measure=epoch).trial["model"]["width"] for seconds in (300, 600, 1200)]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [(2, 0, 2), (16, 2, 2), (7, 2, 2), (96, 8, 8), (8, 1, 1), (3, 3, 3), (2, 4, 2), (1, 0, 1)],
)
def test_as_many_trials_train_at_once_as_the_plan_has_counted(
    cpus: int, gpus: int, slots: int, photos: Path, tmp_path: Path
) -> None:
    machine = Machine(cpus, ("H100",) * gpus)
    layout = layout_of(photos)
    file = tmp_path / "experiment.yaml"
    file.write_text(text_of(made(layout, machine), layout, machine, "photos"), encoding="utf-8")
    shared = share(load(file).resources, ClusterResources((NodeResources(cpus, gpus),)), trials=100)
    assert shared.slots == machine.slots == slots
    assert shared.threads == machine.cores, "as many as a trial was timed with"
    assert shared.gpu == (1 if gpus else 0)


@pytest.mark.parametrize("machine", [LAPTOP, GPUS])
@pytest.mark.parametrize("seconds", [120, 1200, 36_000])
@pytest.mark.parametrize("epoch", [0.01, 3, 500])
def test_every_plan_is_an_experiment_that_loads(
    machine: Machine, seconds: float, epoch: float, photos: Path, tmp_path: Path
) -> None:
    layout = layout_of(photos)
    planned = made(layout, machine, seconds, epoch)
    assert 4 <= planned.trials <= 100
    assert 1 <= planned.epochs <= 100
    assert planned.is_tight == (epoch == 500 and seconds < 36_000) or 0.1 * seconds < 30 * epoch < seconds
    file = tmp_path / "experiment.yaml"
    file.write_text(text_of(planned, layout, machine, "photos"), encoding="utf-8")
    spec = load(file)
    assert spec.timeout == seconds
    assert spec.count() == planned.trials
    assert (spec.trial.length, spec.scheduler.kind) == (planned.epochs, "asha" if planned.epochs > 1 else "fifo")
    assert spec.objective.metric == "val_f1", "there are many more dogs than cats"
    [first] = spec.search.initial
    assert first.keys() == spec.space.keys()


def test_more_trials_search_more_keys(photos: Path) -> None:
    layout = layout_of(photos)
    assert len(made(layout, epoch=0.1).space) > len(made(layout, seconds=300).space) >= 2


@pytest.mark.parametrize(
    ("text", "name"),
    [("My photos (2024)", "My-photos-2024"), ("日本", "experiment"), ("-x", "x"), ("a" * 200, "a" * 100)],
)
def test_a_folder_of_any_name_gives_an_experiment_s_name(text: str, name: str) -> None:
    assert name_of(text) == name


def test_a_csv_file_and_a_folder_with_one(photos: Path) -> None:
    rows = [
        f"photos/{label}/{number}.png,{label},{'test' if number == 0 else 'train'},{number}"
        for label, count in (("cats", 9), ("dogs", 30))
        for number in range(count)
    ]
    file = photos.parent / "photos.csv"
    file.write_text("\n".join(["path,label,Set,other", *rows]), encoding="utf-8")
    layout = layout_of(file)
    assert layout.fields == {"kind": "csv", "file": str(file), "split": "Set"}
    assert layout.data.describe().sizes["test"] == 2
    folder = photos.parent / "with"
    folder.mkdir()
    (folder / "broken.csv").write_text("path,label\nnowhere.png,cats\n", encoding="utf-8")
    with pytest.raises(UserError, match="as a CSV file: "):
        layout_of(folder)
    (folder / "broken.csv").unlink()
    file.replace(folder / "all.csv")
    photos.replace(folder / "photos")
    assert layout_of(folder).fields == {"kind": "csv", "file": str(folder / "all.csv"), "split": "Set"}
    file = folder.parent / "experiment.yaml"
    file.write_text(text_of(made(layout_of(folder)), layout_of(folder), LAPTOP, "listed"), encoding="utf-8")
    assert load(file).trial.data_is_available


def test_parquet_files(photos: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": path.parent.name}
        for path in sorted(photos.rglob("*.png"))
    ]
    folder = photos.parent / "shards"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    layout = layout_of(folder)
    assert layout.fields == {"kind": "parquet", "file": str(folder)}
    assert layout.side == 34
    assert layout_of(folder / "train.parquet").counts == layout.counts


@pytest.mark.parametrize(
    ("words", "used", "notes"),
    [
        (("train", "test"), {"split": "Set", "group": "Patient"}, ("The column Set says", "column Patient are never")),
        (("A", "B"), {"group": "Patient"}, ("column Set is not used", "column Patient are never")),
    ],
)
def test_a_column_of_groups_is_never_dropped(
    words: tuple[str, str], used: dict[str, str], notes: tuple[str, str], photos: Path
) -> None:
    rows = [
        f'photos/{label}/{number}.png;{label};{words[number % 3 == 0]};"p;{number // 3 if words[0] == "A" else number}"'
        for label, count in (("cats", 9), ("dogs", 30))
        for number in range(count)
    ]
    file = photos.parent / "photos.csv"
    file.write_text("\n".join(['"path";"label";"Set";"Patient"', *rows]), encoding="utf-8-sig")
    layout = layout_of(file)
    assert layout.fields == {"kind": "csv", "file": str(file)} | used
    text = text_of(made(layout), layout, LAPTOP, "listed")
    for note in notes:
        assert note in " ".join(text.replace("# ", "").split())
    (photos.parent / "listed.yaml").write_text(text, encoding="utf-8")
    assert load(photos.parent / "listed.yaml").trial.data_is_available


def test_groups_that_cannot_be_split_are_refused(photos: Path) -> None:
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name},one" for path in sorted(photos.rglob("*.png"))]
    file = photos.parent / "photos.csv"
    file.write_text("\n".join(["path,label,subject", *rows]), encoding="utf-8")
    with pytest.raises(UserError, match="1 group cannot be split"):
        layout_of(file)


def test_images_with_masks_get_a_network_of_each_pixel(tmp_path: Path) -> None:
    layout = layout_of(write_masks(tmp_path / "streets", 30))
    assert layout.fields == {"kind": "image_mask_folder", "root": str(tmp_path / "streets")}
    assert layout.kind == "mask" and "images with masks, 3 classes" in layout.what
    for machine, epoch in ((LAPTOP, 5.0), (LAPTOP, 200.0), (GPUS, 1.0)):
        planned = made(layout, machine, epoch=epoch)
        assert planned.trial["task"] == {"kind": "semantic_segmentation"} and planned.objective[0] == "val_miou"
        assert planned.trial["model"]["kind"] == "unet" and planned.candidate.size % 16 == 0
        written = tmp_path / "streets.yaml"
        written.write_text(text_of(planned, layout, machine, "streets"))
        spec = load(written)
        assert spec.objective.metric == "val_miou" and set(planned.first) == set(planned.space)


def test_masks_whose_classes_are_unknown_are_told(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "streets", 30)
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"as images with masks: .*the classes are unknown"):
        layout_of(root)


def test_masks_in_folders_of_other_names_are_recognized(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "streets", 30)
    (root / "images").rename(root / "Images")
    (root / "masks").rename(root / "labels")
    for path in list((root / "labels").iterdir()):
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    fields = layout_of(root).fields
    assert {key: fields[key] for key in ("images", "masks", "mask_suffix")} == {
        "images": "Images",
        "masks": "labels",
        "mask_suffix": "_gt",
    }


def test_a_missing_mask_does_not_make_classes_of_the_folders(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "streets", 30)
    (root / "masks" / "3.png").unlink()
    with pytest.raises(UserError, match=r"as images with masks: .*1 image has no mask in masks"):
        layout_of(root)


def test_two_classes_that_are_called_images_and_masks_are_classes(tmp_path: Path) -> None:
    for label in ("images", "masks"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(9):
            Image.new("RGB", (40, 34), (number, 0, 0)).save(tmp_path / "photos" / label / f"{label}{number}.png")
    assert layout_of(tmp_path / "photos").fields["kind"] == "image_folder"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "kind", "classes"),
    [(write_coco, "coco", 3), (write_yolo, "yolo", 3), (write_voc_boxes, "voc_detection", 20)],
)
def test_images_with_boxes_get_a_detector(
    tmp_path: Path, write: Callable[[Path], Path], kind: str, classes: int
) -> None:
    layout = layout_of(write(tmp_path / "farm"))
    assert layout.fields == {"kind": kind, "root": str(tmp_path / "farm")} and layout.kind == "boxes"
    assert f"images with boxes, {classes} classes" in layout.what
    for machine, epoch in ((LAPTOP, 5.0), (LAPTOP, 200.0), (GPUS, 1.0)):
        planned = made(replace(layout, side=500), machine, epoch=epoch)
        assert planned.trial["task"] == {"kind": "detection"} and planned.objective[0] == "val_map"
        assert planned.trial["model"]["kind"] == "yolo" and planned.candidate.size % 32 == 0
        written = tmp_path / "farm.yaml"
        written.write_text(text_of(planned, layout, machine, "farm"))
        spec = load(written)
        assert spec.objective.metric == "val_map" and set(planned.first) == set(planned.space)


def test_a_file_of_coco_or_yolo_is_data_by_itself(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "farm") / "annotations" / "instances_train2017.json"
    (tmp_path / "experiment.json").write_text('{"name": "farm"}')
    assert is_data(file) and not is_data(tmp_path / "experiment.json") and not is_data(tmp_path / "none.json")
    wanted = {"kind": "coco", "root": str(tmp_path / "farm"), "annotations": "annotations/instances_train2017.json"}
    assert layout_of(file).fields == wanted
    file = write_yolo(tmp_path / "yard") / "data.yaml"
    (tmp_path / "experiment.yaml").write_text("name: farm\ntrial: {}\n")
    assert is_data(file) and not is_data(tmp_path / "experiment.yaml")
    assert layout_of(file).fields == {"kind": "yolo", "root": str(tmp_path / "yard"), "yaml": "data.yaml"}


def test_broken_boxes_are_told_and_are_of_no_other_layout(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "farm")
    (root / "labels" / "train" / "3.txt").write_text("0 1 2 3\n")
    with pytest.raises(UserError, match=r"labels/train/3.txt, line 1: 0 1 2 3: it has 4 values"):
        layout_of(root)
    (root / "data.yaml").unlink()
    listing_of.cache_clear()  # as in another process
    with pytest.raises(UserError, match=r"as images with boxes: .*the names of the classes are unknown"):
        layout_of(root)


def test_too_few_images_beside_missing_ones_are_told(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "farm", 3, 4)
    for number in (0, 1):
        (root / "train2017" / f"{number:012}.jpg").unlink()
    with pytest.raises(UserError, match=r"2 images are not there: [^$]*1 image cannot be split into 2 sets"):
        layout_of(root)


def test_a_file_of_json_or_yaml_does_not_make_boxes(tmp_path: Path, photos: Path) -> None:
    (photos / "notes.json").write_text("[]")
    (photos / "notes.yaml").write_text("name: photos\nobjective: val_accuracy\n")
    assert layout_of(photos).fields["kind"] == "image_folder"
    root = write_masks(tmp_path / "streets", 30)
    (root / "classes.txt").unlink()
    (root / "classes.json").write_text('["sky", "road", "car"]')
    assert layout_of(root).fields["kind"] == "image_mask_folder"
