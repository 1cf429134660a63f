"""How code of the user's own is named: ``pkg.module:name``."""

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, Field

from tuner.errors import Mistakes, Problem

_FORM = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _checked(text: str) -> str:
    if not re.match(_FORM, text) or text.endswith("\n") or ".py:" in text:
        raise Mistakes(Problem(f"{text!r} is no module and a name in it", hint=_what_to_write(text)))
    return text


TargetName = Annotated[str, AfterValidator(_checked), Field(json_schema_extra={"pattern": _FORM})]
"""A module and a name in it, as ``pkg.module:name``."""


def _what_to_write(text: str) -> str:
    """What somebody who wrote this should write: they gave a file, a path, or a name with a dot."""
    plain = text.strip().removesuffix("()")
    if ":" in plain:
        module, _, name = plain.partition(":")
    elif "." in plain and not plain.endswith(".py"):
        module, _, name = plain.rpartition(".")
    else:
        module, name = plain, ""
    name = name.strip(": ")
    path = PurePath(module.strip().replace("\\", "/").removesuffix(".py"))
    is_elsewhere = path.is_absolute() or ".." in path.parts or "~" in path.parts
    module = path.name if is_elsewhere else ".".join(path.parts)
    if not module:
        return f"the module is missing: write FILE:{name or 'NAME'}, without .py, for a FILE.py beside this file"
    wrong = next((part for part in module.split(".") if not part.isidentifier()), None)
    if wrong is not None:
        sound = re.sub(r"^(?=[0-9])", "_", re.sub(r"\W", "_", wrong))
        return f"{wrong!r} is no name of a module, which has letters, digits and '_': rename it, such as to {sound}"
    if not name:
        return f"the name of the function or class is missing: write {module}:NAME, such as {module}:train"
    if not name.isidentifier():
        return f"{name!r} is no name at the top of a module: write {module}:NAME, such as {module}:train"
    where = f", and put {module}.py beside this file" if is_elsewhere else ""
    return f"write {module}:{name}{where}"
