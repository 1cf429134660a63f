"""YAML in which ``1e-3`` is a number, and ``on`` and ``no`` are strings."""

import re
from typing import Any

import yaml

_MAX_VALUES, _MAX_DEPTH = 100_000, 50
_TOO_DEEP = "nested too deeply"

_STR = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """A loader in which ``1e-3`` is a number, and ``on`` and ``no`` are strings.

    It builds only values that JSON can represent, because specifications are sent to workers and journals as JSON.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node that is not nested too deeply: PyYAML takes seconds for a few hundred levels.

        Raises:
            yaml.MarkedYAMLError: It is.
        """
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Compose a scalar, joining surrogate pairs: JSON escapes a character above U+FFFF as two surrogates."""
        node = super().compose_scalar_node(anchor)
        try:
            node.value = node.value if node.value.isascii() else _join_surrogates(node.value)
        except UnicodeDecodeError:
            problem = "an unpaired surrogate, which is not a character"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark) from None
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping whose keys are strings, as in JSON: the key 1 becomes ``"1"``."""
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
            node.value = [(_as_string(key), value) for key, value in node.value]
        return super().construct_mapping(node, deep=deep)

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """Construct a scalar of the type that its tag names.

        Raises:
            yaml.constructor.ConstructorError: The text is not a value of that type.
        """
        try:
            value = _SCALARS[node.tag](self, node)
            if isinstance(value, int):
                float(value)  # larger integers cannot be used as hyperparameters, and Python refuses to print them
        except (ValueError, OverflowError, LookupError) as error:
            message = f"{node.value[:40]!r} is no {node.tag.rpartition(':')[2]}: {error}"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None
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


def _join_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _as_string(key: yaml.Node) -> yaml.Node:
    return yaml.ScalarNode(_STR, key.value, key.start_mark, key.end_mark) if key.tag in _SCALARS else key


class _Dumper(yaml.SafeDumper):
    """A dumper for `_Loader`: strings that it would read as another type, such as 1e-3, are quoted."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
        *_Loader.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def write_yaml(data: Any) -> str:
    """Write plain data as YAML; `parse_yaml` reads exactly the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str) -> Any:
    """Parse YAML text to plain data.

    Raises:
        yaml.YAMLError: The text is not valid.
    """
    return parsed(text)[1]


def parsed(text: str) -> tuple[yaml.Node | None, Any]:
    """Parse YAML text to nodes, which hold line and column, and to plain data.

    Raises:
        yaml.YAMLError: The text is not valid.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None
        _size(root, 0, {})
        return root, loader.construct_document(root)
    except RecursionError:
        raise yaml.YAMLError(_TOO_DEEP) from None
    except (ValueError, OverflowError) as error:  # such as the escape of a code point that does not exist
        raise yaml.YAMLError(str(error)) from None


def _size(node: yaml.Node, depth: int, known: dict[yaml.Node, int]) -> int:
    """The number of values below a node, with aliases expanded.

    Args:
        node: The node.
        depth: Its depth in the document.
        known: The sizes of the nodes that were counted already; 0 while a node is being counted.

    Raises:
        yaml.MarkedYAMLError: There are too many values, they are nested too deeply, or an alias is recursive.
    """
    problem = "an anchor contains itself" if known.get(node) == 0 else ""
    problem = _TOO_DEEP if depth > _MAX_DEPTH else problem
    if node not in known and not problem:
        known[node] = 0
        items = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        children = items if isinstance(node, yaml.CollectionNode) else ()
        known[node] = 1 + sum(_size(child, depth + 1, known) for child in children)
    if not problem and known[node] > _MAX_VALUES:
        problem = f"expands to more than {_MAX_VALUES} values"
    if problem:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return known[node]
