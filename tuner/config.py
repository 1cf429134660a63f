"""The base class of all typed configuration, and functions that inspect its fields."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Configuration: frozen, without unknown keys; the docstring below a field describes it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
    )


@dataclass(frozen=True, eq=False)
class Tunable:
    """Says that a field is worth tuning, and among which values: metadata of the field, for ``space: auto``.

    Args:
        values: The distribution, as ``space`` has it.
        fine_tuning: The same for a training that begins with pretrained weights; None for no difference.
        is_share_of_epochs: Whether the bounds are shares of the trial's epochs.
    """

    values: Mapping[str, Any]
    fine_tuning: Mapping[str, Any] | None = None
    is_share_of_epochs: bool = False


def member_of_kind(model: type[BaseModel], key: tuple[str, ...], kind: Any) -> type[BaseModel] | None:
    """The member of the union at `key` of `model` whose kind is `kind`; None if there is none."""
    types: list[Any] = [model]
    for name in key:
        fields = [field for owner in models_in(types) if (field := field_of(owner, name))]
        types = [m for field in fields for m in members_of(field.annotation)] or [m for t in types for m in items_of(t)]
    return next((m for m in models_in(types) if isinstance(kind, str) and kind in kinds_of(m)), None)


def models_in(types: list[Any]) -> list[type[BaseModel]]:
    """The pydantic models in a list of types."""
    return [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]


def kinds_of(model: type[BaseModel]) -> set[str]:
    """The tags that select a model in a union: its kinds, or its tag, and the aliases of its fields."""
    kind = model.model_fields.get("kind")
    tags = {str(arg) for arg in get_args(kind.annotation)} if kind else {getattr(model, "tag", "")}
    return tags | {field.alias for field in model.model_fields.values() if field.alias}


def field_of(model: type[BaseModel], key: str) -> FieldInfo | None:
    """The field of a model with this name or alias; None if there is none."""
    return next((field for name, field in model.model_fields.items() if key in (name, field.alias)), None)


def members_of(annotation: Any) -> Iterator[Any]:
    """The types in an annotation, without Annotated and Union; containers are not unpacked."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from members_of(member)
    else:
        yield annotation


def items_of(annotation: Any) -> Iterator[Any]:
    """The types of the items of a list or tuple, or of the values of a dict."""
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        yield from members_of(arguments[1])
    else:
        for argument in arguments:
            yield from members_of(argument)
