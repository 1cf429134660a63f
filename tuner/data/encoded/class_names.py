"""The names of classes, as a user writes them."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from tuner.data.encoded.dataset import Name
from tuner.errors import Mistakes, Problem


def check_texts(names: Iterable[Any]) -> None:
    """Check that names of classes are texts.

    Raises:
        Mistakes: One is something else: YAML reads true as a truth value, and 7 as a number.
    """
    for name in names:
        if name is None or isinstance(name, bool | int | float):
            text = json.dumps(name)
            raise Mistakes(Problem(f"{text} is no name of a class", hint=f'a name is a text: in quotes, "{text}"'))
        if not isinstance(name, str):
            raise Mistakes(Problem(f"{name!r} is no name of a class", hint="a name is a text"))


def _in_a_list(classes: Any) -> Any:
    if isinstance(classes, str):
        raise Mistakes(Problem(f"{classes} is no list", hint=f"write [{classes}]"))
    if isinstance(classes, list | tuple):
        check_texts(classes)
    return classes


def _different(classes: tuple[str, ...]) -> tuple[str, ...]:
    if not classes:
        raise Mistakes(Problem("it names no class", hint="name at least one, or leave it out"))
    if twice := [name for name in dict.fromkeys(classes) if classes.count(name) > 1]:
        raise Mistakes(Problem(f"{twice[0]!r} is there twice", hint="each class has a name of its own"))
    return classes


ClassNames = Annotated[tuple[Name, ...], BeforeValidator(_in_a_list), AfterValidator(_different)]
"""Different names of at least one class, in their order. Another value raises Mistakes."""
