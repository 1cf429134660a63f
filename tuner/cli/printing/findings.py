"""What was found in a dataset, on a terminal, and the progress of finding it."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.cli.printing.progress import ProgressLine
from tuner.formatting import counted, duration
from tuner.inspection.findings import IMBALANCE, BoxCounts, Findings, Same

_MAX_CLASSES = 40
"""Most classes that the table lists."""
_MAX_SHOWN = 20
"""Most files of a kind that are listed."""


class Counting(ProgressLine):
    """Shows how many images have been looked at, and how fast.

    Args:
        what: What is done.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._what = what
        self._began = time.perf_counter()

    def __call__(self, done: int, total: int, broken: int) -> None:
        """Show the progress."""
        speed = done / max(time.perf_counter() - self._began, 1e-3)
        text = f"{self._what}: {done:,} of {total:,} images, {speed:,.0f} a second"
        text += f", {broken:,} cannot be read" if broken else ""
        text += f", {duration((total - done) / max(speed, 1e-3))} to go" if done < total else ""
        self.show(text)


def print_findings(console: Console, findings: Findings, page: Path | None = None) -> None:
    """Print what was found in a dataset.

    Args:
        console: Where to print.
        findings: What was found.
        page: The page of augmented images that was written; None for none.
    """

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    say(f"{findings.where}: {findings.what}, {counted(findings.images, 'image')}")
    if findings.images:
        console.print(_table(findings))
    if findings.boxes:
        console.print(_table_of_boxes(findings.boxes))
    if sides := findings.sides:
        for name, (least, middle, most) in zip(("width", "height"), sides, strict=True):
            say(f"{name:<7}{least} pixels" if least == most else f"{name:<7}{least} to {most} pixels, median {middle}")
    if findings.modes:
        say(f"format {', '.join(f'{mode} {count:,}' for mode, count in findings.modes.most_common())}")
    if (imbalance := findings.imbalance) and imbalance >= IMBALANCE:
        say(f"imbalance: the largest class has {imbalance:.3g} times as many images as the smallest", "yellow")
    for note in findings.notes:
        say(f"note: {note}", "yellow")
    _print_same(console, findings)
    if findings.broken:
        say(f"{counted(len(findings.broken), 'file')} cannot be used:", "red")
        _print_some(console, (f"{name}: {why}" for name, why in findings.broken.items()), len(findings.broken), "red")
    for problem in findings.refused:
        say(f"training refuses it: {problem.message}", "red")
        say(f"    {problem.hint}")
    if page is not None:
        say(f"what a network sees: {page}")
    if not findings.is_broken:
        say("nothing is broken", "green")


def _table(findings: Findings) -> Table:
    table = Table(header_style="bold")
    table.add_column("class", overflow="fold")
    for split in findings.splits:
        table.add_column(split or "images", justify="right")
    classes = findings.classes
    for label in classes[:_MAX_CLASSES]:
        counts = [findings.counts[split].get(label, 0) for split in findings.splits]
        table.add_row(Text(label or "(none)"), *(f"{count:,}" for count in counts))
    if len(classes) > _MAX_CLASSES:
        table.caption = f"and {counted(len(classes) - _MAX_CLASSES, 'class', 'classes')} more"
    if len(classes) > 1:
        totals = [f"{sum(findings.counts[split].values()):,}" for split in findings.splits]
        table.add_section()
        table.add_row(counted(len(classes), "class", "classes"), *totals, style="bold")
    return table


def _table_of_boxes(boxes: Mapping[str, BoxCounts]) -> Table:
    """How many boxes of each class each set has."""
    table = Table(header_style="bold")
    table.add_column("boxes of", overflow="fold")
    for split in boxes:
        table.add_column(split, justify="right")
    sets, classes = boxes.values(), list(next(iter(boxes.values())).by_class)
    for label in classes[:_MAX_CLASSES]:
        table.add_row(Text(label), *(f"{each.by_class[label]:,}" for each in sets))
    if len(classes) > _MAX_CLASSES:
        table.caption = f"and {len(classes) - _MAX_CLASSES:,} classes more"
    table.add_section()
    table.add_row("all boxes", *(f"{each.boxes:,}" for each in sets), style="bold")
    if any(each.ignored for each in sets):
        table.add_row("ignored ones of these", *(f"{each.ignored:,}" for each in sets))
    table.add_row("images", *(f"{each.images:,}" for each in sets))
    table.add_row("images without boxes", *(f"{each.without:,}" for each in sets))
    return table


def _print_same(console: Console, findings: Findings) -> None:
    leaks, rest = findings.leaks, [each for each in findings.same if not each.leaks]
    for group, style, what in (
        (leaks, "red", "in more than one set, so that what is measured on them is too good"),
        (rest, "yellow", "there more than once"),
    ):
        if not group:
            continue
        verb = "image is" if len(group) == 1 else "images are"
        console.print(Text(f"{len(group):,} {verb} {what}:", style=style), soft_wrap=True, highlight=False)
        _print_some(console, map(_of_same, group), len(group), style)


def _of_same(same: Same) -> str:
    where = f" (classes {', '.join(same.labels)})" if same.contradicts else ""
    names = [f"{name}" for name in same.names[:4]]
    more = f", and {len(same.names) - 4:,} more" if len(same.names) > 4 else ""
    return f"{' = '.join(names)}{more}{where}"


def _print_some(console: Console, lines: Iterable[str], count: int, style: str) -> None:
    for _, line in zip(range(_MAX_SHOWN), lines, strict=False):
        console.print(Text(f"  {line}", style=style), soft_wrap=True, highlight=False)
    if count > _MAX_SHOWN:
        console.print(Text(f"  and {count - _MAX_SHOWN:,} more; --json lists all"), highlight=False)
