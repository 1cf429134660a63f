"""The classes of masks, and what stands for each of them in label pictures: as a user writes them, or in a file."""

import json
from pathlib import Path
from typing import Any

from tuner.data.encoded.class_names import check_texts
from tuner.data.encoded.masks.decoding import Code, Codes
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.interfaces import IGNORED

FILES = ("classes.json", "classes.txt")
"""The files in a folder of images and masks that name the classes."""
_LARGEST = 65535
_HINT = "[background, cat] for the values 0 and 1, {background: 0, cat: 7}, or {background: [0, 0, 0], cat: [0, 0, 99]}"

Classes = tuple[str, ...] | dict[str, Code]
"""The names of the classes, whose codes are 0, 1, ..., or the code of each."""


def as_classes(value: Any) -> Classes:
    """Check what somebody wrote.

    Raises:
        Mistakes: It is neither a list of different names nor a value, or a colour, for each name.
    """
    if isinstance(value, list | tuple):
        check_texts(value)
        for name in value:
            _check_name(name)
        if len(set(value)) < len(value):
            twice = next(name for name in value if list(value).count(name) > 1)
            raise Mistakes(Problem(f"{twice!r} is there twice", hint="each class has a name of its own"))
        return tuple(value)
    if isinstance(value, dict):
        return {_check_name(name): as_code(code, f"{name}: ") for name, code in value.items()}
    raise Mistakes(Problem(f"{value!r} does not say what the classes are", hint=_HINT))


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise Mistakes(Problem(f"{name!r} is no name of a class", hint=f"names come first: {_HINT}"))
    return name


def as_code(value: Any, where: str = "") -> Code:
    """Check what stands for a class.

    Args:
        value: What somebody wrote.
        where: What the message begins with.

    Raises:
        Mistakes: It is neither a value nor a colour.
    """
    if type(value) is int and 0 <= value <= _LARGEST:
        return value
    if isinstance(value, list | tuple) and len(value) == 3:
        red, green, blue = value
        if all(type(each) is int and 0 <= each <= 255 for each in value):
            return red, green, blue
    hint = f"a value from 0 to {_LARGEST}, or a colour [red, green, blue] of values from 0 to 255"
    raise Mistakes(Problem(f"{where}{value!r} is neither a value nor a colour", hint=hint))


def codes_of(classes: Classes, ignored: tuple[Code, ...]) -> Codes:
    """What the pixels of label pictures mean.

    Args:
        classes: The classes.
        ignored: The codes of pixels whose class is unknown. The default, `IGNORED` alone, gives way to a class.

    Raises:
        Mistakes: Codes are those of two classes, or values and colours, or there are not 2 to 255 classes.
    """
    codes = tuple(classes.values()) if isinstance(classes, dict) else tuple(range(len(classes)))
    if not 2 <= len(codes) <= IGNORED:
        message = "there is 1 class" if len(codes) == 1 else f"there are {len(codes)} classes"
        raise Mistakes(Problem(message, "classes", hint=f"allowed: 2 to {IGNORED}"))
    if len({isinstance(code, int) for code in codes}) > 1:
        hint = f"write the same for all: {_HINT}"
        raise Mistakes(Problem("some classes have values, and others colours", "classes", hint=hint))
    by_code: dict[Code, str] = {}
    for name, code in zip(classes, codes, strict=True):
        if code in by_code:
            hint = "each class has a value, or a colour, of its own"
            raise Mistakes(Problem(f"{by_code[code]} and {name} have the same code, {code}", "classes", hint=hint))
        by_code[code] = name
    kept = [code for code in ignored if isinstance(code, int) == isinstance(codes[0], int) and code not in by_code]
    if len(kept) < len(ignored) and ignored != (IGNORED,):
        code = next(code for code in ignored if code not in kept)
        what = f"is the code of {by_code[code]}" if code in by_code else "is of another sort than the classes' codes"
        raise Mistakes(Problem(f"{code} {what}", "ignore", hint="leave it out, or change the classes"))
    return Codes(codes, tuple(kept))


def classes_in(root: Path, file: str | None) -> Classes:
    """Read the classes of a folder from a file: JSON, a list of names or a code for each name; or a name a line.

    Args:
        root: The folder.
        file: The file; None for ``classes.json`` or ``classes.txt`` in the folder.

    Raises:
        Mistakes: There is no such file, or it cannot be read.
    """
    candidates = [Path(file)] if file else [root / name for name in FILES]
    path = next((each for each in candidates if each.is_file()), None)
    if path is None:
        unknown = f"the classes are unknown: {root} has no {' and no '.join(FILES)}"
        what = f"{escaped(file)} is not there" if file else unknown
        raise Mistakes(Problem(what, "classes", hint=f"write them: {_HINT}"))
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        value: Any = json.loads(text) if path.suffix.lower() == ".json" else lines
    except (OSError, ValueError) as error:
        raise Mistakes(Problem(f"{path} cannot be read: {error}", "classes", hint="a file in UTF-8")) from None
    try:
        return as_classes(value)
    except Mistakes as mistakes:
        problem = mistakes.problems[0]
        raise Mistakes(Problem(f"{path}: {problem.message}", "classes", hint=problem.hint)) from None
