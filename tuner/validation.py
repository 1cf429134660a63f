"""From pydantic's validation errors to problems in the terms of the file."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tuner.errors import Mistakes, Problem, allowed
from tuner.space import DISTRIBUTIONS


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every mistake that `error` tells of, at its dotted key. `model` is the type that was validated."""
    return [problem for details in error.errors() for problem in _problems(details, model)]


def _problems(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
    key, owner = _locate(details["loc"], model)
    raised = details.get("ctx", {}).get("error")
    if isinstance(raised, Mistakes):
        for problem in raised.problems:
            yield Problem(problem.message, ".".join(filter(None, (key, problem.key))), hint=problem.hint)
        return
    value, hint = details["input"], ""
    match details["type"]:
        case "extra_forbidden":
            message = "unknown key"
            hint = allowed(str(details["loc"][-1]), _keys(owner)) if owner else ""
        case "missing":
            message = "is missing"
            hint = f"{_meaning(owner, str(details['loc'][-1]))}" if owner else ""
        case "union_tag_invalid":
            tags = details["ctx"]["expected_tags"].replace("'", "").split(", ")
            message, key = f"unknown kind {details['ctx']['tag']!r}", f"{key}.kind"
            hint = allowed(details["ctx"]["tag"], tags)
        case "union_tag_not_found":
            message, hint = f"needs a kind, but got {value!r}", "such as {kind: ...}"
        case "unknown_distribution":
            message = f"{value!r} names no distribution"
            given = next(iter(value), "") if isinstance(value, dict) else ""
            hint = allowed(str(given), DISTRIBUTIONS) + "; such as {grid: [0.1, 0.01]}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"must be a mapping of keys to values, but got {value!r}"
        case "value_error":
            message = str(raised)
        case "string_pattern_mismatch":
            message, hint = f"{value!r} is not allowed", _meaning(owner, str(details["loc"][-1])) if owner else ""
        case _:
            text = details["msg"].removeprefix("Input ").removeprefix("should ")
            message = f"must {text}, but got {value!r}" if details["msg"].startswith("Input should") else details["msg"]
    yield Problem(message, key, hint=hint)


def _locate(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """The dotted key of a location, without the tags that pydantic puts in it, and the model that owns its last key."""
    key: list[str] = []
    types: list[Any] = [model]
    owner: type[BaseModel] | None = None
    for part in loc:
        models = [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]
        tagged = [m for m in models if part in _tags(m)]
        if tagged and len(models) > 1:
            types = tagged  # the tag of a union's member is not a key of the file
            continue
        owner = next((m for m in models if part in _keys(m)), models[0] if models else None)
        key.append(str(part))
        field = next((f for n, f in owner.model_fields.items() if part in (n, f.alias)), None) if owner else None
        types = list(_members(field.annotation)) if field else [m for t in types for m in _items(t)]
    # Literals and unions of plain types leave tags such as "str" or "constrained-str" at the end.
    return ".".join(key), owner


def _tags(model: type[BaseModel]) -> set[str]:
    kind = model.model_fields.get("kind")
    tags = {str(arg) for arg in get_args(kind.annotation)} if kind else set()
    return tags | {field.alias for field in model.model_fields.values() if field.alias}


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _meaning(model: type[BaseModel], name: str) -> str:
    """What a field's docstring says of it."""
    field = next((f for n, f in model.model_fields.items() if name in (n, f.alias)), None)
    return (field.description if field else None) or ""


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, unwrapped; containers stay whole."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _items(annotation: Any) -> Iterator[Any]:
    """The types of what a list, tuple or dict holds."""
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        yield from _members(arguments[1])
    else:
        for argument in arguments:
            yield from _members(argument)
