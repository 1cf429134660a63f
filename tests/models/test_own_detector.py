"""Detectors of the user's own that follow torchvision's protocol."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from epochs import trained
from pydantic import ValidationError
from torch import Tensor

from tuner.errors import Mistakes, Problem
from tuner.interfaces import NO_BOX, ImageShape, Output
from tuner.interfaces.instances import NUMBERS
from tuner.models import ImportedModel
from tuner.train.checkpoint import read_model
from tuner.train.trial_config import TrialConfig

IMAGE = ImageShape(3, 32, 40, (0.5,) * 3, (0.25,) * 3)
BOXES = {"": Output(3, boxes=True)}
MASKS = {"": Output(3, boxes=True, masks=True)}

NET = """
import torch
from torch import nn

class Net(nn.Module):
    '''Finds one object: that of the class with the highest score, in a box that is a parameter.'''

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, num_classes)
        self.box = nn.Parameter(torch.tensor([1.0, 2.0, 9.0, 8.0]))

    def scores(self, images):
        return self.head(self.stem(torch.stack(images)).mean(dim=(2, 3)))

    def forward(self, images, targets=None):
        assert isinstance(images, list)
        scores = self.scores(images)
        self.dtype = scores.dtype
        if self.training:
            return self.losses(scores, targets)
        found = scores.softmax(dim=1)
        return [self.found(each) for each in found]

    def losses(self, scores, targets):
        for each in targets:
            assert each["labels"].dtype is torch.int64 and each["boxes"].shape == (len(each["labels"]), 4)
        labels = torch.stack([each["labels"][:1].sum() for each in targets])
        boxes = torch.cat([each["boxes"] for each in targets])
        return {
            "classes": nn.functional.cross_entropy(scores, labels),
            "boxes": (boxes - self.box).abs().sum() / len(targets),
        }

    def found(self, scores):
        labels = scores.argsort()
        return {"boxes": self.box.expand(len(labels), 4), "labels": labels, "scores": scores[labels]}

class Few(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes - 1)

class Stacks(Net):
    def forward(self, images, targets=None):
        return self.head(self.stem(images).mean(dim=(2, 3)))

class Total(Net):
    def losses(self, scores, targets):
        return sum(super().losses(scores, targets).values())

class Each(Net):
    def losses(self, scores, targets):
        return {"boxes": scores}

class Detached(Net):
    def losses(self, scores, targets):
        return {"boxes": scores.sum().detach()}

class Nothing(Net):
    def losses(self, scores, targets):
        return {}

class Whole(Net):
    def found(self, scores):
        return 1 * self.box

class Unsure(Net):
    def found(self, scores):
        return {"boxes": self.box[None], "labels": torch.ones(1, dtype=torch.int64)}

class One(Net):
    def found(self, scores):
        return super().found(scores) | {"boxes": self.box}

class Floats(Net):
    def found(self, scores):
        return super().found(scores) | {"labels": scores}

class NaN(Net):
    def found(self, scores):
        return super().found(scores) | {"scores": super().found(scores)["scores"] * float("nan")}

class Raw(Net):
    def found(self, scores):
        return super().found(scores) | {"scores": super().found(scores)["scores"] + 5}

class Inverted(Net):
    def found(self, scores):
        return super().found(scores) | {"boxes": super().found(scores)["boxes"].flip(1)}

class First(Net):
    def forward(self, images, targets=None):
        returned = super().forward(images, targets)
        return returned if self.training else returned[0]

class Short(Net):
    def forward(self, images, targets=None):
        returned = super().forward(images, targets)
        return returned if self.training else returned[:1]

class Masks(Net):
    '''Finds that all pixels of its box are of the object.'''

    def losses(self, scores, targets):
        for each in targets:
            assert each["masks"].dtype is torch.uint8 and each["masks"].shape == (len(each["labels"]), 32, 40)
        areas = torch.stack([each["masks"].sum() for each in targets]).float()
        return super().losses(scores, targets) | {"masks": (areas - self.box.prod()).abs().mean()}

    def found(self, scores):
        masks = torch.zeros(len(scores), 1, 32, 40)
        masks[:, :, 2:8, 1:9] = 1
        return super().found(scores) | {"masks": masks}

