"""A training function written for Ray Tune: it knows nothing of tuner."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from ray import tune
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy


def train(config: dict[str, Any]) -> None:
    """Train a multilayer perceptron on scikit-learn's digits, and report each epoch with a checkpoint."""
    images, labels = load_digits(return_X_y=True)
    x_train, x_held_out, y_train, y_held_out = train_test_split(images / 16, labels, test_size=0.25, random_state=0)
    x, y = torch.tensor(x_train, dtype=torch.float32), torch.tensor(y_train)
    x_val, y_val = torch.tensor(x_held_out, dtype=torch.float32), torch.tensor(y_held_out)

    sizes = [64, *[config["width"]] * config["layers"]]
    hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    first = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder) / "state.pt")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epoch"] + 1

    for epoch in range(first, config["epochs"]):
        for batch in torch.randperm(len(x)).split(config["batch_size"]):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.inference_mode():
            output = model(x_val)
        accuracy = (output.argmax(dim=1) == y_val).double().mean().item()
        with tempfile.TemporaryDirectory() as folder:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, Path(folder) / "state.pt")
            tune.report(
                {"loss": cross_entropy(output, y_val).item(), "accuracy": accuracy},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )
