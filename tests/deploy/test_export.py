"""``tuner export``: files compute what their models do, say what they are, and mistakes leave nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import lively
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import tuner
from encoded_files import noise
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import tuner as package
from tuner.data.decoding import Form
from tuner.deploy.about import About
from tuner.deploy.export import FORMATS
from tuner.deploy.export import writing as export
from tuner.deploy.export.base import ExportFormat, Run
from tuner.deploy.export.comparison import compare
from tuner.deploy.export.differences import BOUND, difference
from tuner.deploy.export.samples import generated
from tuner.deploy.model import about_of, load_model
from tuner.errors import UserError
from tuner.models.detection.selection import Selection
from tuner.train.checkpoint import Save
from tuner.train.exporting.graph import Graph
from tuner.train.signature import OutputSignature, Signature
from tuner.train.trial_config import TrialConfig

DIGITS = {"kind": "digits"}
SCENES = {"kind": "mnist_scenes", "size": 32, "source": "digits", "largest": 28}
CNN = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
DETECTION = {"kind": "detection"}
KINDS: dict[str, dict[str, Any]] = {
    "cnn": {"data": DIGITS, "model": CNN},
    "mlp": {"data": DIGITS, "model": {"kind": "mlp", "width": 8}},
    "resnet_small": {"data": DIGITS, "model": {"kind": "resnet_small", "width": 4}},
    "torchvision": {"data": DIGITS, "model": {"kind": "torchvision", "name": "resnet18"}},
    "unet": {
        "data": SCENES,
        "model": {"kind": "unet", "width": 4},
        "task": {"kind": "semantic_segmentation"},
    },
    "yolo": {"data": SCENES, "model": {"kind": "yolo", "width": 4}, "task": DETECTION},
}
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": 128,
    "retinanet_resnet50_fpn": 64,
    "fcos_resnet50_fpn": 64,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 128,
}
"""One of each kind of torchvision's, with the size of its images. SSD300, which needs large ones, is SSDlite's kind."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    checkpoints.write(folder, data={"kind": "cifar10"}, model=CNN)
    return folder


@pytest.fixture
def here(model: Path, tmp_path: Path) -> Path:
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        noise(number, (40, 30)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_kind_computes_what_the_model_does(name: str, kind: str, tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "model", **KINDS[kind])
    written = export.export(str(tmp_path / "model"), tmp_path / f"x.{name}")
    assert written.difference <= BOUND and written.path.stat().st_size > 1000
    assert (written.objects is not None) == (KINDS[kind].get("task") == DETECTION)


@pytest.mark.slow
def test_a_model_of_the_users_own_may_compute_under_autocast_in_pt2(own: Callable[[str], str], tmp_path: Path) -> None:
    target = f"{own(OWN.format(returned='self.under_autocast(found)'))}:Net"
    checkpoints.write(tmp_path / "model", data=DIGITS, model={"kind": "import", "target": target})
    written = export.export(str(tmp_path / "model"), tmp_path / "x.pt2", trust=[target])
    assert written.difference <= BOUND
    with pytest.raises(UserError, match="without autocast"):  # onnxruntime has no bfloat16
        export.export(str(tmp_path / "model"), tmp_path / "x.onnx", trust=[target])
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS)
def test_onnx_of_each_kind_of_detector_finds_what_the_model_does(detector: str, tmp_path: Path) -> None:
    task, size = "instance_segmentation" if detector.startswith("maskrcnn") else "detection", DETECTORS[detector]
    trial = TrialConfig.model_validate(
        {
            "data": SCENES | {"size": size},
            "model": {"kind": "torchvision", "name": detector},
            "task": {"kind": task},
            "precision": "float32",
        }
    )
    detects = trial.build_model()
    images = generated(Form(1, size, size, "pad"))
    lively.liven(detects, images.float() / 255)
    (tmp_path / "model").mkdir()
    Save(trial, detects.state_dict(), {"epoch": 1}, {"epoch": 1})(tmp_path / "model")
    written = export.export(str(tmp_path / "model"), tmp_path / "x.onnx")
    assert written.difference <= BOUND and written.objects is not None and written.objects > 100


