"""Conversion of pydantic's validation errors to problems with keys of the file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tuner import aliases
from tuner.config import field_of, items_of, kinds_of, members_of, models_in
from tuner.errors import Problem, UserError, allowed, mistakes_of
from tuner.formatting import listed
from tuner.search.space import DISTRIBUTIONS


@contextmanager
def as_user_error(model: type[BaseModel], section: str) -> Iterator[None]:
    """Raise a validation error of `model` in the body as a UserError, with the keys of this section of the file."""
    try:
        yield
    except ValidationError as error:
        raise UserError(*(replace(p, key=f"{section}.{p.key}") for p in problems_of(error, model))) from None


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The mistakes in a validation error of `model`, with their dotted keys."""
    problems = [problem for details in error.errors() for problem in _problems(details, model)]
    return list(dict.fromkeys(problems))  # for a union of plain types, pydantic reports an error for each member


@dataclass(frozen=True)
class _Place:
    """The place in the file of one of pydantic's locations.

    Args:
        key: The path of the key, without the tags of unions that pydantic inserts.
        owner: The model that has, or lacks, the last key; None inside a list.
        description: The docstring of the nearest field.
        kinds: The kinds of the union at this place; empty if it is not a union.
        is_plain_union: Whether the value may have one of several plain types, such as a number or a string.
    """

    key: tuple[str, ...]
    owner: type[BaseModel] | None
    description: str
    kinds: list[str]
    is_plain_union: bool


def _problems(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
    place = _locate(details["loc"], model)
    key, owner = ".".join(place.key), place.owner
    context = details.get("ctx", {})
    if problems := mistakes_of(details):
        yield from (replace(each, key=".".join(filter(None, (key, each.key)))) for each in problems)
        return
    value, hint = details["input"], place.description
    match details["type"]:
        case "extra_forbidden" | "invalid_key":
            message = "unknown key" if place.key[-1] else "unknown key ''"
            hint = _allowed_key(place.key, owner, model) if owner else ""
        case "missing" if isinstance(details["loc"][-1], int):
            message, key = f"has too few values: {value!r}", ".".join(place.key[:-1])
        case "missing":
            message = "is missing"
        case "too_short" | "too_long":
            message = f"has too {'few' if details['type'] == 'too_short' else 'many'} values: {value!r}"
        case "union_tag_invalid":
            message, key = f"unknown kind {context['tag']!r}", f"{key}.kind"
            hint = allowed(str(context["tag"]), place.kinds)
        case "unknown_distribution":
            message, hint = _not_one_distribution(value)
        case _ if value is None:
            message = "has no value"
        case "union_tag_not_found":
            message, hint = f"needs a kind, but got {value!r}", f"allowed: {', '.join(place.kinds)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"must be a mapping of keys to values, but got {value!r}"
            if place.kinds:
                hint = f"{allowed(str(value), place.kinds)}; such as {{kind: {place.kinds[0]}}}"
        case "value_error":
            message, hint = str(context["error"]), ""  # the messages of our validators contain a hint
        case "literal_error":
            names = [text or number for text, number in re.findall(r"'([^']*)'|\b(\d+)\b", context["expected"])]
            message, hint = f"{value!r} is not allowed", allowed(str(value), names)
        case _ if place.is_plain_union:
            message = f"{value!r} is not allowed"
        case "string_pattern_mismatch":
            message = f"{value!r} does not match {context['pattern']}"
        case _:
            text = re.sub(r", (unable to parse|got a number).*", "", details["msg"].removeprefix("Input should "))
            message = f"must {text}, but got {value!r}" if details["msg"].startswith("Input should") else details["msg"]
    yield Problem(message, key, hint=hint)


def _allowed_key(key: tuple[str, ...], owner: type[BaseModel], model: type[BaseModel]) -> str:
    """A hint for an unknown key: the most similar key in this section or, for an alias, in other sections."""
    word, keys = key[-1], _keys(owner)
    elsewhere = {} if aliases.matching(word, keys) else dict(_places(model))
    found = [path for path, name in elsewhere.items() if aliases.matching(word, [name])]
    if not found or ".".join(key) in elsewhere:  # in the latter case another kind has this key
        return allowed(word, keys)
    nearest = sorted(found, key=lambda path: path.count("."))[:2]
    return f"did you mean {listed(nearest, 'or')}? allowed here: {', '.join(sorted(keys))}"


def _places(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted paths and the names of all possible keys of a model outside of lists."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield f"{prefix}{key}", key
        for section in models_in(list(members_of(field.annotation))):
            yield from _places(section, f"{prefix}{key}.")


def _not_one_distribution(value: Any) -> tuple[str, str]:
    """The message and the hint for a value that is not a distribution."""
    words = [str(word) for word in value] if isinstance(value, dict) else []
    named = [word for word in words if word in DISTRIBUTIONS]
    if len(named) > 1:
        return f"names several distributions: {', '.join(named)}", "keep one of them"
    hint = allowed(words[0] if words else "", DISTRIBUTIONS)
    return f"{value!r} is not a distribution", f"{hint}; such as {{grid: [0.1, 0.01]}}"


def _locate(loc: tuple[int | str, ...], model: type[BaseModel]) -> _Place:
    """Find the place in the file of one of pydantic's locations."""
    key: list[str] = []
    types: list[Any] = [model]
    owner: type[BaseModel] | None = None
    description = ""
    is_plain_union = False
    for step in loc:
        models = models_in(types)
        tagged = [m for m in models if step in kinds_of(m)]
        if tagged and len(models) > 1:
            types = tagged  # the tag of a member of a union is not a key of the file
            continue
        if step == "[key]":
            continue  # the mistake is in the key itself
        if not models and not any(get_origin(t) in (dict, list, tuple) for t in types):
            is_plain_union = True  # the name of the type that was tried is not a key of the file
            continue
        owner = next((m for m in models if step in _keys(m)), models[0] if models else None)
        key.append(str(step))
        field = field_of(owner, str(step)) if owner else None
        if field:
            types, description = list(members_of(field.annotation)), field.description or ""
        else:
            types = [m for t in types for m in items_of(t)]
    kinds = sorted({tag for m in models_in(types) for tag in kinds_of(m)})
    return _Place(tuple(key), owner, description.replace("``", ""), kinds, is_plain_union)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
