"""What is printed and written: the table in Markdown, and the figures as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.gpu.figures import Figure, Result
from benchmarks.gpu.rows import Row
from benchmarks.tables import spread, table
from tuner.formatting import counted

_HEADER = ["row", "figure", "card", "median (min..max), n", "times textbook", "times eager", "target", "reached"]


def markdown(results: Sequence[tuple[Row, Result]], card: str) -> str:
    """The table of all figures, and what was not measured."""
    lines = [line for row, result in results for line in _lines(row, result, card)]
    text = table(_HEADER, lines) if lines else "No figure was measured."
    notes = dict.fromkeys(
        f"- {row.name}, {figure.name}: {figure.note}"
        for row, result in results
        for figure in result.figures
        if figure.note
    )
    missing = [
        f"- {row.name} {'was skipped' if result.status == 'skipped' else 'failed'}"
        f"{' after its first figures' if result.figures else ''}: {result.why}"
        for row, result in results
        if result.status != "measured"
    ]
    parts = [text]
    parts += ["\n".join(notes)] if notes else []
    parts += ["Not measured:", "\n".join(missing)] if missing else []
    return "\n\n".join(parts)


def _lines(row: Row, result: Result, card: str) -> Iterable[list[str]]:
    for figure in result.figures:
        reached = "" if figure.reached is None else "yes" if figure.reached else "no"
        ratios = [spread(each) if each else "" for each in (figure.times_textbook, figure.times_eager)]
        yield [row.name, figure.name, card, _value(figure), *ratios, figure.target, reached]


def _value(figure: Figure) -> str:
    most = max(map(abs, figure.values))
    form = ",.0f" if most >= 1000 else ".1f" if most >= 100 else ".3g" if most and most < 0.01 else ".2f"
    if figure.name.startswith("val_"):
        form = ".4f"
    return f"{spread(figure.values, form)} {figure.unit}".strip() + f", {counted(len(figure.values), figure.repeats)}"


def as_json(results: Sequence[tuple[Row, Result]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, for a program: facts of the run, and each row with its figures, each with the card."""
    return {**facts, "rows": [_row(row, result, str(facts["card"])) for row, result in results]}


def _row(row: Row, result: Result, card: str) -> dict[str, Any]:
    figures = [asdict(each) | {"median": each.median, "card": card} for each in result.figures]
    about = {"name": row.name, "what": row.what, "target": row.target}
    return about | {"status": result.status, "why": result.why, "seconds": result.seconds, "figures": figures}
