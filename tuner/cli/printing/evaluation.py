"""An evaluation on a terminal: its progress and its tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.cli.printing.progress import ProgressLine
from tuner.deploy.evaluate.comparison import Answers
from tuner.deploy.evaluate.report import Comparison, Mistake, Report
from tuner.deploy.evaluate.resampling import CONFIDENCE, SUPPORT, Interval
from tuner.deploy.evaluate.sets import WHOLE
from tuner.error_text import escaped
from tuner.formatting import counted, score
from tuner.report.terminal import terminal

_MAX_CLASSES = 40
"""Most classes that a table lists."""
_MAX_IMAGES = 10
"""Most images that are listed on which two models differ."""


class Watching(ProgressLine):
    """Shows how much is done of each step of an evaluation."""

    def __init__(self) -> None:
        super().__init__("loading the model")

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show what is done, and how much of it."""
        self.show(f"{what}: {done:,} of {total:,}")


def print_report(report: Report, worst: int) -> None:
    """Print what an evaluation found.

    Args:
        report: What it found.
        worst: Most mistakes that are listed of each head.
    """
    console = terminal()

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    of = "all images" if report.split == WHOLE else f"the {report.split} set"
    say(f"{report.model} on {of} of {report.data}: {counted(report.measured.images, 'image')}")
    for note in report.notes:
        say(note, "yellow")
    console.print(_metrics(report))
    for head, rows in report.by_class.items():
        _print_classes(console, head, rows)
    for head, mistakes in report.worst.items():
        wrong = int(report.measured.wrong[head].sum())
        say(f"{head}: {counted(wrong, 'image has', 'images have')} mistakes" + ("; the worst:" if mistakes else ""))
        if mistakes and worst:
            console.print(_mistakes(mistakes[:worst]))
    if report.comparison is not None:
        _print_comparison(console, report.comparison)


def _metrics(report: Report) -> Table:
    table = Table("metric", *_numbers("value"), box=None)
    for name, (value, found) in report.metrics.items():
        table.add_row(name, score(value), _text(found))
    return table


def _numbers(*names: str) -> list[Any]:
    """Columns of numbers, and that of their interval."""
    from rich.table import Column

    titles = [*names, f"{CONFIDENCE:.0%} interval"]
    return [Column(each, justify="right") for each in titles]


def _text(found: Interval | None) -> str:
    return "" if found is None else f"{score(found.low)} to {score(found.high)}"


def _print_classes(console: Console, head: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The metrics of each class; of many classes those that are found least."""
    columns = [name for name in rows[0] if name not in ("class", SUPPORT)] if rows else []
    if not columns:
        return
    if len(rows) > _MAX_CLASSES:
        rows = sorted(rows, key=lambda row: (row[columns[0]][0] != row[columns[0]][0], row[columns[0]][0]))
        console.print(Text(f"{head}: the {_MAX_CLASSES} of {len(rows):,} classes with the lowest {columns[0]}"))
        rows = rows[:_MAX_CLASSES]
    table = Table(head, SUPPORT, *columns, box=None)
    for row in rows:
        measured = [row[name] for name in columns]
        cells = [f"{score(value)} [{_text(found)}]" if found else score(value) for value, found in measured]
        table.add_row(Text(escaped(row["class"])), f"{row[SUPPORT]:,}", *map(Text, cells))
    console.print(table)


def _mistakes(mistakes: Sequence[Mistake]) -> Table:
    table = Table("loss", "true", "predicted", "image", box=None)
    for each in mistakes:
        table.add_row(score(each.loss), *map(Text, map(escaped, (each.true, each.predicted, each.path))))
    return table


def _print_comparison(console: Console, found: Comparison) -> None:
    console.print(Text(f"compared with {found.model}, on the same images"), soft_wrap=True)
    table = Table("metric", *_numbers("this", "other", "difference"), "p", box=None)
    for each in found.differences:
        first, second = each.values
        p = "" if each.p is None else f"{each.p:.3g}"
        table.add_row(each.name, score(first), score(second), score(first - second), _text(each.interval), p)
    console.print(table)
    for answers in found.answers:
        _print_answers(console, answers)


def _print_answers(console: Console, found: Answers) -> None:
    first, second = len(found.only_first), len(found.only_second)
    text = f"{found.head}: {counted(first, 'image')} on which the other alone is wrong, {second:,} on which this is, "
    text += f"{found.both_wrong:,} on which both are"
    if found.p is not None:
        text += f"; McNemar's exact test: p = {found.p:.3g}"
    console.print(Text(text), soft_wrap=True, highlight=False)
    for title, paths in (("the other alone is wrong", found.only_first), ("this alone is wrong", found.only_second)):
        for path in paths[:_MAX_IMAGES]:
            console.print(Text(f"  {title}: {escaped(path)}"), soft_wrap=True, highlight=False)
        if len(paths) > _MAX_IMAGES:
            console.print(Text(f"  ... and {len(paths) - _MAX_IMAGES:,} more: --json lists all"), highlight=False)
