"""A stopwatch of nested phases."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of each phase, without those of the phases within it.

    Args:
        outside: The name of what belongs to no phase.
        clock: Returns seconds.
    """

    def __init__(self, outside: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        """Seconds by the name of the phase while the stopwatch ran."""
        self._clock = clock
        self._phases = [outside]
        self._since: float | None = None

    @property
    def phase_now(self) -> str:
        """The innermost phase."""
        return self._phases[-1]

    def start(self) -> None:
        """Count from now on."""
        self._since = self._clock()

    def stop(self) -> None:
        """Count no longer."""
        self._count()
        self._since = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The body is a phase."""
        self._count()
        self._phases.append(name)
        try:
            yield
        finally:
            self._count()
            self._phases.pop()

    def _count(self) -> None:
        """Count what has passed since the last change for the innermost phase."""
        if self._since is not None:
            now = self._clock()
            self.seconds[self.phase_now] += now - self._since
            self._since = now
