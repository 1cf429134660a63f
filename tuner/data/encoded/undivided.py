"""Validation and reading of datasets as they lie there: no set is split off."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_divided: ContextVar[bool] = ContextVar("_is_divided", default=True)


def sets_are_split_off() -> bool:
    """Whether the validation and the test set are split off the training images of a dataset that has none."""
    return _is_divided.get()


@contextmanager
def undivided() -> Iterator[None]:
    """Have datasets in the body the sets that their files say, and no other: all images of one without sets are one.

    They are not refused for having too few images to train on.
    """
    token = _is_divided.set(False)
    try:
        yield
    finally:
        _is_divided.reset(token)
