"""Garbage collection while a process of ours starts.

Torch, Ray and MLflow make very many objects as they are imported, which live as long as the process does. Python's
collector goes through them again and again meanwhile.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

_OBJECTS = 1_000_000
"""New objects after which garbage is collected in any case: more than the imports make."""

_before: list[tuple[int, int, int]] = []
"""Python's thresholds of collection, while it is postponed."""


def postpone_collection() -> None:
    """Collect no garbage until `resume_collection` is called or a million objects have been made."""
    if not _before:
        _before.append(gc.get_threshold())
        gc.set_threshold(_OBJECTS)
        gc.callbacks.append(_resume)


def resume_collection() -> None:
    """Collect garbage as Python does, and never again go through what there is by now; if it was postponed."""
    if _before:
        gc.callbacks.remove(_resume)
        gc.freeze()
        gc.set_threshold(*_before.pop())


@contextlib.contextmanager
def collection_postponed() -> Iterator[None]:
    """Collect no garbage while the body imports what the process needs; it is ours alone, and at its start."""
    postpone_collection()
    try:
        yield
    finally:
        resume_collection()


def _resume(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop":
        resume_collection()
