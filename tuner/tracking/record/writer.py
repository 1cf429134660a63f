"""The process that writes a job's record to MLflow, started and fed by `tuner.tracking.record.writer_client`.

It is a process of its own because MLflow takes tens of milliseconds of computing for each run, which in the driver
would hold up the trials. It reads operations (`tuner.tracking.record.record`) as lines of JSON from its standard
input, and answers with lines on its standard output: one to ``open``, behind one that says so where it has to wait for
the store, and one when everything is written. Where the store is away, what there is to write waits here; it also lies
in the job's journal, from which ``tuner sync`` and ``--resume`` make up for what never came.
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from tuner.tracking.health import unanswered
from tuner.tracking.record.record import Operation, Record
from tuner.tracking.record.reopening import Refused
from tuner.trials.status import BROKE_OFF_RESUMABLE

_LINGER = 0.5  # seconds that operations wait for others to travel with
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between attempts while the store is away
_AWAY = 60.0  # seconds that a store may be away when the record is opened
_SIDE_BY_SIDE = {"http": 8, "https": 8, "postgresql": 4, "mysql": 4, "mssql": 4}
"""Trials that are written at once, by the kind of store: it is the way there that takes time. SQLite has one writer."""

Answer = Callable[[dict[str, Any]], None]


def write(lines: Iterable[str], answer: Answer) -> None:
    """Write a record until its operations end.

    Args:
        lines: Operations as JSON; the first is ``open``. That they end without ``close`` means that the driver is gone.
        answer: Takes what there is to say.
    """
    arriving: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
    hurry = threading.Event()
    deadline = _Deadline()

    def read() -> None:
        try:
            for line in lines:
                said = json.loads(line)
                if said["do"] == "close":  # it holds for what is being tried at this moment, too
                    deadline.set(said["patience"])
                    hurry.set()
                arriving.put(said)
        except ValueError:
            pass  # half a line is the last thing that a driver says that is killed
        finally:
            deadline.set(0.0)
            hurry.set()
            arriving.put(None)

    threading.Thread(target=read, daemon=True).start()
    first = arriving.get()
    if first is None:
        return
    record = _opened(first, hurry, answer)
    if record is None:
        return
    kind = first["uri"].partition(":")[0].partition("+")[0]
    with ThreadPoolExecutor(_SIDE_BY_SIDE.get(kind, 1)) as pool:
        _Writing(record, pool, hurry, deadline, first["registers"]).run(arriving, answer)


def _opened(said: Operation, hurry: threading.Event, answer: Answer) -> Record | None:
    """The record, opened; None where the store refuses it.

    It was there when the driver looked, a moment ago: where it is away now, it is waited for, as it is later on.
    """
    record: Record | None = None
    give_up = time.monotonic() + _AWAY
    is_again = False
    while True:
        try:
            record = record or Record(said["uri"])
            answer(record.open(said, again=is_again))
            return record
        except Refused as error:
            why = unanswered(said["uri"])
            if not why or hurry.is_set() or time.monotonic() >= give_up:
                answer({"refused": [error.message, error.key, error.hint]})
                return None
            if not is_again:
                answer({"waiting": why})
        is_again = True
        hurry.wait(_PAUSES[0])


class _Deadline:
    """When a store that is away is not waited for any longer: not before a record comes to its end."""

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
    def __init__(
        self,
        record: Record,
        pool: ThreadPoolExecutor,
        hurry: threading.Event,
        deadline: _Deadline,
        registers: bool,
    ) -> None:
        self._record = record
        self._pool = pool
        self._hurry = hurry
        self._failures: list[str] = []
        self._is_ahead = not registers
        self._deadline = deadline

    def run(self, arriving: "queue.SimpleQueue[Operation | None]", answer: Answer) -> None:
        closing: Operation | None = None
        is_over = False
        while not is_over:
            batch = [arriving.get()]
            self._hurry.wait(_LINGER)
            while not arriving.empty():
                batch.append(arriving.get())
            is_over = None in batch
            trials: dict[int, list[Operation]] = {}
            for said in batch:
                if said is None:
                    continue
                if said["do"] == "close":
                    closing = said
                    continue
                trials.setdefault(said["trial"], []).append(said)
                if said["do"] == "end" and not self._is_ahead:
                    self._is_ahead = True  # seconds of imports for the winner's model, while others train
                    threading.Thread(target=import_module, args=["tuner.tracking.registry"], daemon=True).start()
            list(self._pool.map(self._write_trial, trials, trials.values()))
        if closing is not None:
            end = closing
            # One by one: where one of them is refused, the others are written.
            for step in (self._record.test, self._record.register, self._record.close):
                self._attempt(lambda again, step=step: step(end))  # type: ignore[misc]
        elif self._record.is_there():
            self._attempt(lambda again: self._record.abandon(time.time(), BROKE_OFF_RESUMABLE))
        answer({"failures": [*self._failures, *self._record.refused], "model": self._record.model})

    def _write_trial(self, trial: int, operations: list[Operation]) -> None:
        if self._attempt(
            lambda again: self._record.write(trial, operations, again=again), is_last=len(operations) == 1
        ):
            return
        # One of them cannot be written: the others are no worse for it.
        for said in operations:
            self._attempt(lambda again, one=said: self._record.write(trial, [one], again=True))  # type: ignore[misc]

    def _attempt(self, work: Callable[[bool], None], *, is_last: bool = True) -> bool:
        """Do some work, as often as the store is away. Returns whether it was done."""
        attempt = 0
        while True:
            try:
                work(attempt > 0)
            except Exception as error:
                if self._record.is_there():
                    if is_last:
                        self._failures.append(f"{type(error).__name__}: {error}")
                    return False
                if self._deadline.is_past():
                    self._failures.append(f"the store is away: {error}")
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
    # A server that is away is waited for here, where the driver's end is known.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    write(sys.stdin, lambda said: print(json.dumps(said), file=out, flush=True))
    out.flush()
    os._exit(0)  # there is nothing to tidy up, and it would take a second
