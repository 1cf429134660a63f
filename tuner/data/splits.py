"""How images are split into sets in which the classes have the same shares."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tuner.config import Config
from tuner.errors import Mistakes, Problem

Array = np.ndarray[Any, np.dtype[Any]]


class Folds(Config):
    """Cross-validation: the images that are not in the test set are split into folds; one is the validation set.

    The folds are the same in all trials: those that differ in `fold` alone share no validation image.
    """

    k: int = Field(5, ge=2, le=1000)
    """Number of folds."""
    fold: int = Field(1, ge=1)
    """The fold that is the validation set, from 1 to k; `data.folds.fold: {grid: [1, 2, 3, 4, 5]}` tries each."""

    @model_validator(mode="after")
    def _exists(self) -> "Folds":
        if self.fold > self.k:
            raise Mistakes(Problem(f"{self.fold} is no fold", "fold", hint=f"folds are numbered from 1 to k: {self.k}"))
        return self

    def size(self, count: int) -> int:
        """Number of images of the validation set if there are `count` in all folds, and no groups."""
        return len(range(self.fold - 1, count, self.k))

    def split(self, labels: Array, seed: int, groups: Array | None = None) -> tuple[Array, Array]:
        """Split samples into those of the other folds and those of this fold.

        Args:
            labels: Classes, int64 (N,), or 0 or 1 for each class (N, classes).
            seed: Seed of the folds.
            groups: Number of each one's group, int64 (N,): the samples of a group are in one fold.

        Returns:
            The indices of both, each in ascending order.
        """
        rng = np.random.default_rng((seed, 3))
        strata = strata_of(labels)
        if groups is not None:
            folds = _Groups(strata, groups).assigned(np.full(self.k, 1 / self.k), rng)
        else:
            shuffled = rng.permutation(len(strata))
            order = shuffled[np.argsort(strata[shuffled], kind="stable")]
            folds = np.empty(len(strata), dtype=np.int64)
            folds[order] = np.arange(len(strata)) % self.k
        return np.flatnonzero(folds != self.fold - 1), np.flatnonzero(folds == self.fold - 1)


def stratified(labels: Tensor, validation: int, seed: int, folds: Folds | None = None) -> tuple[Tensor, int]:
    """Split samples into a training and a validation set in which the classes have the same shares.

    Args:
        labels: Classes, int64 (N,).
        validation: Number of samples of the validation set.
        seed: Seed of the split.
        folds: The folds of which one is the validation set instead.

    Returns:
        The indices (N,) of the samples, those of the training set first, and the size of the training set.
    """
    if folds is not None:
        train, held = folds.split(labels.numpy(), seed)
        train = np.random.default_rng((seed, 4)).permutation(train)  # the first ones, which limit keeps, of all classes
    else:
        from sklearn.model_selection import train_test_split

        train, held = train_test_split(
            np.arange(len(labels)), test_size=validation, stratify=labels.numpy(), random_state=seed
        )
    return torch.from_numpy(np.concatenate([train, held])), len(train)


def held_out(labels: Array, share: float, rng: np.random.Generator, groups: Array | None = None) -> tuple[Array, Array]:
    """Split off a share of each class, at least one sample, and leave at least one; or whole groups.

    Args:
        labels: Classes, int64 (N,), or 0 or 1 for each class (N, classes).
        share: Share of each class that is split off.
        rng: Generator that chooses.
        groups: Number of each one's group, int64 (N,): all samples of a group are split off, or none.

    Returns:
        The indices of the samples that remain, and of those that are split off, each in ascending order.
    """
    strata = strata_of(labels)
    if groups is not None:
        is_held_out = _Groups(strata, groups).assigned(np.array([1 - share, share]), rng) == 1
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    is_held_out = np.zeros(len(strata), dtype=bool)
    _, counts = np.unique(strata, return_counts=True)
    for of_class in np.split(np.argsort(strata, kind="stable"), np.cumsum(counts)[:-1]):
        members = rng.permutation(of_class)
        is_held_out[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def strata_of(labels: Array) -> Array:
    """The class by which each sample is stratified, int64 (N,): its rarest one if it has several, -1 if it has none."""
    if labels.ndim == 1:
        return labels
    by_count = np.argsort(labels.sum(axis=0), kind="stable")
    positive = labels[:, by_count] > 0
    return np.where(positive.any(axis=1), by_count[positive.argmax(axis=1)], -1)


def balanced(labels: Tensor) -> Tensor:
    """How likely samples are drawn so that all classes are as frequent, float64 (N,): a sample as its rarest class.

    Args:
        labels: Classes, int64 (N,), or 0 or 1 for each class (N, classes).
    """
    _, strata, counts = np.unique(strata_of(labels.cpu().numpy()), return_inverse=True, return_counts=True)
    return torch.from_numpy(1 / counts[strata])


@dataclass(frozen=True)
class _Groups:
    """Samples in groups that stay together.

    Args:
        strata: The class of each sample, int64 (N,).
        groups: The number of each one's group, int64 (N,).
    """

    strata: Array
    groups: Array

    def assigned(self, shares: Array, rng: np.random.Generator) -> Array:
        """Assign each sample to one of the sets with these shares of the samples, so that each has some of each class.

        One group after the other, the largest first, goes to the set that comes nearest to its shares of the group's
        classes with it. A group with a class that no other group has goes to the largest set, if there is one.
        """
        _, strata = np.unique(self.strata, return_inverse=True)
        _, groups = np.unique(self.groups, return_inverse=True)
        members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
        wanted = shares[:, None] * np.bincount(strata)[None]
        filled = np.zeros_like(wanted)
        of_group = np.empty(len(members), dtype=np.int64)
        in_class = [np.unique(strata[each], return_counts=True) for each in members]
        groups_of_class = np.bincount(np.concatenate([classes for classes, _ in in_class]))
        sizes = np.array([len(each) for each in members])
        shuffled = rng.permutation(len(members))
        for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            classes, counts = in_class[group]
            lack = wanted[:, classes] - filled[:, classes]
            cost = (counts * (counts - 2 * lack) / wanted[:, classes]).sum(axis=1)
            if (groups_of_class[classes] == 1).any() and shares.max() > shares.min():
                cost = -shares
            chosen = int(cost.argmin())
            filled[chosen, classes] += counts
            of_group[group] = chosen
        for empty in np.flatnonzero(~np.isin(np.arange(len(shares)), of_group)):  # its share is less than any group
            of_set = np.bincount(of_group, minlength=len(shares))
            spare = np.flatnonzero(of_set[of_group] > 1)
            if len(spare):
                of_group[spare[sizes[spare].argmin()]] = empty
        assigned: Array = of_group[groups]
        return assigned
