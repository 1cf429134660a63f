"""Validation of datasets without a look at what their annotations say of the images."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_checked: ContextVar[bool] = ContextVar("_is_checked", default=True)


def annotations_are_checked() -> bool:
    """Whether a dataset is refused for masks or boxes that are broken."""
    return _is_checked.get()


@contextmanager
def unchecked() -> Iterator[None]:
    """Validate datasets in the body without checking masks and boxes: broken ones are no mistake then."""
    token = _is_checked.set(False)
    try:
        yield
    finally:
        _is_checked.reset(token)
