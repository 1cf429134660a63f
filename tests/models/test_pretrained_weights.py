"""Pretrained weights of torchvision's models, from files and from a server on this machine."""

import hashlib
import http.server
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from tuner.errors import Mistakes, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models import TorchvisionModel
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.objectives import Objective
from tuner.spec.experiment import ExperimentSpec
from tuner.train import checkpoint
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

TEN = {"": Output(10)}
SMALL = "shufflenet_v2_x0_5"
IMAGENET = (0.485, 0.456, 0.406)


def image(side: int = 64, channels: int = 3) -> ImageShape:
    return ImageShape(channels, side, side, mean=(0.1,) * channels, std=(0.2,) * channels)


def saved(path: Path, name: str = SMALL, classes: int = 1000, **arguments: Any) -> dict[str, Tensor]:
    """Write the state_dict of a model of torchvision, and return it."""
    torch.manual_seed(1)
    state = models.get_model(name, weights=None, num_classes=classes, **arguments).state_dict()
    torch.save(state, path)
    return dict(state)


def loaded(model: TorchvisionModel, shape: ImageShape, outputs: dict[str, Output] = TEN) -> Any:
    """The model as a new training begins with it."""
    model.check(shape, outputs)
    prepared, message = model.prepare(shape, outputs)
    assert prepared == model and not message
    torch.manual_seed(2)
    module = model.build(shape, outputs)
    model.load_pretrained(module)
    return module


def refused(model: TorchvisionModel, shape: ImageShape | None = None) -> str:
    with pytest.raises(UserError) as error:
        model.prepare(shape or image(), TEN)
    [problem] = error.value.problems
    assert problem.key == "trial.model.weights"
    assert problem.hint
    return str(problem)


def file_of(path: Path, name: str = SMALL, **fields: Any) -> TorchvisionModel:
    return TorchvisionModel(name=name, weights=str(path), **fields)


@pytest.mark.parametrize("classes", [1000, 10])
def test_all_weights_are_loaded_and_the_output_layer_if_it_has_the_same_shape(classes: int, tmp_path: Path) -> None:
    state = saved(tmp_path / "w.pth", classes=classes)
    module = loaded(file_of(tmp_path / "w.pth"), image())
    backbone = module.trunk.backbone.state_dict()
    assert all(torch.equal(backbone[key], value) for key, value in state.items() if not key.startswith("fc."))
    assert len(backbone) == len(state) - 2
    output = module.head.output
    assert (classes == 10) == (output.weight.shape == state["fc.weight"].shape)
    if classes == 10:
        assert torch.equal(output.weight, state["fc.weight"]) and torch.equal(output.bias, state["fc.bias"])
    assert module.trunk.normalize.mean.flatten().tolist() == pytest.approx(IMAGENET)


