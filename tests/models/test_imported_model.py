"""A model of the user's own: what is wrong with it is told before anything starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tuner
from conftest import experiment
from epochs import trained
from pydantic import ValidationError
from torch import nn

from tuner.errors import Mistakes
from tuner.interfaces import ImageShape, Output
from tuner.jobs.result import OK
from tuner.models import ImportedModel
from tuner.models.memory_format import placed
from tuner.train.checkpoint import read_model
from tuner.train.trial_base import merge
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import TrialGenerator

Own = Callable[[str], str]
GREY = ImageShape(1, 8, 8, mean=(0.5,), std=(0.5,))
ONE = {"": Output(10)}

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, classes=10):
        super().__init__()
        if width > 64:
            raise ValueError(f"{width} is too wide")
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Dropout(0.5), nn.Linear(width, classes))

    def forward(self, images):
        return self.layers(images)

def heads(**sizes):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleDict({name: nn.Linear(64, size) for name, size in sizes.items()})

        def forward(self, images):
            return {name: head(images.flatten(1)) for name, head in self.heads.items()}

    return Heads()

class Asking(Net):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__(width, num_classes)
        self.layers[1] = nn.Linear(64 * in_channels, width)

def briefly(channels, *, classes):
    return Asking(channels, classes)

def wide(channels=5, **more):
    return Net(channels)

def word():
    return "a model"

class Pair(Net):
    def forward(self, images):
        return self.layers(images), 0

class Small(Net):
    def forward(self, images):
        return images.reshape(len(images), 100)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))

    def forward(self, images):
        return self.layers(images)

class Auxiliary(Net):
    def forward(self, images):
        outputs = self.layers(images)
        return {"": outputs, "aux": outputs} if self.training else outputs

class Named(Net):
    def forward(self, images):
        outputs = self.layers(images)
        return (outputs, outputs) if self.training else outputs

class FailsInTraining(Net):
    def forward(self, images):
        if self.training:
            raise KeyError("labels")
        return self.layers(images)

class Pairs(Net):
    def forward(self, images):
        return self.layers(images).reshape(2, -1)

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

class Detached(Net):
    def forward(self, images):
        return self.layers(images).detach()

class Integers(Net):
    def forward(self, images):
        return self.layers(images).long()

class Leaves(Net):
    def forward(self, images):
        exit(0)

def leave():
    raise SystemExit(3)

class Convolutional(nn.Module):
    def __init__(self, channels, num_classes):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 8, 3, padding=1), nn.Linear(8 * 4 * 4, num_classes)

    def flat(self, features):
        return features.flatten(1)

    def forward(self, images):
        return self.last(self.flat(torch.max_pool2d(self.first(images), 2)))

class Views(Convolutional):
    def flat(self, features):
        return features.view(features.size(0), -1)

def scripted_views(channels, num_classes):
    return torch.jit.script(Views(channels, num_classes))

def scripted():
    return torch.jit.script(Net())

def normalized():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

constant = 3
"""


@pytest.fixture
def module(own: Own) -> str:
    return own(NET)


def refused(model: ImportedModel, outputs: dict[str, Output] = ONE) -> tuple[str, str]:
    """The message and the key of the mistake."""
    with pytest.raises(Mistakes) as error:
        model.check(GREY, outputs)
    [problem] = error.value.problems
    return problem.message, problem.key


