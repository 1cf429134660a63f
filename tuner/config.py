"""The base of every typed part of a specification."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Frozen, unknown keys refused, each field described by the docstring below it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
    )


def member_of_kind(model: type[BaseModel], key: tuple[str, ...], kind: Any) -> type[BaseModel] | None:
    """Which class stands at `key` of `model` where its kind is `kind`; None where there is no such kind."""
    types: list[Any] = [model]
    for part in key:
        fields = [field for owner in models_in(types) if (field := field_of(owner, part))]
        types = [m for field in fields for m in members_of(field.annotation)] or [m for t in types for m in items_of(t)]
    return next((m for m in models_in(types) if isinstance(kind, str) and kind in kinds_of(m)), None)


def models_in(types: list[Any]) -> list[type[BaseModel]]:
    """The models among types."""
    return [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]


def kinds_of(model: type[BaseModel]) -> set[str]:
    """The kinds, and the other names, by which a union tells a model from its others."""
    kind = model.model_fields.get("kind")
    tags = {str(arg) for arg in get_args(kind.annotation)} if kind else {getattr(model, "tag", "")}
    return tags | {field.alias for field in model.model_fields.values() if field.alias}


def field_of(model: type[BaseModel], key: str) -> FieldInfo | None:
    """The field that a key of the file stands for; None where a model has no such field."""
    return next((field for name, field in model.model_fields.items() if key in (name, field.alias)), None)


def members_of(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, unwrapped; containers stay whole."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from members_of(member)
    else:
        yield annotation


def items_of(annotation: Any) -> Iterator[Any]:
    """The types of what a list, tuple or dict holds."""
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        yield from members_of(arguments[1])
    else:
        for argument in arguments:
            yield from members_of(argument)
