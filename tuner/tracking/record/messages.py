"""What the driver and the process that writes the record send each other: one line of JSON a message.

The driver opens the record with `OpenRecord`, and sends the events of the journal (`tuner.trials.events`) thereafter.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, TypeAdapter

from tuner.tracking.record.projection import Rules
from tuner.trials.events import JobEnd

if TYPE_CHECKING:  # the writer does without what a trial imports
    from tuner.trials.trial import Trial


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JournalState(_Message):
    """What the journal of a job has when its record is opened."""

    job: str
    """The job's id."""
    folder: str
    """Its folder, or the URI of that."""
    store: str = ""
    """MLflow's store, by a URI that is right from everywhere on this machine, and without a password."""
    token: str = ""
    """Tells this opening of the job from all others; empty for one that only completes its record."""
    known: list[str] = []
    """The tokens of earlier openings."""
    changed_code: str = ""
    """Which files of the user's own code are not what they were, in words; empty for none."""
    begun: int = 0
    """How many trials have begun."""
    unfinished: list[int] = []
    """The trials of these that have not ended."""
    is_ended: bool = False
    """Whether the journal has the end of the record."""
    only_completes: bool = False
    """Whether the record is only to be completed, and nothing is to be taken from it."""


class OpenRecord(_Message):
    """The record of a job is to be opened: a new one, or that of an earlier run of the job."""

    uri: str
    """MLflow's tracking URI."""
    registers: bool
    """Whether the winner will be registered."""
    patience: float
    """Seconds that the end of the record waits for a store that does not answer."""
    experiment: str
    """Name of the experiment."""
    parent: str = ""
    """Id of the job's own run; empty where it has none yet."""
    name: str
    """Name of the job's own run."""
    tags: dict[str, str]
    """Tags of a new one."""
    params: dict[str, str]
    """Its parameters."""
    texts: dict[str, str]
    """Its artifacts, by file."""
    timing: dict[str, str]
    """Tags of a new one and of one that is opened again."""
    common: dict[str, str]
    """Tags of every run."""
    view: dict[str, Any]
    """What the page of the job's trials shows, as `tuner.tracking.store.share_view` takes it."""
    rules: Rules
    journal: JournalState
    lacking: dict[int, list[str]] = {}
    """Of trials whose runs have ended and are not complete, the metrics that they lack points of."""
    unkept: list[int] = []
    """The trials of these whose checkpoint is no artifact."""


class Waiting(_Message):
    """The store does not answer, and is waited for."""

    answer: Literal["waiting"] = "waiting"
    why: str


class Refusal(_Message):
    """MLflow refuses the record."""

    answer: Literal["refused"] = "refused"
    message: str
    key: str
    """The key of the specification that the user would change."""
    hint: str = ""


class Opened(_Message):
    """The record is open."""

    answer: Literal["opened"] = "opened"
    experiment: str
    """MLflow's id of the experiment."""
    parent: str
    """MLflow's id of the job's own run."""
    view: str
    """The key of the page of the job's trials."""
    superseded: list[int] = []
    """Trials that the journal does not have: their runs no longer count as the job's."""


class Written(_Message):
    """The record is written to its end."""

    answer: Literal["written"] = "written"
    failures: list[str]
    """What could not be written, and why."""
    model: str = ""
    """Address of the registered winner; empty where there is none."""


Answer = Waiting | Refusal | Opened | Written

_ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Discriminator("answer")])


def answer_of(line: str) -> Answer:
    """The answer of the writer that a line stands for. Raises ValueError where it is none."""
    return _ANSWER.validate_json(line)


def end_of(
    status: Literal["FINISHED", "FAILED", "KILLED"],
    summary: Mapping[str, Any],
    artifacts: Path | None = None,
    winner: "Trial | None" = None,
    front: "Sequence[Trial]" = (),
    test: Mapping[str, float] | None = None,
    model: dict[str, Any] | None = None,
    journal: str = "",
) -> JobEnd:
    """The end of a job as plain values: numbers of the summary as metrics, words as tags.

    Args:
        status: MLflow's, of the job's own run.
        summary: Numbers and words of it, by name.
        artifacts: A folder whose files are kept beside it.
        winner: The best trial.
        front: The trials on the Pareto front, which are tagged ``pareto``.
        test: The winner's metrics on the test set.
        model: What is registered, as `tuner.tracking.registered.registering.register` takes it; None for nothing.
        journal: The job's journal, from which ``tuner report`` and the like know the job wherever they are.
    """
    numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    data = winner.config.describe_data() if winner and test else None
    return {
        "status": status,
        "metrics": numbers,
        "tags": {f"tuner.{name}": str(value) for name, value in summary.items() if name not in numbers},
        "winner": winner.number if winner else None,
        "winner_epoch": winner.best_epoch or 0 if winner else 0,
        "test": dict(test or {}),
        "test_data": asdict(data) if data else None,
        "model": model,
        "front": [trial.number for trial in front],
        "artifacts": str(artifacts or ""),
        "journal": journal,
        "time": time.time(),
    }
