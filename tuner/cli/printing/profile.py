"""Where the time of a trial goes, on a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.error_text import escaped
from tuner.formatting import counted
from tuner.train.profiling.profile import MEANING, Profile

_OPERATORS = 10
"""Most operators that are shown."""
_NAME = 60
"""Most characters of a name that are shown: those of kernels are long."""
_NOT_OF_STEPS = ("evaluation", "checkpoint", "report")
"""Parts of an epoch that no step has."""


def print_profile(console: Console, profile: Profile, advice: Sequence[str], trace: Path) -> None:
    """Print a profile.

    Args:
        console: Where to print.
        profile: The profile.
        advice: What to change, each in a line.
        trace: The file with the trace.
    """

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    rate = profile.images / profile.training
    say(
        f"an epoch on {profile.device}, {profile.precision}: {_seconds(profile.wall)}, {rate:,.0f} images/s in training"
    )
    if profile.how:
        say(f"steps are computed {profile.how}" if profile.how.startswith("eagerly") else f"steps are {profile.how}")
    if profile.measured is not None:
        steps, images = profile.measured
        say(
            f"scaled from {counted(steps, 'step')} of {profile.steps:,} and {counted(images, 'validation image')}",
            "yellow",
        )
    if profile.note:
        say(profile.note, "yellow")
    console.print(_parts(profile))
    console.print(_operators(profile))
    change = profile.slowdown - 1
    say(
        f"times are the mean of {counted(profile.epochs, 'epoch')} after the first one; how the steps split into parts "
        f"was traced in a later epoch, in which they took {abs(change):.0%} {'longer' if change >= 0 else 'less time'}"
    )
    say("what to change:", "bold")
    for line in advice:
        say(f"- {escaped(line)}")
    say(f"trace: {trace}")
    say("  open it at https://ui.perfetto.dev (it stays on this machine), or without a network in chrome://tracing")


def _parts(profile: Profile) -> Table:
    table = Table("part")
    for name in ("s an epoch", "ms a step", "share"):
        table.add_column(name, justify="right")
    table.add_column("what it is")
    percentages = profile.percentages()
    for part, seconds in profile.seconds.items():
        of_step = "" if part in _NOT_OF_STEPS else f"{1000 * seconds / profile.steps:,.3f}"
        what = MEANING[part]
        if part == "evaluation" and profile.waiting_in_evaluation >= 0.01 * profile.wall:
            what += f"; {_seconds(profile.waiting_in_evaluation)} of it is waiting for data"
        table.add_row(part, f"{seconds:,.3f}", of_step, f"{percentages[part]:.1f} %", what)
    table.add_section()
    table.add_row("all", f"{profile.wall:,.3f}", "", f"{sum(percentages.values()):.1f} %", "")
    return table


def _operators(profile: Profile) -> Table:
    on_gpu = profile.launches is not None
    table = Table("operator of a step" if not on_gpu else "operator of a step, by its kernels")
    for name in ("launches" if on_gpu else "calls", "µs each", "ms a step", "share of all"):
        table.add_column(name, justify="right")
    total = sum(each.seconds for each in profile.operators)
    for each in profile.operators[:_OPERATORS]:
        name = each.name if len(each.name) <= _NAME else f"{each.name[: _NAME - 1]}…"
        share = each.seconds / total if total else 0.0
        microseconds = 1e6 * each.seconds / each.calls
        row = (f"{each.calls:,.1f}", f"{microseconds:,.1f}", f"{1000 * each.seconds:,.3f}", f"{100 * share:.1f} %")
        table.add_row(Text(escaped(name)), *row)
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds < 100 else f"{seconds:,.0f} s"
