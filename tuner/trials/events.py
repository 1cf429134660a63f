"""The events of a job: the lines of its journal, which the writer of its MLflow record is given as well.

They are read strictly, so that a damaged journal is reported as damaged: it may have been edited, or made elsewhere. A
journal that was cut off in the middle of a line is intact. The process that writes the record imports this module:
nothing here may import torch or the specification, which take seconds.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NotRequired, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StrictBool,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from tuner.errors import Problem, UserError

_Count = Annotated[int, Field(ge=0, le=2**31, strict=True)]
_Time = Annotated[FiniteFloat, Field(ge=0, le=1e11, strict=True)]
_Number = Annotated[float, Field(strict=True)]


_OPEN = ConfigDict(extra="allow")  # an older or a newer version may have written more


@with_config(_OPEN)
class Report(TypedDict):
    """What a trial measured: its metrics by name, beside its epoch."""

    epoch: _Count


@with_config(_OPEN)
class JobEnd(TypedDict):
    """How a job ended, as `tuner.tracking.record.messages.end_of` makes it."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    metrics: dict[str, _Number]
    tags: dict[str, str]
    winner: _Count | None
    winner_epoch: _Count
    test: dict[str, _Number]
    test_data: NotRequired[dict[str, Any] | None]
    model: NotRequired[dict[str, Any] | None]
    front: list[_Count]
    artifacts: str
    journal: NotRequired[str]
    time: _Time


class Event(BaseModel):
    """Something that happened to a job, or to one of its trials. Fields with defaults are those of newer versions."""

    model_config = _OPEN

    event: str
    time: _Time
    """When it happened, in seconds since 1970."""

    places: ClassVar[tuple[str, ...]] = ()
    """Fields whose values are files or folders of the job."""

    def placed(self, change: Callable[[str], str]) -> "Event":
        """The event with all files and folders that it names changed."""
        new = {name: change(place) for name in self.places if (place := getattr(self, name))}
        return self.model_copy(update=new) if new else self

    def line(self) -> str:
        """The event as a line of a journal."""
        return json.dumps(self.__dict__ | (self.__pydantic_extra__ or {}), default=str) + "\n"


class JobOpening(Event):
    """The job is about to begin, or to resume: its record does not know of it yet."""

    event: Literal["opening"] = "opening"
    opening: str


class JobOpened(Event):
    """The job has begun, or has resumed."""

    event: Literal["opened"] = "opened"
    spec: dict[str, Any]
    """The experiment."""
    began: _Time | None = None
    """When the command began, in seconds since 1970."""
    parent_run: str = ""
    """Id of the job's own run in MLflow."""
    trials: _Count = 0
    """How many trials there will be."""
    job: str = ""
    """The job's id."""
    store: str = ""
    """MLflow's store, without a password."""
    opening: str = ""
    """The token that tells this opening of the job from all others."""
    most: _Count | None = None
    """The largest number of trials that its user has allowed; None where the search decides."""
    asked: Any = None
    """``search.trials`` as its user gave it."""
    code: dict[str, str] | None = None
    """The digest of each file of the user's own code."""
    batch_size: _Count | None = None
    """Images of a batch, where the experiment has them measured; None where it says them itself."""


class JobClosed(Event):
    """The job has ended."""

    event: Literal["closed"] = "closed"
    finished: StrictBool
    """Whether its search had come to its end."""


class JobRecorded(Event):
    """The record of the job is about to end."""

    event: Literal["recorded"] = "recorded"
    end: JobEnd

    def placed(self, change: Callable[[str], str]) -> "Event":
        """As `Event.placed`."""
        model = self.end.get("model")
        end = _changed(self.end, ("artifacts", "journal"), change)
        end |= {"model": _changed(model, ("checkpoint",), change)} if model else {}
        return self.model_copy(update={"end": end})


class TrialEvent(Event):
    """Something that happened to a trial."""

    trial: _Count
    """Its number."""


