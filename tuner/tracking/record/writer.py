"""The process that writes a job's record to MLflow, started and fed by `tuner.tracking.record.writer_client`.

It is a process of its own because MLflow takes tens of milliseconds of computing for each run, which in the driver
would hold up the trials. It reads the events of the job's journal as lines from its standard input, behind an
`OpenRecord`, and answers with lines on its standard output: one when the record is open, behind one that says so where
it has to wait for the store, and one when everything is written. Where the store does not answer, events wait here;
they are in the journal, too, from which ``tuner sync`` and ``--resume`` send what never came.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from pydantic import ValidationError

from tuner.process.startup import resume_collection
from tuner.tracking.health import unanswered
from tuner.tracking.record.messages import Answer, OpenRecord, Refusal, Waiting, Written
from tuner.tracking.record.projection import EndRun, Operation, Rules, TrialProjection
from tuner.tracking.record.record import Record
from tuner.tracking.record.reopening import Refused
from tuner.trials.events import Event, JobEnd, JobRecorded, TrialEvent, event_of
from tuner.trials.status import BROKE_OFF_RESUMABLE

_LINGER = 0.5  # seconds that operations wait for others to travel with
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between attempts while the store does not answer
_AWAY = 60.0  # seconds that the opening of a record waits for a store that does not answer
_SIDE_BY_SIDE = {"http": 8, "https": 8, "postgresql": 4, "mysql": 4, "mssql": 4}
"""Trials that are written at once, by the kind of store: it is the way there that takes time. SQLite has one writer."""

Reply = Callable[[Answer], None]


def write(lines: Iterable[str], reply: Reply) -> None:
    """Write a record until its events end.

    Args:
        lines: An `OpenRecord`, then events. That they end without a `JobRecorded` means that the driver is gone.
        reply: Sends an answer to the driver.
    """
    arriving: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    hurry = threading.Event()
    deadline = _Deadline()
    unread: list[str] = []
    lines = iter(lines)
    first = next(lines, None)
    if first is None:
        return
    message = OpenRecord.model_validate_json(first)

    def read() -> None:
        try:
            for line in lines:
                try:
                    event = event_of(line)
                except ValidationError as error:  # a bug of ours; the others are no worse for it
                    unread.append(f"no event of a journal: {error}")
                    continue
                if isinstance(event, JobRecorded):  # it holds for what is being tried at this moment, too
                    deadline.set(message.patience)
                    hurry.set()
                arriving.put(event)
        except ValueError:
            pass  # half a line is the last thing that a driver sends that is killed
        finally:
            deadline.set(0.0)
            hurry.set()
            arriving.put(None)

    threading.Thread(target=read, daemon=True).start()
    record = _opened(message, hurry, reply)
    if record is None:
        return
    resume_collection()  # MLflow is imported
    kind = message.uri.partition(":")[0].partition("+")[0]
    with ThreadPoolExecutor(_SIDE_BY_SIDE.get(kind, 1)) as pool:
        writing = _Writing(record, message, pool, hurry, deadline)
        writing.run(arriving)
        failures = [*unread, *writing.failures, *record.refused]
        reply(Written(failures=failures, model=record.model))


def _opened(message: OpenRecord, hurry: threading.Event, reply: Reply) -> Record | None:
    """The record, opened; None where the store refuses it.

    It was there when the driver looked, a moment ago: where it does not answer now, it is waited for, as it is later.
    A refusal is the store's own word only where it answered before the attempt and after it: one that comes back
    between the two did not refuse.
    """
    record: Record | None = None
    give_up = time.monotonic() + _AWAY
    is_again, was_there = False, True
    while True:
        try:
            record = record or Record(message.uri)
            reply(record.open(message, again=is_again))
            return record
        except Refused as error:
            why = unanswered(message.uri)
            if (was_there and not why) or hurry.is_set() or time.monotonic() >= give_up:
                reply(Refusal(message=error.message, key=error.key, hint=error.hint))
                return None
            if not is_again:
                reply(Waiting(why=why))
            was_there = not why
        is_again = True
        hurry.wait(_PAUSES[0])


class _Deadline:
    """When a store that does not answer is no longer waited for: not before the end of the record."""

    def __init__(self) -> None:
        self._at = float("inf")

    def set(self, patience: float) -> None:
        """Wait for so many seconds from now on; what was set first stays."""
        if self._at == float("inf"):
            self._at = time.monotonic() + patience

    def is_past(self) -> bool:
        """Whether it is time to give up."""
        return time.monotonic() >= self._at


class _Writing:
    """Projects events as they arrive, and writes what they stand for."""

    def __init__(
        self,
        record: Record,
        message: OpenRecord,
        pool: ThreadPoolExecutor,
        hurry: threading.Event,
        deadline: _Deadline,
    ) -> None:
        self._record = record
        self._rules: Rules = message.rules
        self._folder = message.journal.folder
        self._pool = pool
        self._hurry = hurry
        self._deadline = deadline
        self._trials: dict[int, TrialProjection] = {}
        self._imports_registry = message.registers
        self.failures: list[str] = []
        """What could not be written, and why."""

    def run(self, arriving: "queue.SimpleQueue[Event | None]") -> None:
        """Write until the events end."""
        end: JobEnd | None = None
        is_over = False
        while not is_over:
            batch = [arriving.get()]
            self._hurry.wait(_LINGER)
            while not arriving.empty():
                batch.append(arriving.get())
            is_over = None in batch
            trials: dict[int, list[Operation]] = {}
            for event in batch:
                if isinstance(event, JobRecorded):
                    end = event.end
                elif isinstance(event, TrialEvent):
                    trials.setdefault(event.trial, []).extend(self._projected(event))
            trials = {number: operations for number, operations in trials.items() if operations}
            list(self._pool.map(self._write_trial, trials, trials.values()))
        if end is not None:
            # One by one: where one of them is refused, the others are written.
            for step in (self._record.test, self._record.register, self._record.close):
                self._attempt(lambda again, step=step: step(end))  # type: ignore[misc]
        elif self._record.is_there():
            self._attempt(lambda again: self._record.abandon(time.time(), BROKE_OFF_RESUMABLE))

    def _projected(self, event: TrialEvent) -> list[Operation]:
        if event.trial not in self._trials:
            self._trials[event.trial] = TrialProjection(self._rules, self._folder, event.trial)
        operations = self._trials[event.trial].of(event)
        if self._imports_registry and any(isinstance(each, EndRun) for each in operations):
            self._imports_registry = False  # seconds of imports for the winner's model, while others train
            threading.Thread(target=import_module, args=["tuner.tracking.registered.registering"], daemon=True).start()
        return operations

    def _write_trial(self, trial: int, operations: list[Operation]) -> None:
        if self._attempt(
            lambda again: self._record.write(trial, operations, again=again), is_last=len(operations) == 1
        ):
            return
        # One of them cannot be written: the others are no worse for it.
        for operation in operations:
            self._attempt(lambda again, one=operation: self._record.write(trial, [one], again=True))  # type: ignore[misc]

    def _attempt(self, work: Callable[[bool], None], *, is_last: bool = True) -> bool:
        """Do some work, again and again while the store does not answer. Returns whether it was done."""
        attempt = 0
        while True:
            try:
                work(attempt > 0)
            except Exception as error:
                if self._record.is_there():
                    if is_last:
                        self.failures.append(f"{type(error).__name__}: {error}")
                    return False
                if self._deadline.is_past():
                    self.failures.append(f"the store does not answer: {error}")
                    return True  # there is no use in trying the parts
                if self._hurry.is_set():
                    time.sleep(_PAUSES[0])
                else:
                    self._hurry.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1
            else:
                return True


def main() -> None:
    """Write what comes on standard input."""
    # What the libraries print is nothing for the driver, which listens on standard output.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # A server that does not answer is waited for here, where the driver's end is known.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    write(sys.stdin, lambda answer: print(answer.model_dump_json(), file=out, flush=True))
    out.flush()
    os._exit(0)  # there is nothing to tidy up, and it would take a second
