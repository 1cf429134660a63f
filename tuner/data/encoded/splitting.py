"""The training, validation and test set of encoded images: those that the data have, and those that are split off."""

import numpy as np

from tuner.data.encoded.listing import Items, Listing
from tuner.data.splits import Folds, held_out
from tuner.error_text import escaped
from tuner.errors import Problem
from tuner.formatting import counted


def sets_of(
    listing: Listing, validation: float | str, test: float | str | None, seed: int, folds: Folds | None
) -> dict[str, Items]:
    """The items of each set; those of the training set in random order, so that its first ones are of all classes.

    Args:
        listing: What there is.
        validation: Share of each class that is the validation set if the data have none.
        test: Share of each class that is the test set if the data have none.
        seed: Seed of the split.
        folds: The folds of which one is the validation set instead.
    """
    train, testing = without_test(listing, test)
    rng = np.random.default_rng((seed, 1))
    if "validation" in listing.splits:
        validating = listing.splits["validation"]
    else:
        if folds is not None:
            remaining, chosen = folds.split(train.labels, seed, train.groups)
        else:
            assert isinstance(validation, float)
            remaining, chosen = held_out(train.labels, validation, rng, train.groups)
        train, validating = train.chosen(remaining), train.chosen(chosen)
    return {"train": train.chosen(rng.permutation(len(train))), "validation": validating, "test": testing}


def without_test(listing: Listing, share: float | str | None) -> tuple[Items, Items]:
    """The training images and the test images. The test set does not depend on a seed: it belongs to the data."""
    train = listing.splits["train"]
    if "test" in listing.splits:
        return train, listing.splits["test"]
    assert isinstance(share, float)
    remaining, chosen = held_out(train.labels, share, np.random.default_rng(0), train.groups)
    return train.chosen(remaining), train.chosen(chosen)


def why_not_named(listing: Listing, named: dict[str, str]) -> Problem | None:
    """Why a set that the user has named is none of the data's; None if all are.

    Args:
        listing: What there is.
        named: What the user wrote for ``validation`` and ``test``.
    """
    hint = "name images that are in no other set, or write a share of the training images, such as 0.1"
    if len(set(named.values())) < len(named):
        return Problem(f"{named['test']!r} cannot be the validation and the test set", "test", hint=hint)
    for split, name in named.items():
        if split not in listing.splits:
            return Problem(f"{name!r} gives no image to the {split} set", split, hint=hint)
    return None


def why_not_complete(splits: dict[str, Items], classes: tuple[str, ...], rest: str) -> Problem | None:
    """Why the training images do not show all classes, of which there must be two; None if they do.

    Args:
        splits: The items of each set that the data have.
        classes: The names of the classes.
        rest: What the images are that the user may leave out, such as ``these rows``.
    """
    if len(classes) < 2:
        what = f"has one class, {escaped(classes[0])}" if classes else "has no labels"
        return Problem(what, "labels", hint="at least two classes; an empty label is no class")
    lacking = splits["train"].counts(len(classes)) == 0
    for split, items in splits.items():
        if (unseen := np.flatnonzero(lacking & (items.counts(len(classes)) > 0))).size:
            names = ", ".join(escaped(classes[label]) for label in unseen[:10])
            hint = f"a model cannot learn them: add training images, or leave out {rest}"
            return Problem(f"{split} has classes that train lacks: {names}", "labels", hint=hint)
    return None


def why_not_split(listing: Listing, folds: Folds | None) -> Problem | None:
    """Why the missing sets cannot be split off; None if they can. The problem has a key if that is not the data."""
    train = listing.splits["train"]
    given = {"validation", "test"} & set(listing.splits)
    if folds is not None and "validation" in given:
        hint = "leave folds out, or add its images to the training images"
        return Problem("the data have a validation set, and folds would be another one", "folds", hint=hint)
    needed = 3 - len(given)
    counts = train.counts(len(listing.classes))
    few = [f"{escaped(listing.classes[label])} ({counts[label]})" for label in np.flatnonzero(counts < needed)]
    if few:
        message = f"{counted(len(few), 'class has', 'classes have')} fewer images than sets: {', '.join(few[:10])}"
        hint = f"a class needs {needed} images, one for each set that is split off and one to learn from"
        return Problem(message, hint=hint)
    units, unit = (len(train), "image") if train.groups is None else (len(np.unique(train.groups)), "group")
    sets = needed if folds is None else folds.k + needed - 2
    if units < sets:
        text = "sets" if folds is None else "folds and sets"
        return Problem(f"{counted(units, unit)} cannot be split into {sets} {text}", hint=f"at least {sets} {unit}s")
    return None


def why_not_learnable(sets: dict[str, Items], classes: tuple[str, ...]) -> Problem | None:
    """Why a class cannot be learnt: all of its images were split off; None if every class can."""
    lacking = np.flatnonzero(sets["train"].counts(len(classes)) == 0)
    if not len(lacking):
        return None
    names = ", ".join(escaped(classes[label]) for label in lacking[:10])
    message = f"no training image is left of {counted(len(lacking), 'class', 'classes')}: {names}"
    of_what = "images" if sets["train"].groups is None else "groups"
    return Problem(message, hint=f"they have too few {of_what}: add images, split by hand, or leave the class out")
