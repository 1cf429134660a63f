"""The rows that the last layers of a detector have for each class, taken from those of a detector of other classes."""

from collections.abc import Sequence

from torch import Tensor

_BACKGROUND, _NO_CLASS = "__background__", "N/A"
"""What torchvision calls the labels of a detector's weights that are no class."""


def labels_of(classes: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """The label that each class has in weights; None if one has none, or if the classes have no names.

    Args:
        classes: The names of the classes.
        known: The names of the weights' classes, by label.
    """
    labels = {_plain(name): label for label, name in enumerate(known) if name not in (_BACKGROUND, _NO_CLASS)}
    if not classes or unknown(classes, known):
        return None
    return [labels[_plain(name)] for name in classes]


def unknown(classes: Sequence[str], known: Sequence[str]) -> list[str]:
    """The classes that weights do not have."""
    names = {_plain(name) for name in known} - {_plain(_NO_CLASS)}
    return [name for name in classes if _plain(name) not in names]


def rows_of(weights: Tensor, labels: Sequence[int], count: int, *, by_class: bool) -> Tensor:
    """Take the rows of labels out of a weight or a bias.

    Args:
        weights: The rows of all labels, (rows, ...).
        labels: The labels to take, in the order of the result.
        count: Number of all labels.
        by_class: Whether the rows of a label lie together. Else each anchor has one row of every label.

    Returns:
        Their rows, (rows * len(labels) / count, ...).
    """
    rest = weights.shape[1:]
    if by_class:
        return weights.reshape(count, -1, *rest)[list(labels)].flatten(0, 1)
    return weights.reshape(-1, count, *rest)[:, list(labels)].flatten(0, 1)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")
