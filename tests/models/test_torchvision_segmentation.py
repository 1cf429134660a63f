from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from tuner.errors import Mistakes, UserError
from tuner.interfaces import ImageShape, Output, WithAuxiliary
from tuner.models import TorchvisionModel
from tuner.models.pretrained.torchvision import segmentation as torchvision_segmentation

SHAPE = ImageShape(3, 64, 96, (0.5,) * 3, (0.25,) * 3)
MASK = {"": Output(4, per_pixel=True)}
LIGHT = "lraspp_mobilenet_v3_large"


def built(name: str, outputs: dict[str, Output] = MASK, **fields: Any) -> torch.nn.Module:
    config = TorchvisionModel(name=name, **fields)
    config.check(SHAPE, outputs)
    return config.build(SHAPE, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", LIGHT])
def test_each_pixel_has_an_output_and_training_an_auxiliary_one(name: str) -> None:
    model = built(name)
    images = torch.rand(2, 3, 64, 96)
    returned = model.train()(images)
    if name == LIGHT:
        assert returned.shape == (2, 4, 64, 96)
    else:
        assert isinstance(returned, WithAuxiliary) and returned.weight == 0.5
        assert returned.outputs.shape == returned.auxiliary[0].shape == (2, 4, 64, 96)  # type: ignore[union-attr]
    assert model.eval()(images).shape == (2, 4, 64, 96)
    assert built(name, {"mask": Output(4, per_pixel=True)}).eval()(images)["mask"].shape == (2, 4, 64, 96)


def test_all_of_torchvision_s_are_there_and_are_the_same() -> None:
    assert set(torchvision_segmentation.names()) == set(models.list_models(module=models.segmentation))
    torch.manual_seed(0)
    theirs = models.get_model(LIGHT, weights=None, weights_backbone=None, num_classes=4).eval()
    ours = built(LIGHT).eval()
    ours.load_state_dict(
        {torchvision_segmentation._renamed(key): value for key, value in theirs.state_dict().items()}, strict=False
    )
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(ours(images), theirs((images - 0.5) / 0.25)["out"])


def test_weights_of_other_classes_are_those_of_all_layers_but_the_last(tmp_path: Path) -> None:
    theirs = models.get_model(LIGHT, weights=None, weights_backbone=None, num_classes=21)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    config = TorchvisionModel(name=LIGHT, weights=str(tmp_path / "theirs.pt"), freeze="backbone")
    config.check(SHAPE, MASK)
    model = config.build(SHAPE, MASK)
    new = model.state_dict()["classifier.high_classifier.weight"].clone()
    config.load_pretrained(model)
    state = model.state_dict()
    assert torch.equal(state["classifier.high_classifier.weight"], new) and new.shape[0] == 4
    assert torch.equal(state["classifier.cbr.0.weight"], theirs.state_dict()["classifier.cbr.0.weight"])
    assert torch.equal(state["trunk.backbone.0.0.weight"], theirs.state_dict()["backbone.0.0.weight"])
    config.begin_epoch(model, 1)
    assert {name.partition(".")[0] for name, each in model.named_parameters() if each.requires_grad} == {"classifier"}
    torch.save(models.resnet18().state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match=f"these are not weights of {LIGHT}"):
        TorchvisionModel(name=LIGHT, weights=str(tmp_path / "other.pt")).load_pretrained(model)


@pytest.mark.parametrize(
    ("fields", "outputs", "said"),
    [
        ({"name": "resnet18"}, MASK, "resnet18 has outputs of the whole image"),
        ({"name": LIGHT}, {"": Output(4)}, f"{LIGHT} has one output for each pixel"),
        ({"name": LIGHT}, MASK | {"label": Output(3)}, f"{LIGHT} has one output for each pixel"),
        ({"name": LIGHT, "auxiliary": True}, MASK, f"{LIGHT} has no auxiliary output"),
        ({"name": LIGHT, "drop_path": 0.1}, MASK, f"{LIGHT} has none"),
        ({"name": LIGHT, "weights": "BEST"}, MASK, f"torchvision has no weights 'BEST' of {LIGHT}"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], outputs: dict[str, Output], said: str) -> None:
    with pytest.raises(Mistakes, match=said):
        TorchvisionModel(**fields).check(SHAPE, outputs)
