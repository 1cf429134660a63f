"""Versions of registered models, as MLflow and as tuner loads them: a real store, real models."""

import base64
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from commands import tuner as command_line
from mlflow.exceptions import MlflowException
from mlflow.models import validate_serving_input
from PIL import Image
from registered import Registry, registry_in
from torch import Tensor

import tuner
from benchmarks.servers import free_port
from tuner.data.digits import Digits
from tuner.errors import UserError
from tuner.models.pretrained import weight_files
from tuner.tracking.registered.versions import example_of

CHAMPION = "models:/digits@champion"
SCENES: dict[str, Any] = {"kind": "mnist_scenes", "source": "digits", "size": 32, "largest": 24, "digits": 2}
SCENES |= {"scenes": 16, "validation": 4, "test": 4}

OWN = """
import torch
from torch import nn
from {helper} import width

class Net(nn.Module):
    '''Its forward depends on what it sees, so that it is no graph.'''

    def __init__(self, classes, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width(), 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(4 * width(), classes)

    def forward(self, images):
        return self.head(self.layers(images if images.sum() > 0 else -images).flatten(1))

class Detector(nn.Module):
    '''Finds one object of the first class, where the image is as bright as its weight.'''

    def __init__(self, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, images, targets=None):
        if self.training:
            return {{"loss": self.weight.square() * len(targets)}}
        edge = self.weight.detach() * images[0].shape[-1]
        box = torch.stack([edge * 0, edge * 0, edge, edge])[None]
        found = {{"boxes": box, "labels": torch.tensor([1]), "scores": 0.4 + 0 * box[:, 0] + self.weight.detach()}}
        return [found for _ in images]

class TwoChannels:
    def __init__(self, train):
        self.train = train

    def __len__(self):
        return 30 if self.train else 10

    def __getitem__(self, index):
        pixels = torch.randint(256, (2, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        return pixels, index % 3
"""


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    shutil.copy(empty_store, tmp_path / "store.db")
    return registry_in(tmp_path)


@pytest.fixture
def own_net(own: Callable[[str], str]) -> str:
    """The module of a net of the user's own, which imports another."""
    return own(OWN.format(helper=own("def width():\n    return 6\n")))


def said(model: Any, images: Any) -> list[dict[str, Any]]:
    answers = [each.as_dict() for each in model.predict(images)]
    return [{name: value for name, value in each.items() if name != "path"} for each in answers]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trial",
    [
        {"data": {"kind": "digits"}, "model": {"kind": "cnn"}},
        {
            "task": {"kind": "multitask"},
            "data": {"kind": "digits", "canvas": 40},
            "model": {"kind": "multitask_cnn"},
        },
        {"task": {"kind": "detection"}, "data": SCENES, "model": {"kind": "yolo", "width": 8}},
        {"task": {"kind": "instance_segmentation"}, "data": SCENES, "model": {"kind": "yolo", "width": 8}},
        {"task": {"kind": "semantic_segmentation"}, "data": SCENES, "model": {"kind": "unet"}},
    ],
    ids=lambda trial: trial.get("task", {}).get("kind", "classification"),
)
def test_mlflow_says_what_tuner_says(registry: Registry, trial: dict[str, Any]) -> None:
    registry.register(0.9, trial)
    ours, theirs = tuner.load(CHAMPION), mlflow.pytorch.load_model(CHAMPION)
    served = mlflow.pyfunc.load_model(CHAMPION)
    assert not theirs.training
    images = torch.rand(2, *_sides(registry))
    with torch.inference_mode():
        assert equal(theirs(images), ours(images))
    [image] = served.input_example["image"]
    answers = served.predict(pd.DataFrame({"image": [image, image]}))
    assert answers == said(ours, [image, image]) == said(theirs, [image, image])
    assert set(answers[0]) == set(served.metadata.signature.outputs.input_names())
    request = json.loads((registry.model() / "serving_input_example.json").read_text())
    assert validate_serving_input(CHAMPION, request) == answers[:1]


def _sides(registry: Registry) -> tuple[int, int, int]:
    size = json.loads((registry.model() / "data" / "checkpoint" / "signature.json").read_text())["input"]
    return size["channels"], size["height"], size["width"]


def test_a_version_carries_signature_example_classes_and_preprocessing(registry: Registry) -> None:
    registry.register(0.9)
    info = mlflow.models.get_model_info(CHAMPION)
    assert info.signature is not None
    [column] = info.signature.inputs.to_dict()
    assert (column["name"], column["type"]) == ("image", "binary")
    assert [each["name"] for each in info.signature.outputs.to_dict()] == ["label", "probability", "top"]
    assert info.metadata is not None
    assert info.metadata["classes"] == {"output": [str(digit) for digit in range(10)]}
    assert [step["kind"] for step in info.metadata["preprocessing"]] == ["resize"]
    assert len(info.metadata["normalization"]["mean"]) == 1 and info.metadata["task"] == "classification"
    [batch] = list(Digits(kind="digits").load()[1].first(1).batches(1))
    [shown] = tuner.load(CHAMPION).predict(image_file(registry))
    [real] = tuner.load(CHAMPION).predict((batch.inputs[0] * 255).round().byte())
    assert shown.probability == real.probability  # it is that very image
    description = registry.at("champion").description
    assert "one class of 0, 1, 2" in description and "val_accuracy: 0.9 on digits 1 after epoch 2" in description