def test_building_the_model_reads_no_weights(tmp_path: Path) -> None:
    """A checkpoint is loaded where the file is not."""
    model = file_of(tmp_path / "no such file.pth")
    model.check(image(), TEN)
    assert model.build(image(), TEN)(torch.rand(2, 3, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize("form", ["state_dict", "model", "data parallel"])
def test_files_of_training_scripts_are_read(form: str, tmp_path: Path) -> None:
    state = saved(tmp_path / "w.pth")
    renamed = {f"module.{key}": value for key, value in state.items()}
    torch.save(renamed if form == "data parallel" else {form: state, "epoch": 3}, tmp_path / "w.pth")
    module = loaded(file_of(tmp_path / "w.pth"), image())
    assert torch.equal(module.trunk.backbone.conv1[0].weight, state["conv1.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [("inception_v3", 80), ("googlenet", 64), ("squeezenet1_1", 64), ("densenet121", 64), ("vit_b_32", 96)],
)
def test_files_of_other_families_are_fitted(name: str, side: int, tmp_path: Path) -> None:
    """Auxiliary outputs, a convolution as the output layer, old names, and positions of another image size."""
    arguments = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    state = saved(tmp_path / "w.pth", name, **arguments)
    if name == "densenet121":
        old = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for key, v in state.items()}
        assert old.keys() != state.keys()
        torch.save({key: value for key, value in old.items() if "num_batches" not in key}, tmp_path / "w.pth")
    module = loaded(file_of(tmp_path / "w.pth", name), image(side), {"": Output(1000)})
    backbone = module.trunk.backbone.state_dict()
    different = [key for key, value in backbone.items() if not torch.equal(value, state[key])]
    assert different == (["encoder.pos_embedding"] if name == "vit_b_32" else [])
    last = {"squeezenet1_1": "classifier.1", "densenet121": "classifier", "vit_b_32": "heads.head"}.get(name, "fc")
    assert torch.equal(module.head.output.weight, state[f"{last}.weight"].flatten(1))
    if name in ("inception_v3", "googlenet"):
        assert module.trunk.normalize.mean.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_fitted_to_the_channels(channels: int, tmp_path: Path) -> None:
    state = saved(tmp_path / "w.pth")
    grey = loaded(file_of(tmp_path / "w.pth"), image(channels=channels))
    colour = loaded(file_of(tmp_path / "w.pth"), image())
    same = torch.rand(2, 1, 64, 64)
    found, wanted = (m.trunk.backbone.conv1[0](same.expand(-1, c, -1, -1)) for m, c in ((grey, channels), (colour, 3)))
    if channels == 1:  # a grey image gives the outputs of the same image in colour
        torch.testing.assert_close(found, wanted)
    assert grey.trunk.backbone.conv1[0].weight.shape[1] == channels == len(grey.trunk.normalize.mean)
    assert torch.equal(grey.trunk.backbone.conv5[0].weight, state["conv5.0.weight"])


def test_weights_of_another_model_are_refused_with_the_first_tensors(tmp_path: Path) -> None:
    saved(tmp_path / "w.pth", "squeezenet1_1")
    told = refused(file_of(tmp_path / "w.pth"))
    assert f"these are not weights of {SMALL}: conv1.0.weight is missing; " in told and "and" in told and "more" in told
    saved(tmp_path / "w.pth", "shufflenet_v2_x1_0")
    assert "size mismatch for stage2.0.branch1" in refused(file_of(tmp_path / "w.pth"))


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    assert "does not exist" in refused(file_of(path)) and str(path) in refused(file_of(path))
    path.write_bytes(b"")
    assert "it is damaged, or no file of weights (EOFError: " in refused(file_of(path))
    path.write_bytes(b"hello")
    assert "it is damaged, or no file of weights (KeyError: 101)" in refused(file_of(path))
    path.write_bytes(pickle.dumps({"conv1.0.weight": os.getcwd}))
    assert "holds more than tensors" in refused(file_of(path))
    saved(path)
    path.write_bytes(path.read_bytes()[:10_000])
    assert "cannot be read" in refused(file_of(path))
    torch.save(nn.Linear(2, 2), path)
    assert "save the model's state_dict()" in refused(file_of(path))
    torch.save([torch.zeros(2)], path)
    assert "holds no state_dict" in refused(file_of(path))


@pytest.mark.parametrize(
    ("fields", "key", "message", "hint"),
    [
        (
            {"weights": "IMAGENET1K_V7"},
            "weights",
            "torchvision has no weights 'IMAGENET1K_V7' of resnet18",
            "did you mean",
        ),
        ({"weights": "default"}, "weights", "no weights 'default'", "DEFAULT, IMAGENET1K_V1, none"),
        ({"freeze": "backbone"}, "freeze", "because weights is none", "weights: DEFAULT"),
        ({"weights": "DEFAULT", "stem": "small"}, "stem", "those of the original stem", "stem: original"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    fields: dict[str, Any], key: str, message: str, hint: str
) -> None:
    with pytest.raises(Mistakes) as error:
        TorchvisionModel(**fields).check(image(), TEN)
    [problem] = error.value.problems
    assert problem.key == key and message in problem.message and hint in problem.hint


class Server(http.server.ThreadingHTTPServer):
    """A server that counts how often it sends its file."""

    content = b""
    sent = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.sent += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of weights, an empty cache of torch.hub, and torchvision's weights at the server's address."""
    saved(tmp_path / "served.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")  # urllib keeps the proxies of its first use, such as another test's
    with Server(("127.0.0.1", 0), Handler) as running:
        running.content = (tmp_path / "served.pth").read_bytes()
        digest = hashlib.sha256(running.content).hexdigest()[:8]
        url = f"http://127.0.0.1:{running.server_port}/weights-{digest}.pth"
        theirs = models.get_model_weights(SMALL)["DEFAULT"]
        entry = SimpleNamespace(url=url, transforms=theirs.transforms)
        monkeypatch.setattr(pretrained, "_entry", lambda name, weights: entry)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.slow
def test_weights_are_downloaded_once_into_the_cache_of_torch_hub(server: Server, tmp_path: Path) -> None:
    model = TorchvisionModel(name=SMALL, weights="DEFAULT")
    assert not model.is_available
    prepared, message = model.prepare(image(), TEN)
    assert prepared == model and message.startswith(f"downloaded the weights DEFAULT of {SMALL} to {tmp_path}")
    [path] = (tmp_path / "home/hub/checkpoints").iterdir()
    assert path.read_bytes() == server.content and model.is_available
    sent = server.sent
    module = loaded(model, image())
    assert server.sent == sent
    state = torch.load(path, weights_only=True)
    assert torch.equal(module.trunk.backbone.conv1[0].weight, state["conv1.0.weight"])


def test_a_node_without_the_weights_downloads_them(server: Server) -> None:
    model = TorchvisionModel(name=SMALL, weights="DEFAULT")
    module = model.build(image(), TEN)
    model.load_pretrained(module)
    assert server.sent and model.is_available


def test_a_download_with_a_wrong_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = server.content[:-1] + b"?"
    model = TorchvisionModel(name=SMALL, weights="DEFAULT")
    assert "invalid hash value" in refused(model)
    assert not model.is_available


def test_without_a_network_it_is_told_what_to_do(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    told = refused(TorchvisionModel(name=SMALL, weights="DEFAULT"))
    assert f"the weights DEFAULT of {SMALL} are missing and cannot be downloaded" in told
    assert str(tmp_path / "home/hub/checkpoints/weights-") in told
    assert "put http://127.0.0.1" in told and "TORCH_HOME" in told and "offline: none" in told


def test_without_a_network_all_layers_are_trained_where_the_file_says_so(server: Server) -> None:
    server.shutdown()
    server.server_close()
    model = TorchvisionModel(name=SMALL, weights="DEFAULT", freeze="backbone", offline="none")
    prepared, message = model.prepare(image(), TEN)
    assert prepared == TorchvisionModel(name=SMALL, offline="none")
    assert "cannot be downloaded" in message and "new weights instead, as `offline: none` says" in message


def test_the_address_and_the_statistics_are_torchvision_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    assert pretrained.location("resnet18", "DEFAULT") == path
    assert pretrained.statistics("resnet18", "IMAGENET1K_V1") == (IMAGENET, (0.229, 0.224, 0.225))
    assert pretrained.statistics("efficientnet_v2_l", "DEFAULT") == ((0.5,) * 3, (0.5,) * 3)
    path.parent.mkdir(parents=True)
    state = saved(path, "resnet18")
    module = loaded(TorchvisionModel(weights="DEFAULT"), image(32))
    assert torch.equal(module.trunk.backbone.conv1.weight, state["conv1.weight"]), (
        "a 7x7 stem, though the images are small"
    )


# --- in a training


def trial(path: Path, **fields: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"kind": "digits", "canvas": 32, "limit": 64, "batch_size": 32},
            "model": {"kind": "torchvision", "name": SMALL, "weights": str(path), **fields},
            "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
            "epochs": 2,
            "seed": 3,
        }
    )


def run(config: TrialConfig, folder: Path, resume: Path | None = None) -> list[dict[str, Any]]:
    """Train, and keep the checkpoint of each epoch in `folder`."""
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: checkpoint.Save) -> None:
        kept = folder / str(metrics["epoch"])
        kept.mkdir(parents=True)
        save(kept)
        reports.append(metrics)

    fit(config, Objective.of_metric("val_accuracy"), report, device=torch.device("cpu"), resume=resume)
    return reports


@pytest.mark.slow
def test_a_frozen_backbone_stays_as_it_was_and_only_the_head_is_trained(tmp_path: Path) -> None:
    saved(tmp_path / "w.pth")
    config = trial(tmp_path / "w.pth", freeze="backbone")
    start = loaded(config.model, config.data.image).state_dict()  # type: ignore[arg-type]
    metrics = run(config, tmp_path / "kept")[-1]
    assert metrics["parameters"] == config.count_parameters() == 1024 * 10 + 10
    _, module = checkpoint.read_model(tmp_path / "kept/2")
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, start[key])}
    assert changed == {"head.output.weight", "head.output.bias"}
    config.model.begin_epoch(module, 1)
    trunk = dict(module.get_submodule("trunk.backbone").named_modules())
    assert [name for name, each in trunk.items() if each.training] == ["", "fc"]


@pytest.mark.slow
def test_a_training_resumes_without_the_file_and_a_checkpoint_loads_without_it(tmp_path: Path) -> None:
    saved(tmp_path / "w.pth")
    config = trial(tmp_path / "w.pth", freeze="backbone")
    straight = run(config, tmp_path / "straight")
    (tmp_path / "w.pth").unlink()
    _, module = checkpoint.read_model(tmp_path / "straight/1")
    assert module(torch.rand(1, 1, 32, 32)).shape == (1, 10)
    resumed = run(config, tmp_path / "resumed", resume=tmp_path / "straight/1")
    assert [each["epoch"] for each in resumed] == [2]
    assert resumed[0]["val_loss"] == straight[1]["val_loss"]


@pytest.mark.slow
def test_a_checkpoint_is_a_source_of_weights_with_its_own_normalization(tmp_path: Path) -> None:
    first = trial(tmp_path / "w.pth", weights="none")
    run(first, tmp_path / "kept")
    second = trial(tmp_path / "kept/2")
    module = loaded(second.model, second.data.image)  # type: ignore[arg-type]
    _, wanted = checkpoint.read_model(tmp_path / "kept/2")
    assert all(torch.equal(value, wanted.state_dict()[key]) for key, value in module.state_dict().items())


def test_a_population_does_not_change_what_is_frozen(tmp_path: Path) -> None:
    frozen, whole = trial(tmp_path / "w.pth", freeze="backbone"), trial(tmp_path / "w.pth")
    assert "would be trained" in frozen.why_not_resumable_as(whole)
    assert frozen.why_not_resumable_as(frozen) == ""


def test_the_preparation_of_a_trial_prepares_its_weights(tmp_path: Path) -> None:
    config = trial(tmp_path / "w.pth")
    with pytest.raises(UserError, match="does not exist"):
        config.prepare()
    saved(tmp_path / "w.pth")
    assert config.prepare() == (config, "")


def experiment(**fields: Any) -> ExperimentSpec:
    model = {"kind": "torchvision", "name": SMALL, **fields}
    return ExperimentSpec.model_validate(
        {
            "name": "weights",
            "objective": "val_accuracy",
            "trial": {"data": {"kind": "digits", "canvas": 32}, "model": model},
            "space": {"model.weights": {"choice": ["none", "DEFAULT"]}, "optimizer.lr": {"uniform": [0.1, 0.2]}},
            "search": {"kind": "random", "trials": 2},
        }
    )


def test_a_choice_is_prepared_that_a_constraint_allows_with_other_numbers_alone(server: Server) -> None:
    given = experiment().model_dump(exclude_unset=True) | {"constraints": ["optimizer.lr >= 0.15"]}
    _, message = ExperimentSpec.model_validate(given).prepare()
    assert message.count("downloaded the weights DEFAULT") == 1 and server.sent


def test_the_weights_of_every_choice_are_downloaded_before_the_first_trial(server: Server) -> None:
    spec = experiment()
    assert spec.prepare(choices=False) == (spec, "") and not server.sent
    prepared, message = spec.prepare()
    assert prepared == spec and message.count("downloaded the weights DEFAULT") == 1
    sent = server.sent
    assert spec.prepare() == (spec, "") and server.sent == sent


@pytest.mark.parametrize("offline", [None, "none"])
def test_a_choice_whose_weights_cannot_be_had_is_refused(offline: str | None, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="cannot be downloaded"):
        experiment(offline=offline).prepare()
