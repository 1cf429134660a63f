"""What a benchmark prints: Markdown tables, medians with their spread."""

from collections.abc import Iterable, Sequence
from statistics import median


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows))


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and the smallest and largest value: ``3.21 (3.05..3.34)``."""
    return f"{median(values):{form}} ({min(values):{form}}..{max(values):{form}})"
