"""Seconds of nested phases."""

from collections.abc import Callable

import pytest

from tuner.train.profiling.stopwatch import Stopwatch


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_phase_does_not_count_what_is_within_it(clock: Clock) -> None:
    stopwatch = Stopwatch("host", clock)
    stopwatch.start()
    clock.now += 1
    with stopwatch.phase("training"):
        clock.now += 2
        with stopwatch.phase("waiting"):
            assert stopwatch.phase_now == "waiting"
            clock.now += 4
        clock.now += 8
    clock.now += 16
    stopwatch.stop()
    assert stopwatch.seconds == {"host": 17, "training": 10, "waiting": 4}


def test_nothing_counts_before_it_starts_and_after_it_stops(clock: Clock) -> None:
    stopwatch = Stopwatch("host", clock)

    def passes(seconds: float, then: Callable[[], None]) -> None:
        with stopwatch.phase("training"):
            clock.now += seconds
            then()
            clock.now += seconds

    passes(1, stopwatch.start)
    passes(10, stopwatch.stop)
    passes(100, lambda: None)
    assert stopwatch.seconds == {"training": 11, "host": 0}


def test_a_phase_that_raises_ends(clock: Clock) -> None:
    stopwatch = Stopwatch("host", clock)
    stopwatch.start()
    with pytest.raises(ValueError), stopwatch.phase("training"):
        clock.now += 1
        raise ValueError
    clock.now += 2
    stopwatch.stop()
    assert stopwatch.seconds == {"training": 1, "host": 2}
