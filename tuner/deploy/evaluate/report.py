"""What an evaluation found, as a person and a program read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.deploy.evaluate.comparison import Answers, Difference
from tuner.deploy.evaluate.measured import Measured
from tuner.deploy.evaluate.resampling import CONFIDENCE, SUPPORT, Interval, Resampled, interval
from tuner.inspection.hardest_picture import draw
from tuner.report import tables
from tuner.report.look import write_pictures


@dataclass(frozen=True)
class Mistake:
    """An image on which a model is wrong.

    Args:
        path: Its path.
        true: What is there.
        predicted: What the model says.
        loss: How wrong that is.
    """

    path: str
    true: str
    predicted: str
    loss: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Args:
        model: The other model.
        differences: The metrics of both.
        answers: On which images they differ, of each head whose images are judged.
    """

    model: str
    differences: list[Difference]
    answers: list[Answers]


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        model: The model.
        task: What it predicts, in words.
        data: Where the images are.
        split: Which set of the data they are; ``all`` for all of the data.
        measured: What was measured.
        resampled: The metrics in each of the resamples.
        resamples: Number of these.
        seed: Seed of these.
        paths: The path of each image that was measured.
        notes: What the user has to know, in sentences.
        comparison: The comparison with another model.
    """

    model: str
    task: str
    data: str
    split: str
    measured: Measured
    resampled: Resampled
    resamples: int
    seed: int
    paths: list[str]
    notes: list[str] = field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def metrics(self) -> dict[str, tuple[float, Interval | None]]:
        """The metrics, each with its interval."""
        found = self.measured.meter.compute()
        return {name: (value, interval(self.resampled.metrics.get(name))) for name, value in found.items()}

    @property
    def by_class(self) -> dict[str, list[dict[str, Any]]]:
        """The metrics of each class, by head: ``class``, ``support``, and of each metric the value and its interval."""
        found = {}
        for head, columns in self.measured.meter.by_class().items():
            resampled, target = self.resampled.by_class.get(head, {}), self.measured.targets[head]
            count = len(next(iter(columns.values())))
            found[head] = [
                {"class": target.name(number), SUPPORT: int(columns[SUPPORT][number])}
                | {
                    name: (values[number], interval(_column(resampled.get(name), number)))
                    for name, values in columns.items()
                    if name != SUPPORT
                }
                for number in range(count)
            ]
        return found

    @property
    def worst(self) -> dict[str, list[Mistake]]:
        """The worst mistakes, by head."""
        return {
            head: [
                Mistake(self.paths[each.index], each.texts.true, each.texts.predicted + each.texts.end, each.loss)
                for each in found.mistakes
            ]
            for head, found in self.measured.hardest.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it; values that are undefined are null."""
        found = {
            "model": self.model,
            "predicts": self.task,
            "data": self.data,
            "split": self.split,
            "images": self.measured.images,
            "left_out": self.measured.left_out,
            "notes": self.notes,
            "confidence": CONFIDENCE,
            "resamples": self.resamples,
            "seed": self.seed,
            "metrics": {name: _as_dict(*each) for name, each in self.metrics.items()},
            "by_class": {
                head: [
                    {name: _as_dict(*value) if isinstance(value, tuple) else value for name, value in row.items()}
                    for row in rows
                ]
                for head, rows in self.by_class.items()
            },
            "confusion": self.measured.meter.confusion(),
            "mistakes": {head: int(wrong.sum()) for head, wrong in self.measured.wrong.items()},
            "worst": {head: [vars(each) for each in rows] for head, rows in self.worst.items()},
        }
        return found if self.comparison is None else found | {"comparison": _comparison(self.comparison)}

    def write(self, folder: Path, text: str) -> None:
        """Write the report into a folder: the JSON ``text``, a table for each head, the pictures of the hardest images.

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(text, encoding="utf-8")
        names = {head: target.classes for head, target in self.measured.targets.items()}
        by_class = self.measured.meter.by_class()
        tables.write_by_class(
            {head: tables.class_table(columns, names[head]) for head, columns in by_class.items()}, folder
        )
        for head, matrix in self.measured.meter.confusion().items():
            tables.write_confusion(matrix, head, folder, names[head])
        errors = {head: tables.error_table(kinds) for head, kinds in self.measured.meter.errors().items()}
        tables.write_errors(errors, folder)
        write_pictures(folder, {head: draw(found) for head, found in self.measured.hardest.items()})


def _column(values: Any, number: int) -> Any:
    return None if values is None else values[:, number]


def _as_dict(value: float, found: Interval | None) -> dict[str, float | None]:
    low, high = (None, None) if found is None else (found.low, found.high)
    return {"value": value, "low": low, "high": high}


def _comparison(found: Comparison) -> Mapping[str, Any]:
    metrics = {
        each.name: {"model": each.values[0], "other": each.values[1]}
        | _as_dict(each.values[0] - each.values[1], each.interval)
        | {"p": each.p}
        for each in found.differences
    }
    for each in metrics.values():
        each["difference"] = each.pop("value")
    return {"other": found.model, "metrics": metrics, "images": [each.as_dict() for each in found.answers]}