@pytest.mark.slow
class TestONNX:
    def test_images_as_bytes_become_the_logits_of_the_model(self, here: Path) -> None:
        status, said = tuner(here, "export", "model", "-o", "x.onnx", "--images", "photos", "--license", "mit")
        assert status == 0 and "on 3 images:" in said and "largest difference" in said
        assert sorted(each.name for each in here.iterdir()) == ["model", "photos", "x.onnx"]
        onnx.checker.check_model(str(here / "x.onnx"))
        session = onnxruntime.InferenceSession(str(here / "x.onnx"))
        assert [each.shape[0] for each in (*session.get_inputs(), *session.get_outputs())] == ["batch", "batch"]
        for count in (1, 7):
            images = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8)
            [found] = session.run(["output"], {"images": images})
            with torch.no_grad():
                wanted = package.load(here / "model")(torch.from_numpy(images).float() / 255)
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)

    def test_it_says_what_it_is(self, here: Path) -> None:
        assert tuner(here, "export", "model", "-o", "x.onnx", "--license", "mit")[0] == 0
        facts = onnxruntime.InferenceSession(str(here / "x.onnx")).get_modelmeta().custom_metadata_map
        assert facts["task"] == "classification" and facts["license"] == "mit"
        assert json.loads(facts["classes"])[:2] == ["airplane", "automobile"]
        assert json.loads(facts["resize"])["fit"] == "crop"
        assert json.loads(facts["input"])["shape"] == ["batch", 3, 32, 32]
        assert json.loads(facts["metrics"])["val_accuracy"] == 0.5
        assert "softmax" in json.loads(facts["outputs"])["output"]

    def test_several_heads_are_several_outputs(self, tmp_path: Path) -> None:
        heads = {
            "digit": {"target": "label", "loss": {"kind": "cross_entropy"}},
            "place": {"target": "position", "loss": {"kind": "mse"}},
        }
        data = {"kind": "digits", "canvas": 16}
        task = {"kind": "multitask", "heads": heads}
        checkpoints.write(tmp_path / "model", data=data, model={"kind": "multitask_cnn"}, task=task)
        written = export.export(str(tmp_path / "model"), tmp_path / "x.onnx")
        session = onnxruntime.InferenceSession(str(written.path))
        assert [each.name for each in session.get_outputs()] == ["digit", "place"]
        facts = session.get_modelmeta().custom_metadata_map
        assert set(json.loads(facts["classes"])) == {"digit", "place"}


@pytest.mark.slow
def test_a_program_of_torch_runs_without_the_model(here: Path) -> None:
    assert tuner(here, "export", "model", "--format", "pt2", "-o", "program")[0] == 0
    facts: Any = {"task": "", "classes": ""}
    with (here / "program").open("rb") as file:
        program = torch.export.load(file, extra_files=facts)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    [found] = program.module()(images)
    torch.testing.assert_close(found, package.load(here / "model")(images.float() / 255))
    assert "classification" in str(facts["task"]) and "airplane" in str(facts["classes"])


def test_weights_lie_beside_a_card(here: Path) -> None:
    status, said = tuner(here, "export", "model", "-o", "x.safetensors")
    assert status == 0 and "wrote x.md" in said
    weights, wanted = load_file(here / "x.safetensors"), package.load(here / "model").state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in weights.items())
    with safe_open(here / "x.safetensors", "pt") as file:
        assert file.metadata()["license"] == "unknown" and json.loads(file.metadata()["signature"])["format"] == 1
    card = (here / "x.md").read_text()
    for text in ("license: unknown\n", "pipeline_tag: image-classification", "airplane", "| val_accuracy | 0.5 |"):
        assert text in card
    assert "kind: cifar10" in card and "says nothing of a search" in card


