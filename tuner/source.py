"""A YAML file with the place of every key in it, and overrides from the command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tuner.config_keys import Key, dotted, nearest, path_of, put
from tuner.errors import Problem, UserError

_MOST_VALUES, _DEEPEST = 100_000, 50

_STR = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``1e-3`` is a number, ``on`` and ``no`` are words.

    It builds what JSON has, too, and nothing else: a specification goes to workers and into the journal as that.
    """

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A scalar of whole characters: JSON writes those beyond 16 bits as two escapes."""
        node = super().compose_scalar_node(anchor)
        try:
            node.value = node.value if node.value.isascii() else _whole(node.value)
        except UnicodeDecodeError:
            problem = "half a character, which stands for nothing"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark) from None
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping by words, as they are written: JSON would make ``"1"`` of a key 1, too."""
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
            node.value = [(_word(key), value) for key, value in node.value]
        return super().construct_mapping(node, deep=deep)

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """A scalar, as its tag says, where it can be that."""
        try:
            value = _SCALARS[node.tag](self, node)
            if isinstance(value, int):
                float(value)  # all arithmetic ends in that; and Python does not even print the largest ones
        except (ValueError, OverflowError, LookupError) as error:
            what = f"{node.value[:40]!r} is no {node.tag.rpartition(':')[2]}: {error}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None
        return value


_SCALARS = {tag: make for tag, make in _Loader.yaml_constructors.items() if tag and tag.endswith((":null", ":bool"))}
_SCALARS |= {tag: make for tag, make in _Loader.yaml_constructors.items() if tag and tag.endswith((":int", ":float"))}
_SCALARS[_STR] = _Loader.yaml_constructors[_STR]
_Loader.yaml_constructors = {
    tag: _Loader.construct_plain if tag in _SCALARS else make
    for tag, make in _Loader.yaml_constructors.items()
    if tag is None or tag in _SCALARS or tag.endswith((":seq", ":map"))
}

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), "tTfF")


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _word(key: yaml.Node) -> yaml.Node:
    return yaml.ScalarNode(_STR, key.value, key.start_mark, key.end_mark) if key.tag in _SCALARS else key


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads to the same: a word that is a number to it, such as 1e-3, in quotes."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
        *_Loader.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def write_yaml(data: Any) -> str:
    """A value of plain data as YAML, which `parse_yaml` reads as the same: floats to the last digit."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str) -> Any:
    """The value that a piece of YAML stands for. Raises `yaml.YAMLError`."""
    return _parsed(text)[1]


def _parsed(text: str) -> tuple[yaml.Node | None, Any]:
    """A piece of YAML as nodes, which know where they stand, and the value. Raises `yaml.YAMLError`."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None
        _size(root, 0, {})
        return root, loader.construct_document(root)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # such as an escape for a character that there is not
        raise yaml.YAMLError(str(error)) from None


def _size(node: yaml.Node, depth: int, known: dict[yaml.Node, int]) -> int:
    """How many values a node stands for, aliases written out; `known` ones count again without a look.

    Raises:
        yaml.MarkedYAMLError: They are too many, nested too deeply, or without an end.
    """
    problem = "an anchor stands inside itself" if known.get(node) == 0 else ""
    problem = "nested too deeply" if depth > _DEEPEST else problem
    if node not in known and not problem:
        known[node] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        below = parts if isinstance(node, yaml.CollectionNode) else ()
        known[node] = 1 + sum(_size(part, depth + 1, known) for part in below)
    if not problem and known[node] > _MOST_VALUES:
        problem = f"stands for more than {_MOST_VALUES} values"
    if problem:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return known[node]


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
        root, data = _parsed(text)
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
