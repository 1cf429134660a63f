"""Records that are written by a thread of the test, by the code of the writer's own process."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tuner.tracking.record import recorder
from tuner.tracking.record.messages import Answer, OpenRecord, Refusal, Waiting, Written, answer_of
from tuner.tracking.record.writer import write as write_record
from tuner.trials.events import Event


class ThreadWriterClient:
    """A `WriterClient` whose writer is a thread: a process of its own takes two seconds to come up."""

    def __init__(self, environment: Mapping[str, str], lock: int | None = None) -> None:
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_open = False

    def open(self, message: OpenRecord, waiting: Callable[[str], object]) -> Any:
        lines = iter(self.lines.get, None)
        threading.Thread(target=write_record, args=(lines, self._reply)).start()
        self.lines.put(message.model_dump_json())
        while isinstance(answer := answer_of(self.answers.get()), Waiting):
            waiting(answer.why)
        self.is_open = not isinstance(answer, Refusal)
        return answer

    def _reply(self, answer: Answer) -> None:
        self.answers.put(answer.model_dump_json())

    def hang_up(self) -> None:
        self.lines.put(None)

    def put(self, event: Event) -> None:
        self.lines.put(event.line())

    def close(self) -> Any:
        self.lines.put(None)
        return answer_of(self.answers.get()) if self.is_open else Written(failures=[])


@contextlib.contextmanager
def thread_writers() -> Iterator[None]:
    """Records of jobs that are run in this process meanwhile are written by a thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "WriterClient", ThreadWriterClient)
        yield