def test_weights_lie_in_it_once_and_hold_no_code(registry: Registry) -> None:
    registry.register(0.9)
    weights = registry.folder / "1" / "model.pt"
    files = [path for path in registry.model().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1.2 * weights.stat().st_size
    content = torch.load(registry.model() / "data" / "checkpoint" / "model.pth", weights_only=True)
    saved = torch.load(weights, weights_only=True)
    assert equal(content["state_dict"], saved)
    begun = weight_files.read(weight_files.path_of(str(registry.model() / "data" / "checkpoint")))
    assert equal(begun, saved)  # as `model.weights` of the next experiment


def test_it_is_served_where_pickles_are_forbidden(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register(0.9)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    served = mlflow.pyfunc.load_model(CHAMPION)
    assert served.predict(served.input_example)[0]["label"] in map(str, range(10))
    with pytest.raises(MlflowException, match="using pickle is disallowed"):  # which MLflow says of any model.pth
        mlflow.pytorch.load_model(CHAMPION)


def test_a_version_stands_without_its_run(registry: Registry) -> None:
    registry.register(0.9)
    registry.client.delete_run(registry.run)
    image, environment = str(image_file(registry)), {"MLFLOW_TRACKING_URI": registry.uri}
    status, output = command_line(registry.folder, "predict", CHAMPION, image, **environment)
    assert status == 0, output
    assert json.loads(output.splitlines()[0])["label"] == said(tuner.load(CHAMPION), image)[0]["label"]


def image_file(registry: Registry) -> Path:
    [image] = mlflow.pyfunc.load_model(CHAMPION).input_example["image"]
    file = registry.folder / "digit.png"
    file.write_bytes(image)
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "rest"),
    [
        ("Net", {"data": {"kind": "digits"}}),
        ("Detector", {"data": SCENES, "task": {"kind": "detection"}}),
    ],
)
def test_a_model_of_one_s_own_takes_its_code_along(
    registry: Registry, own_net: str, net: str, rest: dict[str, Any]
) -> None:
    registry.register(0.9, {"model": {"kind": "import", "target": f"{own_net}:{net}"}} | rest)
    assert len(list((registry.model() / "code").iterdir())) == 2  # and what it imports
    with pytest.raises(UserError, match="loading it would run code that it names"):
        tuner.load(CHAMPION)
    code = f"""
import json, mlflow
model, served = mlflow.pytorch.load_model({CHAMPION!r}), mlflow.pyfunc.load_model({CHAMPION!r})
[image] = served.input_example["image"]
print(json.dumps([model.predict(image)[0].as_dict(), served.predict(served.input_example)[0]]))
"""
    elsewhere = registry.folder / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    module, served = (rounded(each | {"path": ""}) for each in json.loads(done.stdout.splitlines()[-1]))
    [ours] = tuner.load(CHAMPION, trust=[f"{own_net}:{net}"]).predict(image_file(registry))
    assert module == served == rounded(ours.as_dict() | {"path": ""})
    assert served.get("label") or served["boxes"][0]["label"] == "0"


