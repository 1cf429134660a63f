"""The lines of a journal as they are read: what each event must hold, so that a damaged one is told as that.

A journal may have been damaged, edited or made elsewhere. One that was cut off in the middle of a line is sound.
"""

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, StrictBool, TypeAdapter, ValidationError

from tuner.errors import Problem, UserError

_Count = Annotated[int, Field(ge=0, le=2**31, strict=True)]
_Time = Annotated[FiniteFloat, Field(ge=0, le=1e11, strict=True)]
_Number = Annotated[float, Field(strict=True)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="allow")  # an older or a newer version may have written more

    time: _Time


class _Opened(_Line):
    event: Literal["opened"]
    spec: dict[str, Any]
    began: _Time | None = None
    parent_run: str = ""
    trials: _Count = 0
    job: str = ""
    store: str = ""
    opening: str = ""
    most: _Count | None = None
    code: dict[str, str] | None = None


class _Opening(_Line):
    event: Literal["opening"]
    opening: str


class _Closed(_Line):
    event: Literal["closed"]
    finished: StrictBool


class _End(BaseModel):
    """The end of a record, as `tuner.tracking.record.messages.end_of` has it."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    metrics: dict[str, _Number]
    tags: dict[str, str]
    winner: _Count | None
    winner_epoch: _Count
    test: dict[str, _Number]
    test_data: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    front: list[_Count]
    artifacts: str
    journal: str = ""
    time: _Time


class _Recorded(_Line):
    event: Literal["recorded"]
    end: _End


class _OfTrial(_Line):
    trial: _Count


class _Started(_OfTrial):
    event: Literal["started"]
    epoch: _Count
    assignment: dict[str, Any]
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)]


class _Report(BaseModel):
    model_config = ConfigDict(extra="allow")

    epoch: _Count


class _Reported(_OfTrial):
    event: Literal["reported"]
    report: _Report


class _Saved(_OfTrial):
    event: Literal["saved"]
    epoch: _Count
    latest: str | None
    best: str | None


class _Dropped(_OfTrial):
    event: Literal["dropped"]


class _Mutated(_OfTrial):
    event: Literal["mutated"]
    epoch: _Count
    parent: _Count
    before: dict[str, Any]
    after: dict[str, Any]
    latest: str | None


class _Ended(_OfTrial):
    event: Literal["ended"]
    status: Literal["completed", "pruned", "failed", "diverged", "interrupted"]
    reason: str
    traceback: str
    violations: dict[str, _Number]
    attributes: dict[str, Any]
    best: str | None


_KINDS = (_Opened, _Opening, _Closed, _Recorded, _Started, _Reported, _Saved, _Dropped, _Mutated, _Ended)
_EVENTS = frozenset(name for kind in _KINDS for name in get_args(kind.model_fields["event"].annotation))
_ANY: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        _Opened | _Opening | _Closed | _Recorded | _Started | _Reported | _Saved | _Dropped | _Mutated | _Ended,
        Discriminator("event"),
    ]
)


def events_of(text: str, where: str) -> Iterator[dict[str, Any]]:
    """What a journal tells, line by line; a line that was cut off tells nothing.

    Args:
        text: The journal.
        where: Where it comes from, for an error to point to.

    Raises:
        UserError: A line is whole, and not one that this project writes.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            event = json.loads(line, parse_int=_whole)
            if "\\ud" in line:
                json.dumps(event, ensure_ascii=False).encode()  # half a character can neither be shown nor be stored
        except (ValueError, OverflowError, RecursionError):
            continue  # cut off by the end of its writer, or nothing that one wrote
        if not isinstance(event, dict) or str(event.get("event")) in _EVENTS | {"None"}:
            try:
                _ANY.validate_python(event)
            except ValidationError as error:
                raise damaged(_first(error), f"{where}:{number}") from None
            yield event


def _whole(text: str) -> int:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is too large to compute with")
    return int(text)


def damaged(what: str, where: str) -> UserError:
    """What is wrong with a journal, as its user is told."""
    hint = "nothing can go on from it: take it from a backup, or run the experiment as a job of its own"
    return UserError(Problem(f"the journal is damaged: {what}", where=where, hint=hint))


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(map(str, details["loc"]))
    return f"{key}: {details['msg']}" if key else details["msg"]
