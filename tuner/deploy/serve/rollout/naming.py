"""The models that a user names, and the names that they have in the service."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tuner.errors import Problem, UserError
from tuner.tracking.checkpoints import FORMS, needs_store
from tuner.tracking.registered.versions import CHAMPION

_NAMED = re.compile(r"(?P<name>[\w.-]{1,100})=(?P<model>.+)")
_ODD = re.compile(r"[^\w.-]+")
_HOW = "NAME=MODEL gives a model the name that clients use, such as cats=runs/checkpoint"


@dataclass(frozen=True)
class Wanted:
    """A model that is to be served.

    Args:
        name: Its name in the service: a part of its URL.
        model: The MODEL, as the user wrote it.
    """

    name: str
    model: str

    @property
    def followed(self) -> tuple[str, str] | None:
        """The registered model and the alias that it means, if it means one: that may move to another version."""
        text = self.model.removeprefix("models:/")
        if not needs_store(self.model) or "/" in text:
            return None
        name, _, alias = text.partition("@")
        return name, alias or CHAMPION


def wanted(arguments: Sequence[str]) -> list[Wanted]:
    """Read the arguments MODEL and NAME=MODEL.

    Raises:
        UserError: Two have the same name.
    """
    found = [_wanted(each) for each in arguments]
    counts = Counter(each.name for each in found)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(Problem(f"two models would be named {twice[0]!r}", "MODEL", hint=_HOW))
    return found


def _wanted(argument: str) -> Wanted:
    if named := _NAMED.fullmatch(argument):
        return Wanted(named["name"], named["model"])
    name = _name_of(argument)
    if not name:
        raise UserError(Problem(f"{argument!r} says no name", "MODEL", hint=f"{FORMS}; {_HOW}"))
    return Wanted(name, argument)


def _name_of(model: str) -> str:
    """The name of a model that the user gave none: that of the registered model, of the folder, or the id."""
    if needs_store(model):
        text = model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    else:
        text = PurePath(model.partition("://")[2] or model).name
    return _ODD.sub("-", text).strip("-")


def version_of(address: str) -> str:
    """What identifies a version to clients: its number, the id of its run, or the name of its folder."""
    return PurePath(address).name or address
