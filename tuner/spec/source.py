"""A YAML file with the line and column of every key, and overrides from the command line."""

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
    """The content of a YAML file and the position of each key.

    Args:
        path: The YAML file.
        data: The content, with the overrides.
        places: Line and column of each key, from 1.
        overridden: The keys that the command line set.
    """

    path: Path
    data: dict[str, Any]
    places: dict[Key, tuple[int, int]] = field(default_factory=dict)
    overridden: set[Key] = field(default_factory=set)

    def where(self, key: Key) -> str:
        """The position of a key as ``file:line:column``; of its nearest parent if the file does not have the key."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.places:
                line, column = self.places[key[:end]]
                return f"{self.path}:{line}:{column}"
            if any(key[:end] == set_key[:end] for set_key in self.overridden):
                return "command line"
        return str(self.path)

    def override(self, key: Key, value: Any) -> None:
        """Set a value from the command line.

        Raises:
            UserError: A value on the path of the key is not a mapping.
        """
        put(self.data, key, value)
        self.overridden.add(key)
        # The value, and the keys in it, are no longer those of the file.
        self.places = {other: place for other, place in self.places.items() if other[: len(key)] != key}


def read(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a YAML file and apply the overrides, each of the form ``key=value``.

    Raises:
        UserError: The file cannot be read or is not YAML, a key appears twice, or an override is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"there is: {', '.join(others[:8])}" if others else f"the folder {path.parent} holds no .yaml file"
        raise UserError(Problem("no such file", where=str(path), hint=hint)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(f"cannot be read: {error}", where=str(path))) from None
    try:
        root, data = parsed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        line = f" in line {error.context_mark.line + 1}" if error.context_mark else ""
        context = f" ({error.context}{line})" if error.context else ""
        hint = "indent with spaces, without tabs before or between keys" if "'\\t'" in str(error.problem) else ""
        raise UserError(Problem(f"broken YAML: {error.problem}{context}", where=place, hint=hint)) from None
    except yaml.YAMLError as error:
        raise UserError(Problem(f"broken YAML: {error}", where=str(path))) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        hint = "an experiment starts with: name: my-experiment"
        raise UserError(Problem(f"holds {found}, not keys and values", where=str(path), hint=hint))

    source = Source(path, data)
    problems = _locate_keys(root, (), source)
    for override in overrides:
        problems += _override(source, override)
    if problems:
        raise UserError(*problems)
    return source


def _locate_keys(node: yaml.Node | None, key: Key, source: Source) -> list[Problem]:
    """Fill `Source.places` with the keys below `node`.

    Returns:
        A problem for each key that appears twice; YAML would silently take the last one.
    """
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            child = (*key, str(name.value))
            place = (name.start_mark.line + 1, name.start_mark.column + 1)
            if name.value in seen:
                where = f"{source.path}:{place[0]}:{place[1]}"
                problems.append(Problem("this key appears twice", dotted(child), where, "keep one of them"))
            seen.add(name.value)
            source.places[child] = place
            problems += _locate_keys(value, child, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            child = (*key, str(index))
            source.places[child] = (value.start_mark.line + 1, value.start_mark.column + 1)
            problems += _locate_keys(value, child, source)
    return problems


def _override(source: Source, override: str) -> list[Problem]:
    """Apply an override of the form ``key=value``; return what is wrong with it."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        hint = "write it as trial.epochs=1"
        return [Problem(f"{override!r} is not key=value", where="command line", hint=hint)]
    try:
        source.override(path_of(source.data, name, _is_by_name), parse_yaml(text))
    except yaml.YAMLError:
        hint = "in a shell, put quotes around an override that contains braces or spaces"
        return [Problem(f"{text!r} is not a YAML value", key=name, where="command line", hint=hint)]
    except UserError as error:
        return [replace(problem, where="command line") for problem in error.problems]
    return []


def key_of(name: str, data: dict[str, Any]) -> Key:
    """The path in `data` to which a dotted name refers. Dotted keys, such as those of ``space``, are not split."""
    return nearest(data, name, _is_by_name)


def _is_by_name(key: Key) -> bool:
    """Whether the mapping at a path of an experiment has dotted names as keys: the space, or a condition in it."""
    return key == ("space",) or (len(key) == 3 and key[0] == "space" and key[2] == "when")
