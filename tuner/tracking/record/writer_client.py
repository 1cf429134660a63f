"""The driver's side of `tuner.tracking.record.writer`: starts that process, and hands it what is to be written."""

import contextlib
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping

from tuner.tracking.record.messages import Answer, Opened, OpenRecord, Refusal, Waiting, Written, answer_of
from tuner.trials.events import Event

_WRITER = """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
from tuner.process.startup import postpone_collection
postpone_collection()
from tuner.tracking.record.writer import main
main()
"""
"""The writer's program. Whoever ends a job with all of its processes, as Ray, SLURM and a terminal do, signals the
driver, too, which ends the record: the writer ends when there is nothing more to come, and listens to nobody else from
its very first moment."""

_LINGER = 0.05  # seconds that what is to be written waits for more: to wake up for each report would hold up the trials


class WriterClient:
    """A process that writes, and a queue in front of it: who puts something there never waits."""

    def __init__(self, environment: Mapping[str, str], lock: int | None = None) -> None:
        """Start it.

        Args:
            environment: Its environment variables.
            lock: A file descriptor that it keeps open as long as it lives.
        """
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._unwritten: list[str] = []
        """What was handed to us that cannot be written down."""
        self._thread = threading.Thread(target=self._feed, name="record", daemon=True)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=dict(environment),
            pass_fds=[] if lock is None else [lock],
            start_new_session=True,  # Ctrl-C is for the driver, which ends the record
        )

    def open(self, message: OpenRecord, waiting: Callable[[str], object]) -> Opened | Refusal:
        """Open the record, and wait for the answer. Where that may take a while, `waiting` is called with why."""
        self._send(message.model_dump_json() + "\n")
        while isinstance(answer := self._answer(), Waiting):
            waiting(answer.why)
        if not isinstance(answer, Opened | Refusal):
            why = f"the process that writes the record ended: {self._last_words()}"
            self.close()
            raise RuntimeError(why)
        self._thread.start()
        return answer

    def hang_up(self) -> None:
        """Close the pipe, from whichever thread: the writer no longer waits for a store that does not answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, and what was on its way to it with it
            self._process.stdin.close()

    def put(self, event: Event) -> None:
        """Have an event written, some time soon."""
        self._queue.put(event)

    def close(self) -> Written:
        """Wait until everything is written."""
        answer: Answer | None = Written(failures=[])
        if self._thread.ident is not None:  # else it was never opened
            self._hurry.set()
            self._queue.put(None)
            self._thread.join()
            answer = self._answer()
        if not isinstance(answer, Written):
            answer = Written(failures=[f"the process that writes ended: {self._last_words()}"])
        self.hang_up()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()
        return answer.model_copy(update={"failures": [*self._unwritten, *answer.failures]})

    def _feed(self) -> None:
        is_over = False
        while not is_over:
            batch = [self._queue.get()]
            if batch[0] is not None and not self._hurry.wait(_LINGER):
                while not self._queue.empty():
                    batch.append(self._queue.get())
            is_over = batch[-1] is None
            lines = []
            for event in filter(None, batch):
                try:
                    lines.append(event.line())
                except Exception as error:  # the others are no worse for it
                    self._unwritten.append(f"{event.event} of trial {getattr(event, 'trial', None)}: {error}")
            self._send("".join(lines))
        self.hang_up()

    def _send(self, lines: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(lines)
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # it is gone, as its missing answer shows, or its pipe is closed; what it lacks is in the journal

    def _answer(self) -> Answer | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return answer_of(line) if line.endswith("\n") else None  # it may have been killed in the middle of a line

    def _last_words(self) -> str:
        self._errors.seek(0)
        return (self._errors.read().strip() or "without a word").splitlines()[-1]
