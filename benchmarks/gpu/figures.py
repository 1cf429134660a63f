"""What a row of the table measures, and how it travels from the process of the row to that of the table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypedDict


class Skipped(Exception):
    """A row, or the rest of one, cannot be measured here. Its text says why."""


class TimeIsUp(Exception):
    """A row has used its time.

    Args:
        text: What was not done.
        seconds: How long something ran that was ended; 0 if nothing was begun.
    """

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        super().__init__(text)
        self.seconds = seconds


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Args:
        name: What was measured.
        unit: Its unit.
        values: The value of each repeat.
        times_textbook: How many times the textbook loop each of them is; empty where there is no such ratio.
        times_eager: How many times the eager loop, or the same with eager steps; empty where there is no such ratio.
        target: What is aimed at, in words; empty for nothing.
        reached: Whether it is reached; None where nothing is aimed at, or without a GPU.
        repeats: What one of the repeats is.
        note: What a reader has to know beside it.
    """

    name: str
    unit: str
    values: Sequence[float]
    times_textbook: Sequence[float] = ()
    times_eager: Sequence[float] = ()
    target: str = ""
    reached: bool | None = None
    repeats: str = "turn"
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the repeats."""
        return median(self.values)


class Ratios(TypedDict):
    """The ratios of a figure, as arguments of it."""

    times_textbook: list[float]
    times_eager: list[float]


@dataclass
class Result:
    """What became of a row.

    Args:
        status: ``measured``, ``skipped`` or ``failed``. A row that was skipped or failed may have figures of its first
            part.
        why: Why it was skipped or failed.
        seconds: What it took.
        figures: What was measured.
    """

    status: str = "failed"
    why: str = ""
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)


class Report:
    """The file to which the process of a row writes what it has measured, line by line, so that none is lost.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, figure: Figure) -> None:
        """Write a figure."""
        self._write({"figure": asdict(figure)})

    def end(self, status: str, why: str = "") -> None:
        """Write what became of the row."""
        self._write({"status": status, "why": why})

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> Result:
        """What is there by now; the status is ``failed`` where the process has written none."""
        result = Result()
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for line in map(json.loads, lines):
            if "figure" in line:
                result.figures.append(Figure(**line["figure"]))
            else:
                result.status, result.why = line["status"], line["why"]
        return result