@pytest.mark.slow
def test_the_card_says_how_a_recorded_model_was_searched(model: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/store.db"
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.create_experiment("photos", artifact_location=str(tmp_path / "artifacts"))
    job = client.create_run(experiment, tags={"tuner.role": "parent", "tuner.job": "j1"}).info.run_id
    for name, value in (("objective", "max val_accuracy"), ("trials", "40"), ("search.kind", "bayesian")):
        client.log_param(job, name, value)
    tags = {"tuner.role": "trial", "tuner.trial": "7", "tuner.status": "completed", "mlflow.parentRunId": job}
    trial = client.create_run(experiment, tags=tags).info.run_id
    client.log_param(trial, "optimizer.lr", "0.003")
    client.log_metric(trial, "test_accuracy", 0.4375)
    client.log_inputs(trial, [DatasetInput(Dataset("cifar10", "abc123", "local", "{}"))])
    client.log_artifacts(trial, str(model), "checkpoint")
    client.set_terminated(trial)
    status, said = tuner(tmp_path, "export", trial, "-o", "x.safetensors", "--uri", uri, "--license", "mit")
    assert status == 0, said
    card = (tmp_path / "x.md").read_text()
    for text in ("experiment: photos", "job: j1", "trial: 7", "search.kind: bayesian", "trials: 40", "license: mit"):
        assert text in card
    assert "objective: max val_accuracy" in card and "data: cifar10 abc123" in card and "optimizer.lr=0.003" in card
    assert "| val_accuracy | 0.5 |" in card and "| test_accuracy | 0.4375 |" in card
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        facts = file.metadata()
    assert json.loads(facts["origin"])["search.kind"] == "bayesian"
    assert json.loads(facts["metrics"])["test_accuracy"] == 0.4375


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["model", "-o", "x.xml"], "--output: the suffix of x.xml is that of no format"),
            (
                ["model", "-o", "x.onnx", "--format", "onx"],
                "--format: there is no format 'onx'\n    did you mean onnx?",
            ),
            (["model", "-o", "nowhere/x.onnx"], "there is no folder nowhere"),
            (["model", "-o", "there.onnx"], "there.onnx exists"),
            (["model", "-o", "there.safetensors"], "there.md exists"),
            (["model", "-o", "x.pt2", "--images", "nothing"], "there is no file or folder nothing"),
            (["model", "-o", "x.pt2", "--images", "there.md"], "there.md: it is not an image"),
            (["./modle", "-o", "x.pt2"], "there is no folder"),
        ],
    )
    def test_are_told_and_nothing_is_written(self, arguments: list[str], what: str, here: Path) -> None:
        for name in ("there.onnx", "there.md"):
            (here / name).write_text("mine")
        before = sorted(here.rglob("*"))
        status, said = tuner(here, "export", *arguments)
        assert status == 2 and what in said and said.startswith("error: ") and "Traceback" not in said
        assert sorted(here.rglob("*")) == before and (here / "there.onnx").read_text() == "mine"

    def test_a_package_that_is_missing(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tuner.process.packages.find_spec", lambda name: None)
        status, said = tuner(here, "export", "model", "-o", "x.onnx")
        assert status == 2 and "onnx, onnxscript, onnxruntime are not installed" in said
        assert "pip install 'tuner[export]'" in said

    @pytest.mark.slow
    def test_a_model_that_cannot_be_a_graph(self, own: Callable[[str], str], tmp_path: Path) -> None:
        target = f"{own(OWN.format(returned='found if found.sum() > 0 else -found'))}:Net"
        checkpoints.write(tmp_path / "model", data=DIGITS, model={"kind": "import", "target": target})
        status, said = tuner(tmp_path, "export", "model", "-o", "x.pt2")
        assert status == 2 and "--trust" in said, "its code is not trusted"
        status, said = tuner(tmp_path, "export", "model", "-o", "x.pt2", "--trust", target)
        assert status == 2 and "cannot be exported as a graph: " in said and "--format safetensors" in said
        assert "Traceback" not in said and not (tmp_path / "x.pt2").exists()

    @pytest.mark.slow
    def test_a_file_that_computes_something_else_is_refused(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(FORMATS, "pt2", Wrong)
        status, said = tuner(here, "export", "model", "-o", "x.pt2")
        assert status == 2 and "its outputs differ from those of the model by " in said
        assert sorted(each.name for each in here.iterdir()) == ["model", "photos"]


OWN = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(64 * channels, classes)
        self.last = nn.Linear(classes, classes)

    def under_autocast(self, found):
        with torch.autocast("cpu", torch.bfloat16):
            return self.last(found).float()

    def forward(self, images):
        found = self.layer(images.flatten(1))
        return {returned}
"""


class Wrong(ExportFormat):
    """Writes a file that computes something else."""

    name = "pt2"

    def write(self, path: Path) -> None:
        path.write_text("wrong")

    def opened(self, path: Path) -> Run:
        return lambda images: {"": self.graph(images)[0].detach() + 1}


class TestDifference:
    boxes = OutputSignature(target="boxes", size=2, boxes=True)
    logits = OutputSignature(target="label", size=2)
    objects = torch.tensor([[[0.0, 0, 10, 10, 0.9, 1], [20, 20, 30, 30, 0.5, 0], [0, 0, 0, 0, 0, -1]]])

    def test_of_values(self) -> None:
        ours = torch.tensor([[0.5, 0.25]])
        assert difference(ours, ours + 0.1, self.logits, 100) == pytest.approx(0.1)
        assert difference(1000 * ours, 1000 * ours + 0.1, self.logits, 100) == pytest.approx(0.0002, rel=1e-3)
        assert difference(ours, ours * float("nan"), self.logits, 100) == float("inf")
        assert difference(ours, ours[:, :1], self.logits, 100) == float("inf")

    def test_of_objects(self) -> None:
        def of(other: Tensor) -> float:
            return difference(self.objects, other, self.boxes, 100)

        assert of(self.objects) == 0 and of(self.objects[:, [1, 0, 2]]) == 0, "their order does not matter"
        moved, surer, gone, other = (self.objects.clone() for _ in range(4))
        moved[0, 0, :4] += 1
        surer[0, 1, 4] = 0.6
        gone[0, 1] = self.objects[0, 2]
        other[0, 0, 5] = 0
        assert of(moved) == pytest.approx(0.01) and of(surer) == pytest.approx(0.1)
        assert of(gone) == pytest.approx(0.5) and of(other) == pytest.approx(0.9)

    def test_of_objects_for_which_no_row_is_left(self) -> None:
        ours, theirs = self.objects[:, :2], self.objects[:, :2].clone()
        theirs[0, 1] = torch.tensor([50.0, 50, 60, 60, 0.48, 0])
        assert difference(ours, theirs, self.boxes, 100) == pytest.approx(0.02), "it is that much surer than the last"
        theirs[0, 0] = torch.tensor([50.0, 50, 60, 60, 0.9, 0])
        assert difference(ours, theirs, self.boxes, 100) == pytest.approx(0.42)

    def test_of_objects_without_area_and_of_masks(self) -> None:
        flat = torch.tensor([[[5.0, 5, 5, 9, 0.9, 1], [0, 0, 0, 0, 0, -1]]])
        assert difference(flat, flat, self.boxes, 100) == 0
        masks = torch.cat([flat, torch.zeros(1, 2, 4)], dim=2)
        other = masks.clone()
        other[0, 0, 6:] = torch.tensor([0.4, 0, 0, 0])
        assert difference(masks, other, self.boxes, 100) == pytest.approx(0.1)


@pytest.fixture(scope="module")
def detector() -> tuple[Graph, Tensor]:
    trial = TrialConfig.model_validate(
        {"data": SCENES | {"size": 128}, "model": {"kind": "yolo"}, "task": DETECTION, "precision": "float32"}
    )
    torch.manual_seed(0)
    return Graph(trial.build_model(), Signature.of(trial), "yolo"), generated(Form(3, 128, 128, "pad"))


class TestTies:
    """An untrained detector is equally sure of all that it finds: what is left of overlapping boxes is chance."""

    def found(self, detector: tuple[Graph, Tensor], change: Callable[[Tensor], None]) -> tuple[float, int]:
        """The difference of a file that computes the model with other kernels, and changes what they find."""
        graph, images = detector

        def run(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
                [objects] = graph(images)
            change(objects)
            return {"": objects}

        before = [each.clone() for each in graph.parameters()]
        comparison = compare(graph, run, images)
        assert all(map(torch.equal, before, graph.parameters())), "the weights are what they were"
        assert comparison.objects is not None and comparison.objects >= len(images)
        return comparison.difference, comparison.undecided

    def test_that_rounding_decides_are_left_out(self, detector: tuple[Graph, Tensor]) -> None:
        difference, undecided = self.found(detector, lambda objects: None)
        assert difference <= BOUND and undecided <= 8

    def test_hide_no_wrong_box(self, detector: tuple[Graph, Tensor]) -> None:
        def shift(objects: Tensor) -> None:
            objects[..., :4] += 6

        assert self.found(detector, shift)[0] > BOUND

    def test_hide_no_wrong_score_in_one_image(self, detector: tuple[Graph, Tensor]) -> None:
        def raise_score(objects: Tensor) -> None:
            if len(objects) > 1:
                objects[0, 0, 4] += 0.1

        assert self.found(detector, raise_score)[0] == pytest.approx(0.1, rel=0.1)

    @pytest.mark.parametrize(("gap", "undecided"), [(1.7e-8, 1), (1e-5, 0)])
    def test_of_small_scores_are_left_out_as_runtimes_approximate_the_sigmoid(self, gap: float, undecided: int) -> None:
        trial = TrialConfig.model_validate({"data": SCENES, "model": {"kind": "yolo"}, "task": DETECTION})
        graph = Graph(Overlapping(gap), Signature.of(trial), "overlapping")

        def run(images: Tensor) -> dict[str, Tensor]:
            """Compute the model, with another first score in white images."""
            other = Graph(Overlapping(gap, less=2 * gap), graph.signature, graph.kind)
            is_white = images[:, :1, 0, 0, None] == 255
            return {"": torch.where(is_white, other(images)[0], graph(images)[0])}

        images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        images[3] = 255
        found = compare(graph, run, images)
        assert found.undecided == undecided and (found.difference <= BOUND) == bool(undecided)


class Overlapping(nn.Module):
    """Predicts the same three boxes in each image, of which the first one suppresses the others, and the second none.

    Args:
        gap: How much surer the first one is than the second.
        less: How much less sure the first one is than that.
    """

    def __init__(self, gap: float, less: float = 0.0) -> None:
        super().__init__()
        boxes = [[10.0, 0, 32, 29.7], [10, 0, 32, 24.4], [10, 5, 32, 32]]
        self.boxes = nn.Buffer(torch.tensor([boxes]))
        self.scores = nn.Buffer(torch.tensor([2e-3 - less, 2e-3 - gap, 2e-3 - 4 * gap]))
        self.select = Selection(most=4, score=1e-3, overlap=0.65)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.scores[None, :, None].expand(len(images), -1, -1)
        return self.select(scores, self.boxes.expand(len(images), -1, -1), (32, 32))


def test_made_up_images_are_of_many_scales(model: Path) -> None:
    about: About = about_of(load_model(model))
    images = generated(about.form)
    assert (
        images.dtype == torch.uint8
        and images.shape == (16, 3, 32, 32)
        and len({each.numpy().tobytes() for each in images}) == 16
    )
    assert Graph(load_model(model), about.signature, about.kind)(images)[0].shape == (16, 10)
