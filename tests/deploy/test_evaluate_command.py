"""``tuner evaluate`` as somebody types it."""

import json
import shutil
from pathlib import Path
from typing import Any

import epochs
import numpy as np
import pytest
import yaml
from commands import tuner
from mlflow import MlflowClient
from PIL import Image
from scipy.stats import binomtest

from tuner.data import MNISTScenes
from tuner.deploy.evaluate.resampling import mcnemar
from tuner.train.trial_config import TrialConfig

CNN = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
SCENES: dict[str, Any] = {"kind": "mnist_scenes", "size": 32, "source": "digits", "largest": 28}
EXPERIMENT: dict[str, Any] = {
    "name": "digits",
    "objective": "val_accuracy",
    "trial": {"data": {"kind": "digits"}, "model": CNN, "epochs": 1, "seed": 3},
    "space": {"optimizer.lr": {"loguniform": [1e-3, 1e-2]}},
    "search": {"kind": "random", "trials": 1},
}


def written(path: Path, objective: str = "val_accuracy", **trial: Any) -> Path:
    path.write_text(yaml.safe_dump(EXPERIMENT | {"objective": objective, "trial": EXPERIMENT["trial"] | trial}))
    return path


def said_as_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    return found


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("trained")
    trial = TrialConfig.model_validate(EXPERIMENT["trial"] | {"epochs": 2})
    return folder, epochs.trained(trial, folder)


