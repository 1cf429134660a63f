from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tuner.errors import Mistakes, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models import UNet

MASK = {"": Output(4, per_pixel=True)}


def image(height: int, width: int) -> ImageShape:
    return ImageShape(3, height, width, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (64, 48)])
@pytest.mark.parametrize("levels", [1, 4, 6])
def test_each_pixel_of_an_image_of_any_size_has_an_output(height: int, width: int, levels: int) -> None:
    model = UNet(width=4, levels=levels).build(image(height, width), MASK)
    assert model(torch.rand(2, 3, height, width)).shape == (2, 4, height, width)


def test_it_has_so_many_parameters_as_it_says() -> None:
    model = UNet().build(image(64, 64), MASK)
    assert round(sum(each.numel() for each in model.parameters()) / 1e6, 1) == 0.5


def test_its_encoder_has_stages() -> None:
    config = UNet(width=4)
    model = config.build(image(16, 16), MASK)
    stages = config.stages_in(model)
    assert stages is not None and len(stages) == 4
    assert [stages.depth_of(f"trunk.backbone.{name}.weight") for name in ("0.0", "1.1", "3.1")] == [0, 1, 3]
    for head in ("decoder.2.join.0.weight", "heads._head.layers.1.weight"):
        assert head in model.state_dict() and stages.depth_of(head) == 4


@pytest.mark.slow
def test_it_learns_where_a_square_is() -> None:
    torch.manual_seed(0)
    images, masks = torch.rand(16, 3, 16, 16), torch.zeros(16, 16, 16, dtype=torch.int64)
    for number in range(16):
        top, left = number // 4 * 3, number % 4 * 3
        images[number, :, top : top + 4, left : left + 4] += 1
        masks[number, top : top + 4, left : left + 4] = 1
    model = UNet(width=4, levels=3).build(image(16, 16), {"": Output(2, per_pixel=True)})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images), masks).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (model.eval()(images).argmax(dim=1) == masks).float().mean() > 0.98


ENCODERS = (
    "resnet18",
    "resnext50_32x4d",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "vgg11_bn",
    "densenet121",
    "convnext_tiny",
)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_model_of_torchvision_may_be_the_encoder(encoder: str) -> None:
    shape = image(64, 96)
    config = UNet(encoder=encoder, width=4)
    config.check(shape, MASK)
    asked = MASK | {"": Output(4, per_pixel=True)}
    model = config.build(shape, asked).eval()
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 96)
    output = model(images)
    assert output.shape == (2, 4, 64, 96)
    changed = images.clone()
    changed[:, :, 10:14, 10:14] = 1 - changed[:, :, 10:14, 10:14]
    moved = (model(changed) - output).abs().amax(dim=(0, 1))
    assert moved[10:14, 10:14].mean() > moved[50:, 80:].mean(), "an output is that of its place"
    model.train()
    (model(images) * torch.randn(2, 4, 64, 96)).sum().backward()
    unused = [name for name, each in model.named_parameters() if each.grad is None]
    assert not unused


def test_an_encoder_may_have_fewer_levels_and_other_channels() -> None:
    grey = ImageShape(1, 64, 64, (0.5,), (0.25,))
    model = UNet(encoder="resnet18", levels=3, width=4).build(grey, MASK | {})
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 4, 64, 64)
    assert not any("layer3" in name for name in model.state_dict()), "what is not used is left out"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"encoder": "resnet"}, "torchvision has no classification model 'resnet'"),
        ({"encoder": "vit_b_16"}, "vit_b_16"),
        ({"encoder": "resnet18", "levels": 7}, "resnet18 has 6 levels here"),
        ({"encoder": "resnet18", "weights": "BEST"}, "torchvision has no weights 'BEST' of resnet18"),
        ({"encoder": "resnet18", "freeze": "backbone"}, "would keep random weights"),
        ({"weights": "DEFAULT"}, "an encoder of its own has no pretrained weights"),
        ({"freeze": "backbone"}, "would keep random weights"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(fields: dict[str, str], said: str) -> None:
    with pytest.raises(Mistakes, match=said):
        UNet.model_validate(fields).check(image(64, 64), MASK)


@pytest.mark.slow
def test_the_encoder_begins_with_pretrained_weights_and_may_keep_them(tmp_path: Path) -> None:
    from torchvision.models import resnet18, resnet34

    torch.manual_seed(0)
    theirs = resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pt")
    torch.save(resnet34().state_dict(), tmp_path / "resnet34.pt")
    config = UNet(encoder="resnet18", weights=str(tmp_path / "resnet18.pt"), freeze="backbone", width=4)
    config.check(image(64, 64), MASK)
    model = config.build(image(64, 64), MASK)
    config.load_pretrained(model)
    state = model.state_dict()
    for name, value in theirs.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(state[f"trunk.backbone.{name}"], value), name
    config.begin_epoch(model, 1)
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert trained and not any(name.startswith("trunk.") for name in trained)
    with pytest.raises(UserError, match="these are not weights of resnet18"):
        config.model_copy(update={"weights": str(tmp_path / "resnet34.pt")}).load_pretrained(model)