class TrialStarted(TrialEvent):
    """A trial has begun, or has begun again after an interruption."""

    event: Literal["started"] = "started"
    epoch: _Count
    """Epochs that it has behind it."""
    assignment: dict[str, Any]
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)]
    label: str = ""
    """The assignment in a few words."""
    config: dict[str, str] = {}
    """The whole trial: values as text, by their dotted keys."""
    data: dict[str, Any] | None = None
    """The dataset as `tuner.data.images.Description` has it; None where only code of the user's own knows."""
    has_own_code: bool = False
    """Whether it calls code of the user's own, which may log runs with MLflow itself."""


class TrialReported(TrialEvent):
    """A trial has measured an epoch."""

    event: Literal["reported"] = "reported"
    report: Report


class TrialSaved(TrialEvent):
    """A trial has saved a checkpoint."""

    event: Literal["saved"] = "saved"
    epoch: _Count
    latest: str | None
    """The checkpoint that it would resume from."""
    best: str | None
    """The checkpoint of its best report."""

    places = ("latest", "best")


class TrialDropped(TrialEvent):
    """The checkpoints of a trial are about to be deleted: other trials are better."""

    event: Literal["dropped"] = "dropped"


class TrialMutated(TrialEvent):
    """A population has replaced a trial by a changed copy of another one."""

    event: Literal["mutated"] = "mutated"
    epoch: _Count
    parent: _Count
    before: dict[str, Any]
    after: dict[str, Any]
    latest: str | None

    places = ("latest",)


class TrialEnded(TrialEvent):
    """A trial has ended."""

    event: Literal["ended"] = "ended"
    status: Literal["completed", "pruned", "failed", "diverged", "interrupted"]
    reason: str
    traceback: str
    violations: dict[str, _Number]
    """By how much its best report misses each measured constraint; above 0 where it does."""
    attributes: dict[str, Any]
    """What the sampler noted on it."""
    best: str | None
    """The checkpoint of its best report."""
    best_epoch: _Count | None = None
    furthest: _Count = 0
    """The largest epoch that it has ever reported: it may have resumed from an earlier one."""
    host: str = ""
    """Where it was trained last."""
    seconds: _Number | None = None
    """Seconds that it ran, where these are not all between its beginning and its end."""
    lost: _Count = 0
    """How often its worker was lost."""
    micro_batches: _Count = 1
    """How many micro-batches it computed each batch in."""
    damaged: dict[str, str] = {}
    """Checkpoints that it could not resume from, and what is wrong with each."""

    places = ("best",)


_Known = (
    JobOpening
    | JobOpened
    | JobClosed
    | JobRecorded
    | TrialStarted
    | TrialReported
    | TrialSaved
    | TrialDropped
    | TrialMutated
    | TrialEnded
)
_EVENTS = frozenset(name for kind in get_args(_Known) for name in get_args(kind.model_fields["event"].annotation))
_ANY: TypeAdapter[Any] = TypeAdapter(Annotated[_Known, Discriminator("event")])


def event_of(line: str) -> Event:
    """The event that a line of a journal of this version stands for. Raises ValueError where it is none."""
    event: Event = _ANY.validate_python(json.loads(line))
    return event


def events_of(text: str, where: str) -> Iterator[Event]:
    """The events of a journal, line by line; a line that was cut off is none.

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
                yield _ANY.validate_python(event)
            except ValidationError as error:
                raise damaged(_first(error), f"{where}:{number}") from None


def _whole(text: str) -> int:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is too large to compute with")
    return int(text)


def _changed(tree: Mapping[str, Any], keys: tuple[str, ...], change: Callable[[str], str]) -> dict[str, Any]:
    new = {key: change(tree[key]) for key in keys if isinstance(tree.get(key), str) and tree[key]}
    return {**tree, **new}


def damaged(what: str, where: str) -> UserError:
    """The error that reports a damaged journal."""
    hint = "nothing can go on from it: take it from a backup, or run the experiment as a job of its own"
    return UserError(Problem(f"the journal is damaged: {what}", where=where, hint=hint))


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(map(str, details["loc"]))
    return f"{key}: {details['msg']}" if key else details["msg"]
