"""The search for the size of a batch, among speeds that are given."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import torch

from tuner.data import Digits
from tuner.errors import UserError
from tuner.interfaces import Batch
from tuner.train.fitting.batch_search import Measured, search
from tuner.train.fitting.step_speed import Repeated, Speedometer
from tuner.train.trial_config import TrialConfig


def found(
    speeds: dict[int, float | None], most: int = 2**20, least: int = 1, seconds: float = 0.0
) -> tuple[Measured, list[int]]:
    """What is found of these speeds, and the sizes that were asked for; each takes so many seconds."""
    asked: list[int] = []
    times = count(0, seconds)

    def measure(size: int) -> float | None:
        asked.append(size)
        return speeds[size]

    return search(measure, most=most, least=least, clock=lambda: next(times)), asked


class TestUpward:
    def test_until_two_doublings_gain_less_than_a_tenth_each(self) -> None:
        measured, asked = found({16: 100, 32: 180, 64: 200, 128: 205, 256: 210, 512: 900})
        assert (measured.batch_size, asked) == (64, [16, 32, 64, 128, 256])
        assert "more gain less than 10%" in measured.end

    def test_one_slow_size_does_not_end_it(self) -> None:
        measured, _ = found({16: 100, 32: 90, 64: 300, 128: 100, 256: 100})
        assert measured.batch_size == 64

    def test_two_doublings_have_to_gain_twice_as_much(self) -> None:
        assert found({16: 100, 32: 105, 64: 118})[0].batch_size == 16

    def test_until_memory_runs_out(self) -> None:
        measured, asked = found({16: 100, 32: 180, 64: None})
        assert (measured.batch_size, asked, measured.end) == (32, [16, 32, 64], "64 do not fit in memory")

    def test_until_the_training_set_is_exhausted(self) -> None:
        measured, asked = found({16: 100, 32: 180, 64: 300}, most=100)
        assert (measured.batch_size, asked) == (64, [16, 32, 64])
        assert "no 128 images" in measured.end

    def test_a_training_set_smaller_than_the_first_size(self) -> None:
        assert found({4: 100}, most=7)[1] == [4]

    def test_until_it_takes_too_long(self) -> None:
        measured, asked = found({16 * 2**k: 100.0 * 2**k for k in range(20)}, seconds=25)
        assert (asked, "not tried after 75 s" in measured.end) == ([16, 32, 64], True)


class TestDownward:
    def test_halves_what_does_not_fit(self) -> None:
        measured, asked = found({16: None, 8: None, 4: 12})
        assert (measured.batch_size, asked, measured.end) == (4, [16, 8, 4], "8 do not fit in memory")

    @pytest.mark.parametrize("least", [1, 2])
    def test_not_even_the_smallest_fits(self, least: int) -> None:
        with pytest.raises(UserError, match="a training step of") as raised:
            found(dict.fromkeys([16, 8, 4, 2, 1], None), least=least)
        [problem] = raised.value.problems
        assert problem.key == "trial.data.batch_size" and "smaller model" in problem.hint
        assert ("2 images, the fewest" in problem.message) == (least == 2)


def test_it_says_what_was_measured() -> None:
    measured = Measured(32, {16: 1234.5, 32: 2000, 64: 3.14}, "64 do not fit in memory", "cpu", "width=8", 12)
    assert measured.explain() == (
        "batch size 32, measured on cpu with width=8: 16: 1,234, 32: 2,000, 64: 3.1 images/s; 64 do not fit in memory; "
        "12 steps an epoch"
    )
    shared = Measured(64, {16: 100, 32: 200}, "it ended", "cuda", ranks=2)
    assert shared.explain().startswith("batch size 64 for 2 processes, measured in one of them on cuda: 16: 100,")


class Narrow(Digits):
    """Digits of which batches of more than 8 images do not fit in memory."""

    @property
    def augmentation(self) -> Callable[[Batch], Batch]:
        def change(batch: Batch) -> Batch:
            if len(batch) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return batch

        return change


def trial(**parts: Any) -> TrialConfig:
    whole: dict[str, Any] = {
        "data": {"kind": "digits", "batch_size": "auto"},
        "model": {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8},
        "precision": "float32",
    }
    return TrialConfig.model_validate(whole | parts)


@pytest.fixture
def sample() -> Iterator[Any]:
    yield Digits().first(20)


@pytest.mark.slow
class TestSpeed:
    def test_what_runs_out_of_memory_is_halved(self, sample: Any) -> None:
        config = trial().model_copy(update={"data": Narrow(batch_size="auto")})
        asked: list[int] = []

        def measure(size: int) -> float | None:
            asked.append(size)
            return Speedometer(config, sample).measure(size)

        measured = search(measure, most=1000, least=1)
        assert (measured.batch_size, asked) == (8, [16, 8])
        assert measured.speeds[8] > 0

    @pytest.mark.parametrize(
        "parts",
        [
            {"optimizer": {"kind": "sgd", "lr": 1e30, "momentum": 0.9}},
            {"optimizer": {"kind": "lion"}, "accumulate": 3, "schedule": {"kind": "one_cycle"}, "ema": {}},
            {"optimizer": {"kind": "muon", "head_lr": 0.1}, "clip_norm": 1.0},
        ],
        ids=["diverging", "accumulated", "clipped"],
    )
    def test_of_every_kind_of_step(self, parts: dict[str, Any], sample: Any) -> None:
        speed = Speedometer(trial(**parts), sample).measure(16)
        assert speed is not None and speed > 0

    def test_what_else_fails_is_raised(self, sample: Any) -> None:
        sample = sample[torch.arange(4)]  # a copy
        sample.targets["label"].fill_(10)
        with pytest.raises(IndexError, match="out of bounds"):
            Speedometer(trial(), sample).measure(4)


def test_a_training_set_that_repeats_a_few_samples() -> None:
    images = Digits().first(3)
    batches = list(Repeated(images, 8).batches(5, seed=1))
    assert [len(batch) for batch in batches] == [5, 3]
    assert torch.equal(torch.cat([b.targets["label"] for b in batches]), images.targets["label"].repeat(3)[:8])
    assert len(Repeated(images, 8).first(4)) == 4