class Logits(Masks):
    def found(self, scores):
        found = super().found(scores)
        return found | {"masks": found["masks"] * 3 - 1}

class Flat(Masks):
    def found(self, scores):
        found = super().found(scores)
        return found | {"masks": found["masks"][:, 0]}
"""


@pytest.fixture
def module(own: Callable[[str], str]) -> str:
    return own(NET)


def built(module: str, outputs: dict[str, Output] = BOXES, **fields: Any) -> Any:
    config = ImportedModel(target=f"{module}:Net", **fields)
    config.check(IMAGE, outputs)
    torch.manual_seed(0)
    return config.build(IMAGE, outputs)


def refused(module: str, name: str, outputs: dict[str, Output] = BOXES, **fields: Any) -> Problem:
    with pytest.raises(Mistakes) as error:
        ImportedModel(target=f"{module}:{name}", **fields).check(IMAGE, outputs)
    [problem] = error.value.problems
    return problem


def images(count: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(count, 3, 32, 40)


def test_its_losses_are_the_terms_and_what_is_ignored_is_not_trained_on(module: str) -> None:
    model = built(module)
    boxes = torch.tensor([[[1, 2, 9, 12, 2, 0], [0, 0, 9, 9, 1, 1]], [NO_BOX, NO_BOX]])
    terms = model.train()(images(), {"": boxes})
    scores = model.detector.scores(list(images()))
    wanted = torch.stack([torch.nn.functional.cross_entropy(scores, torch.tensor([3, 0])), torch.tensor(4 / 2)])
    torch.testing.assert_close(terms, wanted.expand(2, 2))
    terms.sum(dim=1).mean().backward()
    assert model.detector.box.grad.any()


def test_what_it_finds_is_sorted_and_has_neither_background_nor_unknown_classes(module: str) -> None:
    outputs = {"objects": Output(3, boxes=True)}
    model = built(module, outputs, detections=5).eval()
    assert model.detector.num_classes == 4, "the classes and the background"
    model.detector.head = torch.nn.Linear(4, 9)  # with labels that are no classes
    found = model(images())["objects"]
    scores = model.detector.scores(list(images())).softmax(dim=1)[:, 1:4]
    assert found.shape == (2, 5, 6)
    best, classes = scores.sort(dim=1, descending=True)
    torch.testing.assert_close(found[:, :3, 4], best)
    assert torch.equal(found[:, :3, 5].long(), classes)
    assert torch.equal(found[:, :3, :4], torch.tensor([1.0, 2, 9, 8]).expand(2, 3, 4))
    assert torch.equal(found[:, 3:], torch.tensor([0, 0, 0, 0, 0, -1.0]).expand(2, 2, 6))
    assert built(module, detections=1).eval()(images()).shape == (2, 1, 6), "the best only"


def test_it_learns_and_finds_masks(module: str) -> None:
    config = ImportedModel(target=f"{module}:Masks", detections=5)
    config.check(IMAGE, MASKS)
    torch.manual_seed(0)
    model: Any = config.build(IMAGE, MASKS)
    codes = torch.zeros((2, 32, 40), dtype=torch.int16)
    codes[0, 2:12, 1:9] = 2 * NUMBERS + 1
    codes[0, 20:30] = -(1 * NUMBERS + 2)
    terms = model.train()(images(), {"": codes})
    assert terms.shape == (2, 3)
    area = model.detector.box.prod().item()
    assert terms[0, 2].item() == pytest.approx((abs(80 - area) + area) / 2)
    assert terms[0, 1].item() == pytest.approx(4 / 2), "the box of the mask is 1, 2, 9, 12"
    found = model.eval()(images())
    assert found.shape == (2, 5, 6 + 32 * 40)
    assert torch.equal(found[..., 6:].any(dim=2), found[..., 5] >= 0)
    mask = found[0, 0, 6:].view(32, 40)
    assert mask.sum() == 6 * 8 and (mask[2:8, 1:9] == 1).all()


def test_masks_that_do_not_follow_the_protocol_are_told(module: str) -> None:
    for name, said in (
        ("Net", "dicts without a tensor 'masks'"),
        ("Logits", r"masks that are not in \[0, 1\]"),
        ("Flat", r"masks \(4, 32, 40\) beside 4 labels"),
    ):
        problem = refused(module, name, MASKS)
        assert re.search(said, problem.message) and "probabilities (n, 1, H, W)" in problem.hint
    assert "masks" not in refused(module, "Whole").hint


def test_it_computes_in_float32(module: str) -> None:
    """Of what it computes with boxes, bfloat16 has too few digits."""
    model = built(module)
    for training in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            given = [{"": torch.tensor([[NO_BOX], [NO_BOX]])}] if training else []
            assert model.train(training)(images(), *given).dtype is torch.float32
        assert model.detector.dtype is torch.float32


def test_its_stages_are_those_of_the_module(module: str) -> None:
    config = ImportedModel(target=f"{module}:Net", head="head")
    stages = config.stages_in(config.build(IMAGE, BOXES))
    assert stages is not None and stages.names == (("detector.box", "detector.stem"),)
    assert stages.depth_of("detector.head.weight") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Few", "cannot take lists of three images .3, 32, 40. and their boxes in training mode: IndexError"),
        ("Stacks", "cannot take a list of two images .3, 32, 40.: TypeError"),
        ("Total", "returns a Tensor for lists of three images"),
        ("Each", r"returns torch.float32 \(3, 4\) as the loss 'boxes' for lists of three images"),
        ("Detached", "returns losses without a gradient for lists of three images"),
        ("Nothing", "returns no losses for lists of three images"),
        ("Whole", "returns a list of Tensor for a list of two images"),
        ("Unsure", "returns dicts without a tensor 'scores' for a list of two images"),
        ("One", r"returns boxes \(4,\) beside 4 labels for a list of two images"),
        ("Floats", "returns labels that are torch.float32 for a list of two images"),
        ("NaN", "returns boxes or scores that are NaN or infinite for a list of two images"),
        ("Raw", "returns scores that are not in .0, 1. for a list of two images"),
        ("Inverted", "returns boxes whose right or lower edge lies before the left or upper one"),
        ("First", "returns a dict for a list of two images"),
        ("Short", "returns a list of 1 for a list of two images"),
    ],
)
def test_what_is_against_the_protocol_is_told(name: str, said: str, module: str) -> None:
    problem = refused(module, name)
    assert problem.key == "target" and "as torchvision's do" in problem.hint
    assert re.search(said, problem.message), problem.message


def test_what_does_not_fit_the_task_is_told(module: str) -> None:
    assert "finds objects has no other output" in refused(module, "Net", BOXES | {"label": Output(3)}).message
    assert "the task needs no objects" in refused(module, "Net", {"": Output(3)}, detections=9).message


def test_a_trial_trains_it_and_its_checkpoint_is_loaded(module: str, tmp_path: Path) -> None:
    data = {"kind": "mnist_scenes", "source": "digits", "size": 40, "scenes": 16, "validation": 8, "test": 8}

    def config(name: str) -> TrialConfig:
        return TrialConfig.model_validate(
            {
                "task": {"kind": "detection"},
                "data": data,
                "model": {"kind": "import", "target": f"{module}:{name}"},
                "optimizer": {"kind": "adamw"},
                "epochs": 2,
                "seed": 3,
            }
        )

    trial = config("Net")
    reports = trained(trial, tmp_path, objective="val_map50")
    assert reports[1]["train_loss"] < reports[0]["train_loss"] and "val_map" in reports[1]
    _, model = read_model(tmp_path / "2", trust=trial.targets)
    assert model(torch.rand(2, 3, 40, 40)).shape == (2, 100, 6)
    with pytest.raises(ValidationError, match="cannot take lists of three images"):
        config("Few")


@pytest.mark.slow
def test_one_of_torchvision_s_can_be_named() -> None:
    target = "torchvision.models.detection:ssdlite320_mobilenet_v3_large"
    args = {"weights": None, "weights_backbone": None, "num_classes": 4}
    ImportedModel(target=target, args=args).check(IMAGE, BOXES)
    with pytest.raises(Mistakes, match="in training mode: IndexError"):
        ImportedModel(target=target, args=args | {"num_classes": 3}).check(IMAGE, BOXES)