def rounded(answer: Any) -> Any:
    """An answer whose numbers do not depend on how many threads computed them."""
    if isinstance(answer, dict):
        return {name: rounded(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [rounded(each) for each in answer]
    return round(answer, 4) if isinstance(answer, float) else answer


@pytest.mark.slow
def test_images_of_other_channels_are_tensors(registry: Registry, own_net: str) -> None:
    data = {"kind": "import", "target": f"{own_net}:TwoChannels", "batch_size": 8}
    registry.register(0.9, {"data": data, "model": {"kind": "import", "target": f"{own_net}:Net"}})
    served = mlflow.pyfunc.load_model(CHAMPION)
    [tensor] = served.metadata.signature.inputs.inputs
    assert (tensor.shape, tensor.type) == ((-1, 2, -1, -1), np.dtype(np.uint8))
    assert served.input_example.shape == (1, 2, 6, 8)
    model = tuner.load(CHAMPION, trust=[f"{own_net}:Net"])
    assert served.predict(served.input_example) == said(model, torch.from_numpy(served.input_example))


@pytest.mark.slow
@pytest.mark.server
def test_mlflow_serves_it(registry: Registry, own_net: str) -> None:
    trial = {"data": {"kind": "digits"}, "model": {"kind": "import", "target": f"{own_net}:Net"}}
    registry.register(0.9, trial)
    [ours] = tuner.load(CHAMPION, trust=[f"{own_net}:Net"]).predict(image_file(registry))
    image = base64.b64encode(image_file(registry).read_bytes()).decode()
    port, log = free_port(), registry.folder / "serve.log"
    command = ["models", "serve", "-m", CHAMPION, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    elsewhere = registry.folder / "elsewhere"
    elsewhere.mkdir()
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command], cwd=elsewhere, stdout=out, stderr=out, start_new_session=True
        )
    try:
        until = time.monotonic() + 300
        while asked(port)[0] != 200:
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.5)
        status, answer = asked(port, {"dataframe_split": {"columns": ["image"], "data": [[image], [image]]}})
        assert status == 200, answer
        for found in json.loads(answer)["predictions"]:
            assert found["label"] == ours.label and found["probability"] == pytest.approx(ours.probability)
        for request in ({"inputs": {"image": [image]}}, {"instances": [{"image": image}]}):
            status, answer = asked(port, request)
            assert status == 200 and json.loads(answer)["predictions"][0]["label"] == ours.label, answer
        for wrong in ("/etc/passwd", base64.b64encode(b"no image").decode()):
            status, answer = asked(port, {"inputs": {"image": [wrong]}})
            assert status == 400 and "1 image cannot be read: image 0" in answer
        assert asked(port, {"dataframe_split": {"columns": ["picture"], "data": [[image]]}})[0] == 400
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def asked(port: int, request: Any = None) -> tuple[int, str]:
    """The status and the body of an answer; of the server's state unless there is a request."""
    url = f"http://127.0.0.1:{port}/{'ping' if request is None else 'invocations'}"
    body = None if request is None else json.dumps(request).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=60
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class TestWhatIsWrong:
    @pytest.fixture
    def there(self, registry: Registry) -> Registry:
        registry.register(0.9)
        return registry

    @pytest.mark.parametrize(
        ("images", "words"),
        [
            (["/etc/passwd"], "1 image cannot be read: image 0: it is not an image"),
            ([3], "has the bytes of image files"),
            ([b"no image"], "1 image cannot be read: image 0: it is not an image"),
            ([None], "has the bytes of image files"),
        ],
    )
    def test_no_image_is_refused(self, there: Registry, images: list[Any], words: str) -> None:
        model = mlflow.pyfunc.load_model(CHAMPION)
        with pytest.raises(MlflowException, match=words):
            model.predict(pd.DataFrame({"image": images}, dtype=object))

    def test_code_in_it_does_not_run(self, there: Registry) -> None:
        proof = there.folder / "proof"
        (there.model() / "data" / "checkpoint" / "model.pth").write_bytes(b"")
        torch.save({"state_dict": Runs(str(proof)), "files": {}}, there.model() / "data" / "checkpoint" / "model.pth")
        tampered = (there.model() / "MLmodel").read_text().replace("tuner.deploy.registered", "antigravity")
        with pytest.raises(UserError, match="loading it could run code, so it is not loaded"):
            tuner.load(CHAMPION)
        with pytest.raises(pickle.UnpicklingError):
            mlflow.pytorch.load_model(CHAMPION)
        (there.model() / "MLmodel").write_text(tampered)
        with pytest.raises(UserError, match="loading it could run code, so it is not loaded"):
            tuner.load(CHAMPION)
        assert not proof.exists() and "antigravity" not in sys.modules

    def test_a_stranger_s_pickled_model_does_not_run(self, there: Registry) -> None:
        proof = there.folder / "proof"
        for name, content in (("model.pth", Runs(str(proof))), ("python_model.pkl", Runs(str(proof)))):
            torch.save(content, there.model() / "data" / name)
        shutil.rmtree(there.model() / "data" / "checkpoint")
        with pytest.raises(UserError, match="no checkpoint of the run"):
            tuner.load(CHAMPION)
        assert not proof.exists()

    @pytest.mark.parametrize("content", [b"", b"no archive"], ids=["empty", "text"])
    def test_a_damaged_file_is_told(self, there: Registry, content: bytes) -> None:
        (there.model() / "data" / "checkpoint" / "model.pth").write_bytes(content)
        for load in (tuner.load, mlflow.pytorch.load_model):
            with pytest.raises((UserError, EOFError), match=r"model\.pth|Ran out of input"):
                load(CHAMPION)

    @pytest.mark.parametrize(
        "content", [[1], {}, {"state_dict": {}, "files": {}}, {"state_dict": {"a": 1}, "files": 3}]
    )
    def test_another_content_is_told(self, there: Registry, content: Any) -> None:
        torch.save(content, there.model() / "data" / "checkpoint" / "model.pth")
        for load in (tuner.load, mlflow.pytorch.load_model):
            with pytest.raises(UserError, match=r"damaged|holds no checkpoint"):
                load(CHAMPION)


class Runs:
    """What runs code where it is unpickled."""

    def __init__(self, proof: str) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return open, (self.proof, "w")


@pytest.mark.slow
def test_the_example_of_a_version_is_an_image_file(registry: Registry) -> None:
    registry.register(0.9)
    [batch] = list(Digits().load()[1].first(1).batches(1))
    pixels = np.asarray(Image.open(io.BytesIO(example_of(registry.uri, "models:/digits/1"))))
    assert np.array_equal(pixels, (batch.inputs[0, 0] * 255).round().byte().numpy())
