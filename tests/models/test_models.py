"""What is particular to one model. What every model must do stands in test_contracts.py."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from tuner.data import MNIST
from tuner.errors import Mistakes
from tuner.interfaces import ImageShape, Output
from tuner.models import CNN, MultitaskCNN
from tuner.tasks import Classification, Multitask
from tuner.tasks.losses import NLL

GREY28 = ImageShape(1, 28, 28, mean=(0.1307,), std=(0.3081,))
GREY8 = ImageShape(1, 8, 8, mean=(0.0,), std=(1.0,))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_small_cnn_on_mnist_has_421_642_parameters() -> None:
    data = MNIST()
    assert count(CNN().build(data.image, Classification().outputs(data.targets))) == 421_642


def test_the_multitask_cnn_with_its_two_default_heads_has_453_012_parameters() -> None:
    data = MNIST()
    assert count(MultitaskCNN().build(data.image, Multitask().outputs(data.targets))) == 453_012


def test_widths_hidden_size_and_dropout_are_fields() -> None:
    model = CNN(width1=3, width2=5, hidden=7, dropout=0.4).build(GREY8, {"": Output(10)})
    assert count(model) == (9 * 3 + 3) + (9 * 3 * 5 + 5) + (5 * 2 * 2 * 7 + 7) + (7 * 10 + 10)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.4]


def test_the_task_s_hidden_width_goes_before_the_model_s() -> None:
    sizes = {
        hidden: count(CNN(hidden=7).build(GREY8, {"": Output(10, hidden)})) - count_of_trunk()
        for hidden in (None, 0, 3)
    }
    assert sizes == {None: (256 * 7 + 7) + (7 * 10 + 10), 0: 256 * 10 + 10, 3: (256 * 3 + 3) + (3 * 10 + 10)}


def count_of_trunk() -> int:
    return count(CNN().build_trunk(GREY8))


def textbook(image: ImageShape) -> nn.Sequential:
    """The same network as a textbook writes it: each ReLU before its pooling."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(64 * (image.height // 4) * (image.width // 4), 128),
            relu=nn.ReLU(),
            output=nn.Linear(128, 10),
        )
    )


@pytest.mark.parametrize("side", [28, 13])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_cnn_is_the_textbook_network(side: int, channels_last: bool) -> None:
    """Same function and same gradients, though ours pools before the ReLU."""
    torch.manual_seed(0)
    image = ImageShape(1, side, side, mean=(0.1,), std=(0.5,))
    ours, theirs = CNN().build(image, {"": Output(10)}), textbook(image)
    parameters = [p.detach().clone() for p in ours.parameters()]
    for parameter, value in zip(theirs.parameters(), parameters, strict=True):
        parameter.data.copy_(value)
    if channels_last:
        ours = ours.to(memory_format=torch.channels_last)
    images = torch.rand(16, 1, side, side)
    labels = torch.randint(10, (16,))
    given = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    outputs = ours(given), theirs((images - 0.1) / 0.5)
    torch.testing.assert_close(*outputs)
    for output in outputs:
        nn.functional.cross_entropy(output, labels).backward()  # type: ignore[no-untyped-call]
    for mine, textbook_s in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, textbook_s.grad)


def test_the_model_normalizes_each_channel_itself() -> None:
    torch.manual_seed(0)
    raw = ImageShape(2, 8, 8, mean=(0.0, 0.0), std=(1.0, 1.0))
    scaled = ImageShape(2, 8, 8, mean=(0.2, 0.6), std=(0.5, 0.25))
    plain, normalizing = CNN().build(raw, {"": Output(3)}), CNN().build(scaled, {"": Output(3)})
    plain.load_state_dict(normalizing.state_dict() | {n: v for n, v in plain.state_dict().items() if "normalize" in n})
    images = torch.rand(4, 2, 8, 8)
    by_hand = (images - torch.tensor([0.2, 0.6]).view(2, 1, 1)) / torch.tensor([0.5, 0.25]).view(2, 1, 1)
    torch.testing.assert_close(normalizing(images), plain(by_hand))


def test_dropout_drops_in_training_alone() -> None:
    torch.manual_seed(0)
    model = CNN(dropout=0.5).build(GREY8, {"": Output(10)})
    images = torch.rand(8, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_each_head_learns_from_the_same_trunk_and_from_nothing_else() -> None:
    torch.manual_seed(0)
    heads = {"digit": Output(10, 16, log_probabilities=True), "position": Output(2, 0)}
    model = MultitaskCNN().build(GREY8, heads)
    outputs: dict[str, Tensor] = model(torch.rand(8, 1, 8, 8))
    outputs["position"].square().sum().backward()  # type: ignore[no-untyped-call]
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {
        *(f"trunk.conv{i}.{what}" for i in (1, 2) for what in ("weight", "bias")),
        "heads.position_head.output.weight",
        "heads.position_head.output.bias",
    }


def test_a_model_of_one_output_refuses_two_heads_and_says_which_model_to_take() -> None:
    with pytest.raises(Mistakes, match="cnn has one output, but the task has the heads digit, aux") as error:
        CNN().check(GREY28, {"digit": Output(10), "aux": Output(10)})
    assert "multitask_cnn" in error.value.problems[0].hint


def test_a_model_of_named_heads_refuses_an_output_without_a_name() -> None:
    with pytest.raises(Mistakes, match="named heads") as error:
        MultitaskCNN().check(GREY28, {"": Output(10)})
    assert "kind: cnn" in error.value.problems[0].hint


@pytest.mark.parametrize("model", [CNN(), MultitaskCNN()])
def test_an_image_of_which_pooling_leaves_nothing_is_refused(model: CNN | MultitaskCNN) -> None:
    with pytest.raises(Mistakes, match="3x28: too small for two poolings"):
        model.check(ImageShape(1, 3, 28, (0.0,), (1.0,)), {"digit": Output(10)})


def test_nll_gets_log_probabilities_from_the_model() -> None:
    asked = Classification(loss=NLL()).outputs(MNIST().targets)
    output = CNN().build(GREY28, asked)(torch.rand(4, 1, 28, 28))
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(4))