@pytest.fixture
def here(_trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    """A folder with two models of digits, the second trained longer, and their experiment."""
    for name, epoch in (("early", "1"), ("late", "2")):
        (tmp_path / name).symlink_to(_trained[0] / epoch)
    written(tmp_path / "digits.yaml")
    return tmp_path


def test_the_validation_set_is_measured_as_in_training(here: Path, _trained: Any) -> None:
    status, said = tuner(
        here, "evaluate", "./late", "digits.yaml", "--split", "validation", "--json", "--resamples", "80"
    )
    found = said_as_json(said)
    assert status == 0 and found["split"] == "validation" and "not recorded: the model is no run" in said
    reported = {name.removeprefix("val_"): value for name, value in _trained[1][1].items() if name.startswith("val_")}
    assert {name: each["value"] for name, each in found["metrics"].items()} == pytest.approx(reported, rel=1e-6)
    assert found["metrics"]["accuracy"]["value"] == reported["accuracy"]
    for name, each in found["metrics"].items():
        assert each["low"] <= each["high"], name
    accuracy, images = found["metrics"]["accuracy"], found["images"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    width, share = accuracy["high"] - accuracy["low"], accuracy["value"]
    assert width == pytest.approx(2 * 1.96 * (share * (1 - share) / images) ** 0.5, rel=0.35), "that of a binomial"
    assert [row["class"] for row in found["by_class"]["label"]] == list("0123456789")
    assert sum(row["support"] for row in found["by_class"]["label"]) == images
    assert found["mistakes"]["label"] == round((1 - share) * images)
    losses = [each["loss"] for each in found["worst"]["label"]]
    assert losses == sorted(losses, reverse=True) and losses[0] > 1
    assert found["worst"]["label"][0]["path"].startswith("validation image ")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_intervals(here: Path) -> None:
    arguments = ["evaluate", "./late", "digits.yaml", "--json", "--resamples", "20"]
    first, again, other = (said_as_json(tuner(here, *arguments, "--seed", seed)[1]) for seed in ("1", "1", "2"))
    assert first == again and first["split"] == "test"
    assert first["metrics"] != other["metrics"]


@pytest.mark.slow
def test_two_models_on_the_same_images(here: Path) -> None:
    arguments = ["evaluate", "./late", "digits.yaml", "--compare", "./early", "--resamples", "100"]
    found = said_as_json(tuner(here, *arguments, "--json")[1])
    compared = found["comparison"]
    accuracy = compared["metrics"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(accuracy["model"] - accuracy["other"])
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"] and 0 < accuracy["p"] <= 1
    [answers] = compared["images"]
    own, others = answers["only_model_right"], answers["only_other_right"]
    assert not set(own) & set(others) and all(path.startswith("test image ") for path in (*own, *others))
    assert (len(own) - len(others)) / found["images"] == pytest.approx(accuracy["difference"])
    assert answers["mcnemar_p"] == pytest.approx(binomtest(len(own), len(own) + len(others)).pvalue)
    status, said = tuner(here, *arguments)
    assert status == 0 and "McNemar's exact test: p = " in said and "alone is wrong: test image " in said
    assert (own or others)[0] in said, "the clearest comes first"
    same = said_as_json(tuner(here, "evaluate", "./late", "digits.yaml", "--compare", "./late", "--json")[1])
    assert same["comparison"]["metrics"]["accuracy"]["p"] == same["comparison"]["images"][0]["mcnemar_p"] == 1


def test_mcnemar_s_test_doubles_the_smaller_tail_of_fair_coins() -> None:
    for first, second, tail in ((5, 1, 7 / 64), (10, 0, 1 / 1024), (1, 3, 5 / 16), (3, 3, 1 / 2), (0, 0, 1 / 2)):
        assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(2 * tail, rel=1e-9)


def digits_in(folder: Path, count: int, names: dict[int, str]) -> Path:
    """Write digits in folders of classes, which have these names."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    for number in range(count):
        if (label := int(loaded.target[number])) in names:
            (folder / names[label]).mkdir(parents=True, exist_ok=True)
            pixels = np.uint8(np.clip(loaded.images[number] * 16, 0, 255))
            Image.fromarray(pixels).save(folder / names[label] / f"{number}.png")
    return folder


class TestFolders:
    def test_classes_are_matched_by_name(self, here: Path) -> None:
        names = {number: str(number) for number in range(10)}
        plain = digits_in(here / "plain", 60, names)
        _, said = tuner(here, "evaluate", "./late", "plain", "--json", "--resamples", "0")
        found = said_as_json(said)
        assert found["split"] == "all" and found["images"] == 60, "a folder without sets is measured whole"
        assert found["metrics"]["accuracy"]["low"] is None
        digits_in(here / "some", 60, {1: "1", 7: "7", 3: "bird"})
        found = said_as_json(tuner(here, "evaluate", "./late", "some", "--json", "--resamples", "0")[1])
        rows = {row["class"]: row for row in found["by_class"]["label"]}
        ones, sevens = (len(list((plain / name).iterdir())) for name in "17")
        assert (rows["1"]["support"], rows["7"]["support"], rows["0"]["support"]) == (ones, sevens, 0)
        assert found["images"] == ones + sevens and found["left_out"] == len(list((here / "some/bird").iterdir()))
        assert "1 class of the data is unknown to the model, and left out: bird" in found["notes"]
        assert any(note.startswith("8 classes of the model are not in the data") for note in found["notes"])
        assert all(Path(each["path"]).is_file() for each in found["worst"]["label"])
        assert all(each["true"] == Path(each["path"]).parent.name for each in found["worst"]["label"])

    def test_its_own_sets(self, here: Path) -> None:
        names = {number: str(number) for number in range(10)}
        digits_in(here / "sets/train", 30, names)
        digits_in(here / "sets/val", 20, names)
        found = said_as_json(tuner(here, "evaluate", "./late", "sets", "--json", "--resamples", "0")[1])
        assert (found["split"], found["images"]) == ("validation", 20), "there is no test set, and none is split off"
        arguments = ["evaluate", "./late", "sets", "--split", "train", "--json", "--resamples", "0"]
        assert said_as_json(tuner(here, *arguments)[1])["images"] == 30
        status, said = tuner(here, "evaluate", "./late", "sets", "--split", "test")
        assert status == 2 and "--split: sets has no test set\n    it has: train, validation\n" in said

    def test_files_that_the_model_was_trained_on_are_told(self, here: Path) -> None:
        digits_in(here / "plain", 60, {number: str(number) for number in range(10)})
        data = {"kind": "image_folder", "root": str(here / "plain"), "size": 8, "channels": 1}
        trial = TrialConfig.model_validate({"data": data, "model": CNN, "epochs": 1, "seed": 3})
        epochs.trained(trial, here / "of_plain")
        shutil.copytree(here / "plain", here / "copy")
        written(here / "plain.yaml", data=data)
        told = "./of_plain/1 was trained on these files, and its numbers here are too good: "

        def notes(model: str, *data: str) -> list[str]:
            found = said_as_json(tuner(here, "evaluate", model, *data, "--json", "--resamples", "0")[1])
            return [note for note in found["notes"] if "was trained on" in note]

        assert notes("./of_plain/1", "copy") == [f"{told}give the experiment's file, whose test set is new"]
        assert notes("./of_plain/1", "plain.yaml", "--split", "train") == [f"{told}only the test set is new to it"]
        assert notes("./late", "copy", "--compare", "./of_plain/1"), "the other one, too"
        assert not notes("./of_plain/1", "plain.yaml") and not notes("./late", "copy")
        shutil.copytree(here / "plain", here / "other")
        next((here / "other" / "1").iterdir()).unlink()
        assert not notes("./of_plain/1", "other"), "other files"

    @pytest.mark.slow
    def test_output(self, here: Path) -> None:
        status, said = tuner(here, "evaluate", "./late", "digits.yaml", "-o", "out", "--resamples", "10")
        assert status == 0 and "95% interval" in said and "mistakes; the worst:" in said
        names = {each.name for each in (here / "out").iterdir()}
        assert names >= {"evaluation.json", "per_class_label.csv", "confusion_label.csv", "hardest_label.png"}
        assert said_as_json((here / "out/evaluation.json").read_text())["split"] == "test"


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["gone"], "gone: no such file or folder"),
            (["digits.yaml", "--split", "tests"], "--split: 'tests' is no set"),
            (["digits.yaml", "--classes", "a,b"], "--classes: it has no effect on an experiment"),
            (["birds"], "the data have no class of the model's: they have a, b, and it knows 0, 1, 2"),
            (["birds", "--split", "test"], "--split: birds has no sets"),
            (["masks.yaml"], "the model predicts one class, and the data have one of 11 classes for each pixel; "),
            (["digits.yaml", "-o", "digits.yaml"], "--output: digits.yaml is no folder"),
            (["empty"], "these are no data that a model can be evaluated on"),
        ],
    )
    def test_what_is_wrong_is_told(self, arguments: list[str], what: str, here: Path) -> None:
        digits_in(here / "birds", 30, {0: "a", 1: "b"})
        (here / "empty").mkdir()
        written(here / "masks.yaml", data=SCENES, task={"kind": "semantic_segmentation"}, model={"kind": "unet"})
        status, said = tuner(here, "evaluate", "./late", *arguments)
        assert status == 2 and what in said and "Traceback" not in said


def as_coco(data: MNISTScenes, folder: Path, names: list[str]) -> Path:
    """Write the validation scenes as COCO's files, the classes in the order of these names."""
    images, known = data.load()[1], data.targets["boxes"].classes
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    rows: list[dict[str, Any]] = []
    files = []
    for number, (pixels, boxes) in enumerate(zip(images.images, images.targets["boxes"], strict=True)):
        Image.fromarray(np.moveaxis(pixels.numpy(), 0, -1)).save(folder / "images" / f"{number:04}.png")
        files.append({"id": number, "file_name": f"{number:04}.png", "width": 32, "height": 32})
        for left, top, right, bottom, label, ignored in boxes[boxes[:, 4] >= 0].tolist():
            box = {"bbox": [left, top, right - left, bottom - top], "iscrowd": int(ignored)}
            category = names.index(known[int(label)]) + 1
            rows.append({"id": len(rows) + 1, "image_id": number, "category_id": category, **box})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content = {"images": files, "annotations": rows, "categories": categories}
    (folder / "annotations" / "all.json").write_text(json.dumps(content))
    return folder


def as_masks(data: MNISTScenes, folder: Path, names: list[str]) -> Path:
    """Write the validation scenes as images and masks, the classes in the order of these names."""
    images, known = data.load()[1], data.targets["mask"].classes
    values = np.array([names.index(name) for name in known], dtype=np.uint8)
    for each in ("images", "masks"):
        (folder / each).mkdir(parents=True)
    for number, (pixels, mask) in enumerate(zip(images.images, images.targets["mask"], strict=True)):
        Image.fromarray(np.moveaxis(pixels.numpy(), 0, -1)).save(folder / "images" / f"{number:04}.png")
        Image.fromarray(values[mask.numpy()]).save(folder / "masks" / f"{number:04}.png")
    (folder / "classes.txt").write_text("\n".join(names))
    return folder


PLACES: dict[str, Any] = {
    "boxes": ({"kind": "detection"}, {"kind": "yolo", "width": 4}, "val_map", as_coco),
    "mask": ({"kind": "semantic_segmentation"}, {"kind": "unet", "width": 4}, "val_miou", as_masks),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", PLACES)
def test_what_lies_at_places(target: str, tmp_path: Path) -> None:
    task, model, objective, write = PLACES[target]
    trial = {"data": SCENES | {"scenes": 120, "validation": 24, "test": 10}, "task": task, "model": model}
    config = TrialConfig.model_validate(trial | {"seed": 3, "epochs": 8, "optimizer": {"kind": "adamw", "lr": 3e-3}})
    *_, reported = epochs.trained(config, tmp_path / "trained", objective=objective)
    assert reported[objective] > 0, "it has learnt something"
    written(tmp_path / "scenes.yaml", objective, **trial)
    data = config.data
    assert isinstance(data, MNISTScenes)
    write(data, tmp_path / "files", sorted(data.targets[target].classes, reverse=True))
    wanted = {name.removeprefix("val_"): value for name, value in reported.items() if name.startswith("val_")}
    paths = ["files", "files/annotations/all.json"] if target == "boxes" else ["files"]
    for arguments in (["scenes.yaml", "--split", "validation"], *([each] for each in paths)):
        status, said = tuner(tmp_path, "evaluate", "trained/8", *arguments, "--json", "--resamples", "30")
        assert status == 0, said
        found = said_as_json(said)
        values = {name: np.nan if each["value"] is None else each["value"] for name, each in found["metrics"].items()}
        assert values == pytest.approx(wanted, nan_ok=True, rel=1e-5), "the order of the classes does not matter"
        assert all(each["low"] is None or each["low"] <= each["high"] for each in found["metrics"].values())
        names = [row["class"] for row in found["by_class"][target]]
        assert names == list(data.targets[target].classes)[: len(names)]
        assert found["images"] == 24 and found["mistakes"][target] > 0
    assert all(Path(each["path"]).is_file() for each in found["worst"][target])
    status, said = tuner(tmp_path, "evaluate", "trained/8", "files", "--compare", "trained/8", "--resamples", "20")
    assert status == 0 and "compared with trained/8" in said and "McNemar" not in said


@pytest.mark.slow
def test_an_evaluation_is_a_run_below_the_trial(here: Path) -> None:
    uri = f"sqlite:///{here}/store.db"
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.create_experiment("digits", artifact_location=str(here / "artifacts"))
    tags = {"tuner.role": "trial", "tuner.trial": "0", "tuner.status": "completed"}
    trial = client.create_run(experiment, tags=tags).info.run_id
    client.log_metric(trial, "best_val_accuracy", 0.5)
    client.log_artifacts(trial, str((here / "late").resolve()), "checkpoint")
    client.set_terminated(trial)
    arguments = ["evaluate", trial, "digits.yaml", "--resamples", "10", "--uri", uri]
    status, said = tuner(here, *arguments, "--json")
    assert status == 0 and f"below the run {trial} of the model" in said
    [run] = client.search_runs([experiment], "tags.`tuner.role` = 'evaluation'")
    found = said_as_json(said)
    assert run.data.tags["mlflow.parentRunId"] == trial and run.info.status == "FINISHED"
    assert (run.data.tags["tuner.split"], run.data.tags["tuner.model"]) == ("test", trial)
    accuracy = found["metrics"]["accuracy"]
    names = {"eval_accuracy": "value", "eval_accuracy_low": "low", "eval_accuracy_high": "high"}
    assert {name: run.data.metrics[name] for name in names} == {name: accuracy[key] for name, key in names.items()}
    stored = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert stored >= {"evaluation.json", "per_class_label.csv", "hardest_label.png"}
    assert client.get_run(trial).data.metrics == {"best_val_accuracy": 0.5}, "the trial's run is as it was"
    assert tuner(here, *arguments, "--no-record")[0] == 0
    assert len(client.search_runs([experiment])) == 2
