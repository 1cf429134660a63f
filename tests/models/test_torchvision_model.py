"""Models of torchvision, fitted to the images and the task."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from tuner.errors import Mistakes, Problem
from tuner.interfaces import Batch, ImageShape, Output, WithAuxiliary
from tuner.models import TorchvisionModel
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.tasks import Classification
from tuner.train.trial_config import TrialConfig

TEN = {"": Output(10)}


def image(side: int, channels: int = 3) -> ImageShape:
    return ImageShape(channels, side, side, mean=(0.5,) * channels, std=(0.25,) * channels)


def refused(model: TorchvisionModel, shape: ImageShape) -> Problem:
    with pytest.raises(Mistakes) as error:
        model.check(shape, TEN)
    [problem] = error.value.problems
    return problem


def meta(model: TorchvisionModel, shape: ImageShape, outputs: dict[str, Output] = TEN) -> Any:
    """The model on the meta device, where a model of any size is built at once."""
    model.check(shape, outputs)
    with torch.device("meta"):
        return model.build(shape, outputs)


def main(returned: Any) -> Any:
    return returned.outputs if isinstance(returned, WithAuxiliary) else returned


def of_each_family() -> list[str]:
    """The shortest name of each of torchvision's modules."""
    found: dict[str, str] = {}
    for name in sorted(backbones.names(), key=len):
        found.setdefault(models.get_model_builder(name).__module__, name)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", of_each_family())
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_model_of_each_family_takes_images_of_any_channels_and_returns_the_outputs(name: str, channels: int) -> None:
    heads = {"digit": Output(7, 5, log_probabilities=True), "position": Output(2)}
    for mode in (True, False):
        images = torch.zeros(2, channels, 224, 224, device="meta")
        single = meta(TorchvisionModel(name=name), image(224, channels), {"": Output(7)}).train(mode)
        assert main(single(images)).shape == (2, 7)
        several = main(meta(TorchvisionModel(name=name), image(224, channels), heads).train(mode)(images))
        assert {head: tuple(output.shape) for head, output in several.items()} == {"digit": (2, 7), "position": (2, 2)}


def test_the_families_are_all_of_torchvision_s() -> None:
    assert len(of_each_family()) >= 16 and {"inception_v3", "googlenet", "alexnet"} <= {*of_each_family()}
    assert len(backbones.names()) >= 80


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_32"])
def test_it_is_torchvision_s_model_but_for_the_last_layer(name: str) -> None:
    torch.manual_seed(0)
    plain = image(224)
    theirs = models.get_model(name, weights=None).eval()
    last = backbones.classifier_of(theirs)[0]
    ours = TorchvisionModel(name=name).build(ImageShape(3, 224, 224, (0.0,) * 3, (1.0,) * 3), TEN).eval()
    theirs.set_submodule(last, nn.Identity())
    backbone = ours.get_submodule("trunk.backbone")
    backbone.load_state_dict(theirs.state_dict())
    images = torch.rand(1, 3, plain.height, plain.width)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), ours.get_submodule("head")(theirs(images)))


@pytest.mark.parametrize(
    ("name", "side", "message", "hint"),
    [
        ("inception_v3", 74, "inception_v3 cannot take images 3x74x74: ", "at least 75x75"),
        ("vit_b_16", 40, "vit_b_16 cannot take images 3x40x40: ", "multiple of its patches, 16 pixels"),
        ("maxvit_t", 32, "maxvit_t cannot take images 3x32x32: ", "multiples of 224"),
        ("alexnet", 32, "alexnet cannot take images 3x32x32: ", "at least 63x63"),
        ("resnet", 32, "torchvision has no classification model 'resnet'", "did you mean resnet"),
        ("fasterrcnn_resnet50_fpn", 32, "finds objects and has no other output", "use task: {kind: detection}"),
    ],
)
def test_what_the_model_cannot_be_is_refused(name: str, side: int, message: str, hint: str) -> None:
    problem = refused(TorchvisionModel(name=name), image(side))
    assert problem.key == "name" and message in problem.message and hint in problem.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "count", "weight"), [("inception_v3", 299, 1, 0.4), ("googlenet", 32, 2, 0.3)]
)
def test_auxiliary_outputs_are_those_of_training_and_have_a_weight(
    name: str, side: int, count: int, weight: float
) -> None:
    heads = {"digit": Output(7), "position": Output(2)}
    images = torch.zeros(2, 1, side, side, device="meta")
    for outputs, shapes in ((TEN, (2, 10)), (heads, {"digit": (2, 7), "position": (2, 2)})):
        module = meta(TorchvisionModel(name=name), image(side, 1), outputs)
        returned = module.train()(images)
        assert returned.weight == weight and len(returned.auxiliary) == count
        for each in (returned.outputs, *returned.auxiliary, module.eval()(images)):
            assert shapes == ({name: tuple(v.shape) for name, v in each.items()} if outputs is heads else each.shape)


