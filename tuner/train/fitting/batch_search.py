"""The search for the largest batch that fits in memory and still trains faster than a smaller one."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tuner.errors import Problem, UserError
from tuner.formatting import counted

KEY = "trial.data.batch_size"
"""The key at which problems are told."""

PLAN = "auto: the largest that fits in memory and still trains faster, measured before the first trial"
"""What is told of a batch whose size is not measured yet."""

FIRST = 16
"""Images of the first batch that is tried."""
GAIN = 0.1
"""By which share twice as many images in a batch have to train faster, to be worth their memory."""
_LOOKS_AHEAD = 2
"""Doublings without this gain that end the search: one alone may be slow by chance."""
_SECONDS = 60.0
"""Time after which no larger batch is tried."""


@dataclass(frozen=True)
class Measured:
    """The size of a batch, and what it follows from.

    Args:
        batch_size: Images of a batch.
        speeds: Images per second of each size that was tried and fits, in the order of the trials.
        end: Why no larger batch was tried, as a clause.
        device: Type of the device.
        model: What was measured, where the trials of a job differ: searched keys and their values.
        steps: Steps of the optimizer in an epoch, with this size.
    """

    batch_size: int
    speeds: dict[int, float] = field(default_factory=dict)
    end: str = ""
    device: str = ""
    model: str = ""
    steps: int = 0
    ranks: int = 1
    """Processes among which a batch is shared out; one of them was measured."""

    def explain(self) -> str:
        """What was measured, in a sentence."""
        speeds = ", ".join(f"{size}: {_brief(speed)}" for size, speed in sorted(self.speeds.items()))
        model = f" with {self.model}" if self.model else ""
        steps = f"; {counted(self.steps, 'step')} an epoch" if self.steps else ""
        shared = f" for {self.ranks} processes" if self.ranks > 1 else ""
        alone = "in one of them " if self.ranks > 1 else ""
        what = f"batch size {self.batch_size}{shared}, measured {alone}on {self.device}{model}"
        return f"{what}: {speeds} images/s; {self.end}{steps}"


def search(
    measure: Callable[[int], float | None],
    *,
    most: int,
    least: int,
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Find the size of a batch: powers of two upward, downward where the first one does not fit.

    A size is chosen if its images per second are more than those of the chosen size before, by `GAIN` for each time
    that it was doubled. The search ends behind two doublings that gain less, at a size that does not fit in memory, at
    the size of the training set, or after a minute.

    Args:
        measure: Measures a size: images per second, or None if it does not fit in memory.
        most: Largest size: images that a step can take.
        least: Smallest size with which the model can be trained, 1 or 2.
        clock: Seconds since any time.

    Raises:
        UserError: Not even the smallest batch fits.
    """
    began = clock()
    size = max(least, min(FIRST, _power_of_two(most)))
    end = ""
    while (speed := measure(size)) is None:
        if size <= least:
            raise UserError(_too_large(least))
        end, size = f"{size} do not fit in memory", max(least, size // 2)
    chosen, speeds = size, {size: speed}
    while not end:
        if 2 * size > most:
            end = f"the training set has no {2 * size} images for a step"
        elif size >= chosen * 2**_LOOKS_AHEAD:
            end = f"more gain less than {GAIN:.0%} each time they are doubled"
        elif (took := clock() - began) > _SECONDS:
            end = f"larger ones were not tried after {took:.0f} s"
        elif (speed := measure(2 * size)) is None:
            end = f"{2 * size} do not fit in memory"
        else:
            size *= 2
            speeds[size] = speed
            doublings = (size // chosen).bit_length() - 1
            if speed >= speeds[chosen] * (1 + GAIN) ** doublings:
                chosen = size
    return Measured(chosen, speeds, end)


def _too_large(least: int) -> Problem:
    fewest = ", the fewest that can be trained on," if least > 1 else ""
    message = f"auto finds none: a training step of {counted(least, 'image')}{fewest} does not fit in memory"
    hint = (
        "use a smaller model, smaller images (data.size) or precision: bfloat16, or give a trial more memory: fewer at "
        "once by a larger resources.cpu or resources.gpu, or a larger machine"
    )
    return Problem(message, KEY, hint=hint)


def _power_of_two(most: int) -> int:
    """The largest power of two that is at most `most`, which is 1 or more."""
    return 1 << (max(1, most).bit_length() - 1)


def _brief(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
