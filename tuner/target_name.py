"""Names of the user's code: ``pkg.module:name``."""

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, Field

from tuner.errors import Mistakes, Problem

_FORM = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _checked(text: str) -> str:
    if not re.match(_FORM, text) or text.endswith("\n") or ".py:" in text:
        raise Mistakes(Problem(f"{text!r} is not of the form MODULE:NAME", hint=_suggestion(text)))
    return text


TargetName = Annotated[str, AfterValidator(_checked), Field(json_schema_extra={"pattern": _FORM})]
"""A module and a name in it, as ``pkg.module:name``."""


def _suggestion(text: str) -> str:
    """A hint for somebody who wrote a file, a path, or a name with a dot instead of ``MODULE:NAME``."""
    text = text.strip().removesuffix("()")
    if ":" in text:
        module, _, name = text.partition(":")
    elif "." in text and not text.endswith(".py"):
        module, _, name = text.rpartition(".")
    else:
        module, name = text, ""
    name = name.strip(": ")
    path = PurePath(module.strip().replace("\\", "/").removesuffix(".py"))
    is_elsewhere = path.is_absolute() or ".." in path.parts or "~" in path.parts
    module = path.name if is_elsewhere else ".".join(path.parts)
    if not module:
        return f"the module is missing: write FILE:{name or 'NAME'}, without .py, for a FILE.py beside this file"
    invalid = next((each for each in module.split(".") if not each.isidentifier()), None)
    if invalid is not None:
        valid = re.sub(r"^(?=[0-9])", "_", re.sub(r"\W", "_", invalid))
        return f"{invalid!r} is not a module's name (letters, digits and '_'): rename it, such as to {valid}"
    if not name:
        return f"the name of the function or class is missing: write {module}:NAME, such as {module}:train"
    if not name.isidentifier():
        return f"{name!r} is not the name of a function or class: write {module}:NAME, such as {module}:train"
    where = f", and put {module}.py beside this file" if is_elsewhere else ""
    return f"write {module}:{name}{where}"