@pytest.mark.slow
def test_the_layers_of_auxiliary_outputs_learn_and_are_no_part_of_the_backbone() -> None:
    torch.manual_seed(0)
    model = TorchvisionModel(name="googlenet")
    module = model.build(image(32), TEN).train()
    loss, outputs = Classification().training_loss(
        module, Batch(torch.rand(4, 3, 32, 32), {"label": torch.tensor([0, 1, 2, 3])})
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert isinstance(outputs, torch.Tensor) and outputs.shape == (4, 10)
    assert all(each.grad is not None for each in module.parameters())
    stages = model.stages_in(module)
    assert stages is not None
    heads = {name.partition(".")[0] for name, _ in module.named_parameters() if stages.depth_of(name) == len(stages)}
    assert heads == {"head", "auxiliary"}


@pytest.mark.slow
def test_auto_leaves_auxiliary_outputs_out_where_they_cannot_be_or_teach_nothing() -> None:
    small = meta(TorchvisionModel(name="inception_v3"), image(75)).train()  # its branch needs more
    assert small(torch.zeros(2, 3, 75, 75, device="meta")).shape == (2, 10)
    frozen = TorchvisionModel(name="googlenet", weights="DEFAULT", freeze="backbone")
    assert not any("auxiliary" in name for name in meta(frozen, image(64)).state_dict())
    without = meta(TorchvisionModel(name="googlenet", auxiliary=False), image(64)).train()
    assert without(torch.zeros(2, 3, 64, 64, device="meta")).shape == (2, 10)
    for name, side in (("inception_v3", 75), ("resnet18", 64)):
        problem = refused(TorchvisionModel(name=name, auxiliary=True), image(side))
        assert problem.key == "auxiliary" and f"{name} has no auxiliary outputs for images 3x{side}" in problem.message


def test_the_smallest_image_that_the_hint_names_is_accepted() -> None:
    TorchvisionModel(name="inception_v3").check(image(75), TEN)
    TorchvisionModel(name="alexnet").check(image(63), TEN)
    for side in (32, 48):
        TorchvisionModel(name="vit_b_16").check(image(side), TEN)


def test_a_vision_transformer_needs_a_square() -> None:
    problem = refused(TorchvisionModel(name="vit_b_16"), ImageShape(3, 32, 48, (0.5,) * 3, (0.5,) * 3))
    assert "3x32x48" in problem.message and "square" in problem.hint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet"])
def test_a_small_stem_keeps_the_size_of_the_image(name: str) -> None:
    def first_features(stem: Any, side: int) -> int:
        model = meta(TorchvisionModel(name=name, stem=stem), image(side))
        sizes: list[int] = []
        pooling = backbones._STEMS[type(model.trunk.backbone).__name__][1]
        model.trunk.backbone.get_submodule(pooling).register_forward_hook(
            lambda *given: sizes.append(len(given[2][0][0]))
        )
        model(torch.zeros(2, 3, side, side, device="meta"))
        return sizes[0]

    assert first_features("small", 32) == first_features("auto", 32) == 32
    assert first_features("auto", 64) == 64 and first_features("auto", 65) < 20
    assert first_features("original", 32) == 8


def test_a_model_without_such_a_stem_refuses_a_small_one() -> None:
    problem = refused(TorchvisionModel(name="mobilenet_v2", stem="small"), image(32))
    assert problem.key == "stem" and "ResNet" in problem.hint
    TorchvisionModel(name="mobilenet_v2").check(image(32), TEN)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
def test_a_new_stem_begins_with_outputs_of_the_same_size(channels: int) -> None:
    torch.manual_seed(0)

    def spread(count: int) -> float:
        model: Any = TorchvisionModel(name="vgg11").build_backbone(image(32, count))[0]
        return float(model.features[0](torch.randn(4, count, 32, 32)).std().detach())

    assert spread(channels) == pytest.approx(spread(3), rel=0.15)


@pytest.mark.parametrize(("name", "layers"), [("resnet18", 1), ("vgg11", 2), ("mobilenet_v2", 1), ("vit_b_32", 37)])
def test_dropout_is_where_the_model_has_it_or_before_the_output(name: str, layers: int) -> None:
    model = meta(TorchvisionModel(name=name, dropout=0.3), image(64))
    assert [each.p for each in model.modules() if isinstance(each, nn.Dropout)].count(0.3) == layers
    own = meta(TorchvisionModel(name="mobilenet_v2"), image(64))
    assert [each.p for each in own.modules() if isinstance(each, nn.Dropout)] == [0.2, 0.0]


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "swin_t"])
def test_drop_path_grows_to_its_value(name: str) -> None:
    model = meta(TorchvisionModel(name=name, drop_path=0.6), image(64))
    values = [each.p for each in model.modules() if isinstance(each, StochasticDepth)]
    assert values == sorted(values) and values[0] == 0 and values[-1] == pytest.approx(0.6, rel=0.1)


def test_drop_path_of_a_model_without_it_is_refused() -> None:
    problem = refused(TorchvisionModel(drop_path=0.1), image(64))
    assert problem.key == "drop_path" and problem.message == "resnet18 has no stochastic depth"
    assert "ConvNeXt" in problem.hint


@pytest.mark.parametrize("name", ["regnet_y_400mf", "inception_v3", "swin_t"])
def test_its_parameters_are_counted_without_memory_and_without_random_numbers(name: str) -> None:
    data = {"kind": "digits", "canvas": 96}
    trial = TrialConfig.model_validate({"data": data, "model": {"kind": "torchvision", "name": name}})
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    count = trial.count_parameters()
    assert torch.equal(torch.rand(1), wanted)
    assert count == sum(parameter.numel() for parameter in trial.build_model().parameters())


@pytest.mark.slow
def test_only_a_model_of_torchvision_s_imports_torchvision() -> None:
    code = """
import sys
from tuner.train.trial_config import TrialConfig
for model in ({"kind": "cnn"}, {"kind": "resnet_small"}, {"kind": "mlp"}, {"kind": "torchvision"}):
    TrialConfig.model_validate({"data": {"kind": "digits"}, "model": model}).count_parameters()
    print(model["kind"], "torchvision" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert ran.stdout.splitlines() == ["cnn False", "resnet_small False", "mlp False", "torchvision True"]
