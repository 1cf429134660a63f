"""YAML as people write it: ``1e-3`` is a number, ``on`` and ``no`` are words."""

import re
from typing import Any

import yaml

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
    return parsed(text)[1]


def parsed(text: str) -> tuple[yaml.Node | None, Any]:
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
