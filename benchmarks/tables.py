"""Formats results of benchmarks: Markdown tables, medians with their spread."""

from collections.abc import Iterable, Sequence
from statistics import median


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; its first column is aligned left, the others right."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows))


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Format the median, the smallest and the largest value: ``3.21 (3.05..3.34)``."""
    return f"{median(values):{form}} ({min(values):{form}}..{max(values):{form}})"