def test_it_is_what_the_user_s_code_makes_with_the_arguments(module: str) -> None:
    for args, count in (({}, 64 * 4 + 4 + 40 + 10), ({"width": 2}, 64 * 2 + 2 + 20 + 10)):
        model = ImportedModel(target=f"{module}:Net", args=args)
        model.check(GREY, ONE)
        built = model.build(GREY, ONE)
        assert type(built).__name__ == "Net"
        assert sum(parameter.numel() for parameter in built.parameters()) == count
        assert built(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_a_function_may_make_it_and_it_may_have_heads(module: str) -> None:
    model = ImportedModel(target=f"{module}:heads", args={"digit": 10, "position": 2})
    model.check(GREY, {"digit": Output(10), "position": Output(2)})
    message, key = refused(model, {"digit": Output(10), "position": Output(3)})
    assert message == (
        f"{module}:heads returns digit (2, 10), position (2, 2) for two images, "
        "but the task needs digit (2, 10), position (2, 3)"
    )
    assert key == "target"


@pytest.mark.parametrize("name", ["Asking", "briefly"])
def test_it_is_told_the_channels_and_the_classes_that_it_asks_for(name: str, module: str) -> None:
    model, colour = ImportedModel(target=f"{module}:{name}"), ImageShape(3, 8, 8, (0.5,) * 3, (0.5,) * 3)
    for image, size in ((GREY, 10), (colour, 7)):
        asked = {"": Output(size)}
        model.check(image, asked)
        assert model.build(image, asked)(torch.rand(2, image.channels, 8, 8)).shape == (2, size)


def test_what_its_arguments_say_wins(module: str) -> None:
    model = ImportedModel(target=f"{module}:Asking", args={"num_classes": 3})
    message, _ = refused(model)
    assert "returns (2, 3) for two images, but the task needs (2, 10)" in message
    assert model.build(GREY, ONE)(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_what_has_a_default_is_not_told(module: str) -> None:
    """It may well mean something else."""
    model = ImportedModel(target=f"{module}:wide")
    [width] = {layer.out_features for layer in model.build(GREY, ONE).modules() if isinstance(layer, nn.Linear)} - {10}
    assert width == 5


def test_a_model_with_several_heads_is_told_no_number_of_classes(module: str) -> None:
    message, key = refused(ImportedModel(target=f"{module}:Asking"), {"a": Output(10), "b": Output(2)})
    assert "(in_channels=1) raises TypeError" in message and "'num_classes'" in message and key == "args"


@pytest.mark.parametrize(
    ("name", "args", "message", "key"),
    [
        ("Net", {"classes": 3}, "returns (2, 3) for two images, but the task needs (2, 10)", "target"),
        ("Net", {"width": 65}, "(width=65) raises ValueError: 65 is too wide", "args"),
        ("Net", {"depth": 2}, "unexpected keyword argument 'depth'", "args"),
        ("word", {}, "returns a str, not a torch.nn.Module", "target"),
        ("Pair", {}, "returns tuple for two images", "target"),
        ("Small", {}, "cannot take images (2, 1, 8, 8): RuntimeError", "target"),
        ("constant", {}, "is not a function: 3", "target"),
        (
            "Auxiliary",
            {},
            "returns (3, 10), aux (3, 10) for three images in training mode, but the task needs (3, 10)",
            "target",
        ),
        ("Pairs", {}, "returns (2, 15) for three images in training mode, but the task needs (3, 10)", "target"),
        ("Frozen", {}, "returns a module without parameters to train", "target"),
        ("Detached", {}, "returns outputs without a gradient in training mode", "target"),
        ("Integers", {}, "returns torch.int64", "target"),
        ("Leaves", {}, "cannot take images (2, 1, 8, 8): SystemExit: 0", "target"),
        ("leave", {}, "() raises SystemExit: 3", "args"),
        ("Named", {}, "returns tuple for three images in training mode", "target"),
        ("FailsInTraining", {}, "cannot take images (3, 1, 8, 8) in training mode: KeyError: 'labels'", "target"),
    ],
)
def test_what_is_wrong_with_it_is_told(name: str, args: dict[str, Any], message: str, key: str, module: str) -> None:
    told, at = refused(ImportedModel(target=f"{module}:{name}", args=args))
    assert message in told and at == key


def test_an_error_of_its_code_is_told_with_the_line(module: str) -> None:
    lines = [line.strip() for line in NET.splitlines()]
    for name, line in (("FailsInTraining", 'raise KeyError("labels")'), ("leave", "raise SystemExit(3)")):
        told, _ = refused(ImportedModel(target=f"{module}:{name}"))
        assert told.endswith(f"{module}.py:{lines.index(line) + 1})")


@pytest.mark.parametrize(
    ("name", "is_contiguous"), [("Convolutional", False), ("Views", True), ("scripted_views", True)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_that_views_its_features_gets_contiguous_images(
    name: str, is_contiguous: bool, channels: int, module: str
) -> None:
    """Batches are in channels-last format, in which such a view fails; many scripts have one."""
    image = ImageShape(channels, 8, 8, (0.5,) * channels, (0.5,) * channels)
    model = ImportedModel(target=f"{module}:{name}")
    model.check(image, ONE)
    torch.manual_seed(0)
    built = model.build(image, ONE)
    torch.manual_seed(0)
    again = model.build(image, ONE)
    assert built.training and all(map(torch.equal, built.parameters(), again.parameters()))
    assert all(each.is_contiguous() for each in built.parameters())
    images = torch.rand(5, channels, 8, 8).contiguous(memory_format=torch.channels_last)
    for each in (built, placed(again, torch.device("cpu"))):  # as a checkpoint is loaded, and as a trial trains
        each(images).sum().backward()
    weight = next(each for each in again.parameters() if each.dim() == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last) != is_contiguous or channels == 1


def test_a_name_that_is_not_there_is_told_with_the_nearest(module: str) -> None:
    with pytest.raises(Mistakes) as error:
        ImportedModel(target=f"{module}:Nett").check(GREY, ONE)
    [problem] = error.value.problems
    assert problem.message.endswith("has no 'Nett'") and "did you mean Net?" in problem.hint


@pytest.mark.parametrize("target", ["Net", "module.Net", "my module:Net", "module:", ":Net", "module:Net()"])
def test_a_target_is_a_module_and_a_name_in_it(target: str) -> None:
    with pytest.raises(ValidationError):
        ImportedModel(target=target)


def test_looking_at_it_moves_no_random_number(module: str) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    ImportedModel(target=f"{module}:Net", args={"width": 5}).check(GREY, ONE)
    assert torch.equal(torch.rand(3), wanted)


class TestInATrial:
    def trial(self, module: str, **args: Any) -> TrialConfig:
        model = {"kind": "import", "target": f"{module}:Net", "args": args}
        return TrialConfig.model_validate({"data": {"kind": "digits"}, "model": model, "seed": 3})

    def test_its_mistakes_are_the_trial_s(self, module: str) -> None:
        with pytest.raises(ValidationError, match="65 is too wide"):
            self.trial(module, width=65)

    def test_its_weights_are_those_of_the_seed(self, module: str) -> None:
        def weights(seed: int) -> torch.Tensor:
            torch.manual_seed(seed)
            return next(self.trial(module).build_model().parameters()).detach()

        assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))

    def test_its_parameters_are_counted_and_its_code_is_known_to_be_needed(self, module: str) -> None:
        trial = self.trial(module, width=2)
        assert trial.count_parameters() == 64 * 2 + 2 + 20 + 10
        assert trial.targets == [f"{module}:Net"]

    def test_dropout_may_change_while_it_trains_and_a_shape_may_not(self, module: str) -> None:
        assert self.trial(module).why_not_resumable_as(self.trial(module)) == ""
        why = self.trial(module, width=4).why_not_resumable_as(self.trial(module, width=2))
        assert why == "the shape of layers.1.weight would be [2, 64] instead of [4, 64]"

    def test_it_is_a_module_like_any_other(self, module: str) -> None:
        model = self.trial(module).build_model()
        assert isinstance(model, nn.Module) and model.training

    @pytest.mark.filterwarnings("ignore:Lazy modules are a new feature", "ignore:.*torch.jit")
    @pytest.mark.parametrize("name", ["Lazy", "scripted", "Net"])
    def test_a_lazy_or_scripted_module_is_trained_averaged_and_loaded(
        self, name: str, module: str, tmp_path: Path
    ) -> None:
        trial = TrialConfig.model_validate(
            {
                "data": {"kind": "digits", "limit": 64},
                "model": {"kind": "import", "target": f"{module}:{name}"},
                "optimizer": {"kind": "adamw"},
                "ema": {},
                "epochs": 2,
                "seed": 3,
            }
        )
        straight = trained(trial, tmp_path / "straight")
        assert trained(trial, tmp_path / "resumed", resume=tmp_path / "straight/1") == straight[1:]
        _, loaded = read_model(tmp_path / "straight/2", trust=trial.targets)
        assert loaded(torch.rand(3, 1, 8, 8)).shape == (3, 10)

    def test_one_image_at_a_time_is_refused_where_batch_normalization_needs_several(self, module: str) -> None:
        def trial(name: str, batch_size: int) -> None:
            data = {"kind": "digits", "batch_size": batch_size}
            model = {"kind": "import", "target": f"{module}:{name}"}
            TrialConfig.model_validate({"data": data, "model": model})

        with pytest.raises(ValidationError, match="the model's batch normalization cannot be trained on one"):
            trial("normalized", 1)
        trial("normalized", 2)
        trial("Net", 1)


COUNTED = """
import os
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        if not torch.get_default_device().type == "meta":
            with Path(__file__).with_suffix(".log").open("a") as log:
                print(width, file=log)
        if width == 2:
            raise ValueError("there is no such width")
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    def forward(self, images):
        return self.layers(images)
"""


class TestInASearch:
    """A space of which all corners are valid, but not what is between them."""

    def parts(self, module: str) -> dict[str, Any]:
        return {
            "trial": {
                "data": {"kind": "digits", "limit": 64},
                "model": {"kind": "import", "target": f"{module}:Net", "args": {"width": 1}},
            },
            "space": {"model.args.width": {"int": [1, 3]}},
            "search": {"kind": "bayesian", "trials": 3},
        }

    @pytest.mark.parametrize("constraints", [[], ["model.args.width <= 9"], ["parameters <= 1000"]])
    def test_the_control_loop_does_not_run_it(self, constraints: list[str], own: Own, tmp_path: Path) -> None:
        module = own(COUNTED)
        spec = experiment(**self.parts(module), constraints=constraints)
        log = tmp_path / f"own/{module}.log"
        generator = TrialGenerator(spec)
        before = log.read_text()
        trials = [generator.next() for _ in range(3)]
        assert log.read_text() == before
        widths = {trial.assignment["model.args.width"]: trial.config for trial in trials if trial}
        assert widths.keys() == {1, 2, 3}
        assert widths[3] == TrialConfig.model_validate(widths[3].model_dump())
        assert widths[3] == merge(spec.trial, {"model.args.width": 3}).with_seed(0)

    @pytest.mark.slow
    @pytest.mark.usefixtures("in_one_process", "store_made")
    def test_what_cannot_be_built_is_a_failed_trial_with_its_reason(self, own: Own, tmp_path: Path) -> None:
        spec = {"name": "x", "objective": "val_loss", "storage": "runs"} | self.parts(own(COUNTED))
        (tmp_path / "job.yaml").write_text(json.dumps(spec))
        status, said = tuner(tmp_path, "run", "job.yaml")
        assert status == OK, said
        assert "failed · width=2 · trial.model.args: own_" in said and "ValueError: there is no such width" in said
        assert "Traceback" not in said and said.count(" failed · ") == 1 and said.count(" completed · ") == 2
