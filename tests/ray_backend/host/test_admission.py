"""How many trials a host admits, by the memory and the speed of a device that is only pretended."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tuner.ray_backend.host.admission import Admission, Place

GIGA = 10**9


class Device:
    """A device of so many bytes, on which each trial takes some, and so many steps a second are made together."""

    def __init__(
        self, bytes: int = 100 * GIGA, need: int = GIGA, speed: Callable[[int], float] = lambda n: 100
    ) -> None:
        self.bytes, self.need, self.speed = bytes, need, speed
        self.now = 0.0
        self.admission: Admission | None = None

    def taken(self) -> int:
        assert self.admission is not None
        return self.need * sum(place.steps > 0 for place in self.admission.running)

    def free(self) -> int:
        return self.bytes - self.taken()


class Full(Exception):
    """There is no place."""


def refuse(seconds: float) -> None:
    raise Full


class Job:
    """Trials that enter a device whenever there is room, and train on it in turn."""

    def __init__(self, device: Device, measures: bool) -> None:
        self.device = device
        self.admission = device.admission = Admission(device, measures, clock=lambda: device.now)
        self.trials: list[tuple[Place, ExitStack]] = []

    def enter(self, most: int = 1000) -> int:
        """Let trials enter until there is no room, or so many are there; return how many are there."""
        while len(self.trials) < most:
            stack = ExitStack()
            try:
                place = stack.enter_context(self.admission.entered(refuse))
            except Full:
                break
            self.trials.append((place, stack))
        return len(self.trials)

    def train(self, seconds: float) -> None:
        end = self.device.now + seconds
        while self.device.now < end:
            self.device.now += len(self.trials) / self.device.speed(len(self.trials))
            for place, _ in self.trials:
                self.admission.step(place)

    def leave(self) -> None:
        self.trials.pop()[1].close()


def test_the_first_one_tells_how_much_memory_a_trial_takes() -> None:
    job = Job(Device(bytes=10 * GIGA), measures=False)
    assert job.enter() == 1, "nobody knows what a trial takes"
    job.train(1)
    assert job.enter() == 9, "a tenth of a trial stays free, also of those that have not taken theirs yet"
    job.train(1)
    assert job.enter() == 9
    job.leave()
    assert job.enter() == 9


def test_trials_of_a_few_steps_tell_it_as_they_end() -> None:
    job = Job(Device(bytes=10 * GIGA), measures=False)
    job.enter()
    job.admission.step(job.trials[0][0])
    job.leave()
    assert job.enter() == 9


def test_with_a_number_of_the_user_s_speed_does_not_matter() -> None:
    job = Job(Device(), measures=False)
    job.enter()
    job.train(1)
    assert job.enter(most=50) == 50


@pytest.mark.parametrize(("best", "admitted"), [(1, 1), (4, 4), (6, 8), (16, 16)])
def test_as_many_are_admitted_as_add_to_the_speed(best: int, admitted: int) -> None:
    """Up to `best` trials are no slower than one; that twice as many add nothing is seen once they are there."""
    job = Job(Device(speed=lambda trials: 200.0 * min(trials, best)), measures=True)
    for _ in range(10):
        job.enter(most=200)
        job.train(2)
    assert job.admission.most == admitted
    while len(job.trials) >= admitted:
        job.leave()
    assert job.enter(most=200) == admitted


def test_the_speed_of_other_models_does_not_count_as_a_loss() -> None:
    """Beside the first trials come some that take ten times as long, which leaves the first ones as fast as before."""
    job = Job(Device(), measures=True)
    job.enter()

    def train(seconds: float) -> None:
        end, ticks = job.device.now + seconds, 0
        while job.device.now < end:
            job.device.now += 0.001
            ticks += 1
            for number, (place, _) in enumerate(job.trials):
                if number == 0 or ticks % 10 == 0:
                    job.admission.step(place)

    for _ in range(3):
        train(3)
        job.enter(most=8)
    assert len(job.trials) == 8 and job.admission.most is None


def test_a_trial_without_a_step_in_a_window_tells_nothing_of_the_speed() -> None:
    """It evaluates, or saves, while the others go on."""
    job = Job(Device(), measures=True)
    job.enter()
    job.train(1)
    assert job.enter() == 2

    def train(idle: Place | None) -> None:
        end = job.device.now + 3
        while job.device.now < end:
            job.device.now += 0.01
            for place, _ in job.trials:
                if place is not idle:
                    job.admission.step(place)

    train(idle=None)
    assert job.enter() == 4
    idle = job.trials[0][0]
    train(idle=idle)
    train(idle=None)
    train(idle=idle)
    assert job.admission.most is None and job.enter(most=8) == 8


def test_trials_too_short_to_be_measured_are_admitted_by_memory() -> None:
    job = Job(Device(bytes=1000 * GIGA), measures=True)
    for _ in range(8):
        job.enter(most=64)
        job.train(0.1)
        job.leave()
    assert job.enter(most=64) == 64


def test_no_more_are_admitted_than_the_limit() -> None:
    device = Device()
    admission = device.admission = Admission(device, measures=False, clock=lambda: 0.0, limit=3)
    with ExitStack() as trials:
        first = trials.enter_context(admission.entered(refuse))
        for _ in range(8):
            admission.step(first)
        trials.enter_context(admission.entered(refuse))
        third = trials.enter_context(ExitStack())
        third.enter_context(admission.entered(refuse))
        with pytest.raises(Full), admission.entered(refuse):
            pytest.fail("there are three")
        third.close()
        trials.enter_context(admission.entered(refuse))


def test_one_that_needs_much_has_few_beside_it_as_long_as_it_trains() -> None:
    job = Job(Device(), measures=False)
    job.enter()
    job.train(1)
    job.enter(most=4)
    with pytest.raises(Full), job.admission.entered(refuse, allowed=2):
        pytest.fail("there are four")
    job.leave()
    job.leave()
    with job.admission.entered(refuse, allowed=2) as place:
        job.train(1)
        assert job.enter(most=8) == 2, "it would not fit beside three"
        job.leave()
        assert job.enter(most=8) == 2 and place.others == 2
    assert job.enter(most=8) == 8


def test_who_waits_first_enters_first() -> None:
    """One that waits for the others to end is not overtaken by those that would fit."""
    job = Job(Device(), measures=False)
    job.enter()
    job.train(1)
    entered, order = threading.Event(), list[str]()

    def enter(name: str, allowed: float) -> None:
        def wait(seconds: float) -> None:
            entered.set()

        with job.admission.entered(wait, allowed):
            order.append(name)

    threads = []
    for name, allowed in (("greedy", 0.0), ("modest", 5.0)):
        entered.clear()
        threads.append(threading.Thread(target=enter, args=(name, allowed)))
        threads[-1].start()
        assert entered.wait(60)
    assert not order
    job.leave()
    for thread in threads:
        thread.join(60)
    assert order == ["greedy", "modest"]


def test_without_a_limit_of_memory_all_are_admitted() -> None:
    admission, stack = Admission(None, measures=False), ExitStack()
    for _ in range(100):
        stack.enter_context(admission.entered(refuse))
    assert len(admission.running) == 100
    stack.close()
    assert not admission.running


def test_who_waits_may_leave() -> None:
    admission = Admission(Device(), measures=True)
    assert admission.memory is not None
    admission.memory.admission = admission  # type: ignore[attr-defined]
    with admission.entered(refuse):
        with pytest.raises(Full), admission.entered(refuse):
            pytest.fail("there is no room")
        assert len(admission.running) == 1
