"""How many trials a host trains at once: as many as fit into the GPU's memory and add to its speed."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Protocol

_SETTLING = 8
"""Steps of each trial after which it computes as it will: its graphs are recorded by then."""
_WINDOW = 0.5
"""Seconds in which steps are counted."""
_GAIN = 1.05
"""What twice the trials must add to the speed, so that more are admitted."""
_ROOM = 1.1
"""Free memory for another trial, as a multiple of the most that one has taken so far."""


class Memory(Protocol):
    """The memory of the device that trials compute on."""

    def free(self) -> int:
        """Bytes that another trial may take."""

    def taken(self) -> int:
        """Bytes that all trials together have taken, without the images that they share."""


@dataclass(eq=False)
class Place:
    """The place of a trial that trains."""

    steps: int = 0
    """Steps so far."""
    counted: int = 0
    """Steps at the beginning of the window."""
    rate: float = 0.0
    """Steps a second in the last window; 0 before the first one."""
    others: int = 0
    """Most trials that have trained beside it."""
    allowed: float = math.inf
    """How many may train beside it."""

    @property
    def has_settled(self) -> bool:
        """Whether it computes as it will, and has taken its memory."""
        return self.steps >= _SETTLING


@dataclass(eq=False)
class Admission:
    """Admits trials to a device, one after another.

    The first one tells how much memory a trial takes: another one waits until so much is free. If `measures`, twice as
    many are admitted each time until that adds nothing to the speed: the steps a second of those that were there before
    tell what the new ones cost. Trials that end before a window has passed are short: then memory alone decides.

    Args:
        memory: The device's memory; None for one without a limit of its own.
        measures: Whether the speed decides, too.
        clock: The time in seconds.
        limit: Most trials at once, whatever memory and speed say.
    """

    memory: Memory | None
    measures: bool
    clock: Callable[[], float] = time.monotonic
    limit: float = math.inf
    running: list[Place] = field(default_factory=list)
    most: int | None = None
    """Most trials at once that add to the speed; None if that is not known yet."""
    need: int = 0
    """Most bytes that a trial has taken so far."""

    def __post_init__(self) -> None:
        self._changed = Condition()
        self._waiting: list[Place] = []
        self._target = 1
        self._before: list[Place] = []
        """The trials that were there before the number was doubled."""
        self._since = 0.0

    @contextmanager
    def entered(self, wait: Callable[[float], None], allowed: float = math.inf) -> Iterator[Place]:
        """Wait for a place; the body is the training in it.

        Args:
            wait: Called again and again while there is none, with the seconds so far; what it raises ends the waiting.
            allowed: How many others may train beside it.
        """
        place, began = Place(allowed=allowed), self.clock()
        with self._changed:
            self._waiting.append(place)
            try:
                while self._waiting[0] is not place or not self._has_room(place):
                    wait(self.clock() - began)
                    self._changed.wait(0.1)
            finally:
                self._waiting.remove(place)
            self.running.append(place)
            for each in self.running:
                each.others = max(each.others, len(self.running) - 1)
            self._begin_window()
        try:
            yield place
        finally:
            if self.memory is not None and not self.need:  # it had a few steps alone
                self.need = max(1, self.memory.taken() // len(self.running))
            with self._changed:
                self.running.remove(place)
                if self.most is None and not place.rate:
                    self._target *= 2  # too short to be measured
                self._before = [each for each in self._before if each is not place]
                self._begin_window()
                self._changed.notify_all()

    def step(self, place: Place) -> None:
        """Note a step of a trial."""
        place.steps += 1
        if place.steps == _SETTLING:
            self._look_at_memory()
            with self._changed:
                self._begin_window()
                self._changed.notify_all()
        elif self.measures and self.most is None and self.clock() - self._since >= _WINDOW:
            with self._changed:
                self._measure()

    def _has_room(self, place: Place) -> bool:
        count = len(self.running)
        if count == 0:
            return True
        if count >= self.limit or count > min(each.allowed for each in (place, *self.running)):
            return False
        if self.memory is not None:
            if not self.need:
                return False  # the first one tells what a trial takes
            # What those take that have just begun is not there to be seen yet.
            coming = 1 + sum(not each.has_settled for each in self.running)
            if self.memory.free() < _ROOM * self.need * coming:
                return False
        if self.most is not None:
            return count < self.most
        return not self.measures or count < self._target

    def _look_at_memory(self) -> None:
        if self.memory is not None and self.running and all(each.has_settled for each in self.running):
            self.need = max(self.need, self.memory.taken() // len(self.running))

    def _begin_window(self) -> None:
        self._since = self.clock()
        for each in self.running:
            each.counted = each.steps

    def _measure(self) -> None:
        """Compare the speed of this window with that of half as many trials."""
        seconds = self.clock() - self._since
        if seconds < _WINDOW or any(not each.has_settled for each in self.running):
            return
        if len(self.running) < self._target:
            self._begin_window()  # there are no more trials, or no room for them
            return
        rates = [(each.steps - each.counted) / seconds for each in self.running]
        # One that computed no step in a window, such as during a long validation, tells nothing of the speed.
        compared = [(rate, each.rate) for rate, each in zip(rates, self.running, strict=True) if each in self._before]
        slowed = [rate / before for rate, before in compared if rate and before]
        if compared and not slowed:
            self._begin_window()
            return
        gain = len(self.running) / max(1, len(self._before)) * (sum(slowed) / len(slowed)) if slowed else None
        for rate, each in zip(rates, self.running, strict=True):
            each.rate = rate
        if gain is not None and gain < _GAIN:
            self.most = max(1, len(self._before))  # those that are too many end by themselves
        else:
            self._target = 2 * len(self.running)
        self._before = list(self.running)
        self._begin_window()
        self._changed.notify_all()
