"""A textbook training loop: the baseline of other benchmarks.

A small CNN on torchvision's MNIST, a transform per sample, a DataLoader, SGD, accuracy on 5,000 held-out images after
every epoch. It is neither optimised nor slowed down. The network equals tuner's `kind: cnn` (421,642 parameters), and
so does the split: both train and validate on the same images.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

_CPU = torch.device("cpu")

Report = Callable[[dict[str, float], nn.Module], None]
"""Takes the metrics of an epoch and the model after it."""


def load(root: Path, limit: int | None = None) -> tuple[Subset[Any], Subset[Any]]:
    """Return the training set (its first `limit` images) and the validation set of 5,000, stratified by class."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    mnist = datasets.MNIST(root, train=True, transform=transform)
    train, validation = train_test_split(
        range(len(mnist)), test_size=5000, stratify=mnist.targets.numpy(), random_state=0
    )
    return Subset(mnist, train[:limit]), Subset(mnist, validation)


def build_model() -> nn.Module:
    """Return a network of two convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def train(
    train_set: Dataset[Any],
    validation_set: Dataset[Any],
    report: Report,
    *,
    lr: float,
    momentum: float,
    epochs: int,
    seed: int = 0,
    device: torch.device = _CPU,
    workers: int = 0,
    build: Callable[[], nn.Module] = build_model,
    batch_size: int = 64,
) -> None:
    """Train a model on a device, calling `report` after every epoch; `workers` processes read the images."""
    torch.manual_seed(seed)
    train_loader = DataLoader(train_set, batch_size=batch_size, shuffle=True, num_workers=workers)
    validation_loader = DataLoader(validation_set, batch_size=500, num_workers=workers)
    model = build().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for _ in range(epochs):
        started = time.perf_counter()
        model.train()
        total, count = 0.0, 0
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(images)
            count += len(images)
        trained = time.perf_counter() - started
        metrics = {
            "train_loss": total / count,
            "val_accuracy": accuracy(model, validation_loader),
            "images_per_second": count / trained,
            "epoch_seconds": time.perf_counter() - started,
        }
        report(metrics, model)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[Any]) -> float:
    """Return the share of images that the model classifies correctly."""
    model.eval()
    device = next(model.parameters()).device
    right = total = 0
    for images, labels in loader:
        right += int((model(images.to(device)).argmax(dim=1) == labels.to(device)).sum())
        total += len(labels)
    return right / total
