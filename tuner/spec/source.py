"""A YAML file with the place of every key in it, and overrides from the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tuner.config_keys import Key, dotted, nearest, path_of, put
from tuner.errors import Problem, UserError
from tuner.storage.yaml import parse_yaml, parsed


@dataclass
class Source:
    """What the user wrote, and where.

    Args:
        path: The YAML file.
        data: Its content, with the overrides merged in.
        places: Line and column, counted from 1, of each key.
        overridden: The keys that the command line set.
    """

    path: Path
    data: dict[str, Any]
    places: dict[Key, tuple[int, int]] = field(default_factory=dict)
    overridden: set[Key] = field(default_factory=set)

    def where(self, key: Key) -> str:
        """``file:line:column`` of a key, or of the nearest key above it that is in the file."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.places:
                line, column = self.places[key[:end]]
                return f"{self.path}:{line}:{column}"
            if any(key[:end] == set_key[:end] for set_key in self.overridden):
                return "command line"
        return str(self.path)

    def override(self, key: Key, value: Any) -> None:
        """Set `value` at `key`, as the command line says.

        Raises:
            UserError: The way leads through a value that has no keys.
        """
        put(self.data, key, value)
        self.overridden.add(key)
        # What the file said there and below it holds no longer.
        self.places = {place: mark for place, mark in self.places.items() if place[: len(key)] != key}


def read(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a YAML file and set each ``key=value`` of `overrides` in it.

    Raises:
        UserError: The file cannot be read or is not YAML, a key stands twice, or an override is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"there is: {', '.join(near[:8])}" if near else f"the folder {path.parent} holds no .yaml file"
        raise UserError(Problem("no such file", where=str(path), hint=hint)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(f"cannot be read: {error}", where=str(path))) from None
    try:
        root, data = parsed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        begun = f" in line {error.context_mark.line + 1}" if error.context_mark else ""
        context = f" ({error.context}{begun})" if error.context else ""
        hint = "indent with spaces, and leave no tab before or between keys" if "'\\t'" in str(error.problem) else ""
        raise UserError(Problem(f"broken YAML: {error.problem}{context}", where=place, hint=hint)) from None
    except yaml.YAMLError as error:
        raise UserError(Problem(f"broken YAML: {error}", where=str(path))) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        hint = "an experiment starts with: name: my-experiment"
        raise UserError(Problem(f"holds {found}, not keys and values", where=str(path), hint=hint))

    source = Source(path, data)
    problems = _mark(root, (), source)
    for override in overrides:
        problems += _override(source, override)
    if problems:
        raise UserError(*problems)
    return source


def _mark(node: yaml.Node | None, key: Key, source: Source) -> list[Problem]:
    """Note where each key below `node` stands; return the keys that stand twice (YAML would take the last)."""
    twice: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            below = (*key, str(name.value))
            place = (name.start_mark.line + 1, name.start_mark.column + 1)
            if name.value in seen:
                where = f"{source.path}:{place[0]}:{place[1]}"
                twice.append(Problem("this key stands twice", key=dotted(below), where=where, hint="keep one of them"))
            seen.add(name.value)
            source.places[below] = place
            twice += _mark(value, below, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            below = (*key, str(index))
            source.places[below] = (value.start_mark.line + 1, value.start_mark.column + 1)
            twice += _mark(value, below, source)
    return twice


def _override(source: Source, override: str) -> list[Problem]:
    """Set one dotted ``key=value`` in the data of `source`; return what is wrong with it."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        hint = "write it as trial.epochs=1"
        return [Problem(f"{override!r} is not key=value", where="command line", hint=hint)]
    try:
        source.override(path_of(source.data, name, _is_by_name), parse_yaml(text))
    except yaml.YAMLError:
        hint = "in a shell, put quotes around what holds braces or spaces"
        return [Problem(f"{text!r} is not a YAML value", key=name, where="command line", hint=hint)]
    except UserError as error:
        return [replace(problem, where="command line") for problem in error.problems]
    return []


def split(name: str, data: dict[str, Any]) -> Key:
    """A dotted name as a path into `data`. Keys that hold dots themselves, as those of ``space`` do, stay whole."""
    return nearest(data, name, _is_by_name)


def _is_by_name(key: Key) -> bool:
    """Whether the keys at a path of an experiment are dotted names of others: those of a space and of conditions."""
    return key == ("space",) or (len(key) == 3 and key[0] == "space" and key[2] == "when")
