"""The classes of boxes, as a user names them."""

from typing import Any

from tuner.errors import Mistakes, Problem


def in_a_list(classes: Any) -> Any:
    """What a user wrote for classes, unless it is one text.

    Raises:
        Mistakes: It is one text.
    """
    if isinstance(classes, str):
        raise Mistakes(Problem(f"{classes} is no list", hint=f"write [{classes}]"))
    return classes


def different(classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Check the names of classes.

    Raises:
        Mistakes: There are none, or a name is there twice.
    """
    if classes is None:
        return None
    if not classes:
        raise Mistakes(Problem("it names no class", hint="name at least one, or leave it out"))
    if twice := [name for name in dict.fromkeys(classes) if classes.count(name) > 1]:
        raise Mistakes(Problem(f"{twice[0]!r} is there twice", hint="each class has a name of its own"))
    return classes
