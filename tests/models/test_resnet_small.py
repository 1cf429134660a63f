"""The residual network for small images."""

import pytest
import torch
from torch import nn

from tuner.errors import Mistakes
from tuner.interfaces import ImageShape, Output
from tuner.models import ResNetSmall

CIFAR = ImageShape(3, 32, 32, mean=(0.5,) * 3, std=(0.25,) * 3)
TEN = {"": Output(10)}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ResNetSmall(), 696_618),
        # The two shortcuts of the paper's ResNet-20 have no weights; with convolutions it has 2,752 more than 269,722.
        (ResNetSmall(width=16, blocks=3), 269_722 + 2_752),
        (ResNetSmall(width=64, stages=4), 11_173_962),  # the ResNet-18 that is usual on CIFAR
    ],
)
def test_its_fields_give_the_networks_of_the_papers(model: ResNetSmall, expected: int) -> None:
    assert count(model.build(CIFAR, TEN)) == expected


@pytest.mark.parametrize("stages", [1, 3, 4])
@pytest.mark.parametrize("blocks", [1, 2])
def test_its_number_of_layers_is_what_the_documentation_of_blocks_says(stages: int, blocks: int) -> None:
    model = ResNetSmall(width=2, stages=stages, blocks=blocks).build(CIFAR, TEN)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sum(getattr(layer, "kernel_size", ()) != (1, 1) for layer in layers) == 2 * stages * blocks + 2


def test_each_layer_learns_from_the_first_batch() -> None:
    torch.manual_seed(0)
    model = ResNetSmall(width=4, stages=2).build(CIFAR, TEN)
    loss = nn.functional.cross_entropy(model(torch.rand(16, 3, 32, 32)), torch.arange(16) % 10)
    loss.backward()  # type: ignore[no-untyped-call]
    assert [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()] == []


def test_each_stage_but_the_first_halves_the_image() -> None:
    model = ResNetSmall(width=4, stages=4, blocks=1).build(CIFAR, TEN).eval()
    shapes = []
    for stage in (1, 2, 3, 4):
        model.get_submodule(f"trunk.stage{stage}").register_forward_hook(lambda *given: shapes.append(given[2].shape))
    model(torch.rand(2, 3, 32, 32))
    assert [tuple(shape) for shape in shapes] == [(2, 4, 32, 32), (2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4)]


def test_training_images_skip_blocks_with_a_probability_that_grows_with_depth() -> None:
    torch.manual_seed(0)
    model = ResNetSmall(width=4, stages=2, drop_path=0.6).build(CIFAR, TEN)
    blocks = [model.get_submodule(f"trunk.stage{stage}.{number}") for stage in (1, 2) for number in (0, 1)]
    assert [block.drop_path for block in blocks] == pytest.approx([0, 0.2, 0.4, 0.6])
    last = blocks[-1]
    nn.init.ones_(last.norm2.weight)  # type: ignore[union-attr, arg-type]
    images = torch.rand(400, 8, 4, 4)
    after = last(images)
    skipped = (after == images).flatten(1).all(dim=1).float().mean()
    assert 0.5 < skipped < 0.7
    assert torch.equal(last.eval()(images), last(images)) and not torch.equal(last(images), images)


def test_the_memory_format_does_not_change_its_outputs() -> None:
    torch.manual_seed(0)
    model = ResNetSmall(width=8).build(CIFAR, TEN).eval()
    images = torch.rand(4, 3, 32, 32)
    outputs = model(images)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(images), outputs)


def test_an_image_too_small_for_its_stages_is_refused() -> None:
    image = ImageShape(1, 7, 28, mean=(0.5,), std=(0.5,))
    ResNetSmall().check(image, TEN)
    with pytest.raises(Mistakes, match="7x28: too small for 4 stages") as error:
        ResNetSmall(stages=4).check(image, TEN)
    assert error.value.problems[0].key == "stages" and "8x8" in error.value.problems[0].hint
