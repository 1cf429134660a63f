"""The multilayer perceptron."""

import pytest
from torch import nn

from tuner.interfaces import ImageShape, Output
from tuner.models import MLP

GREY28 = ImageShape(1, 28, 28, mean=(0.5,), std=(0.5,))


def built(model: MLP) -> nn.Module:
    return model.build(GREY28, {"": Output(10)})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (MLP(), 269_322),
        (MLP(layers=0), 784 * 10 + 10),
        (MLP(layers=1, width=5), 784 * 5 + 5 + 5 * 10 + 10),
        (MLP(layers=3, width=5), 784 * 5 + 5 + 2 * 30 + 5 * 10 + 10),
    ],
)
def test_layers_and_width_are_fields(model: MLP, expected: int) -> None:
    assert sum(parameter.numel() for parameter in built(model).parameters()) == expected


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_dropout_follows_each_hidden_layer(layers: int) -> None:
    kinds = [
        type(module).__name__
        for module in built(MLP(layers=layers, dropout=0.3)).modules()
        if isinstance(module, nn.Linear | nn.Dropout | nn.ReLU)
    ]
    assert kinds == ["Linear", "ReLU", "Dropout"] * layers + (["Dropout"] if not layers else []) + ["Linear"]
