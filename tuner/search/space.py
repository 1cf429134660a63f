"""Search spaces: keys and their distributions.

A distribution is written as a mapping from its name to its arguments: ``optimizer.lr: {loguniform: [1e-4, 1e-1]}``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Tag

from tuner.search.distributions import BaseDistribution, Choice, Grid
from tuner.search.numeric_distributions import Int, LogInt, LogUniform, Normal, Uniform


def _name(value: Any) -> str | None:
    """The name of a distribution: the one that is a key of the mapping; None if there is not exactly one."""
    if isinstance(value, Mapping):
        named = [name for name in _NAMES if name in value]
        return named[0] if len(named) == 1 else None
    return next((name for name, kind in _NAMES.items() if type(value) is kind), None)


Distribution = Annotated[
    Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Int, Tag("int")]
    | Annotated[LogInt, Tag("logint")]
    | Annotated[Normal, Tag("normal")],
    Discriminator(
        _name,
        custom_error_type="unknown_distribution",
        custom_error_message="names no distribution",
    ),
]
"""Any of these distributions, selected by the name that is a key of the mapping."""

_NAMES: dict[str, type[BaseDistribution]] = {
    tag.tag: kind for kind, tag in map(get_args, get_args(get_args(Distribution)[0]))
}

DISTRIBUTIONS = tuple(_NAMES)
"""The names of all distributions."""

Space = dict[str, Distribution]
"""The distributions by dotted key of the trial."""
