import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import Played, experiment
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.objectives import Objective
from tuner.report.tables import draw_confusion, draw_front, write_tables
from tuner.trials.generator import planned
from tuner.trials.trial import Trial

ACCURACY, LOSS = Objective(metric="val_accuracy", mode="max"), Objective(metric="val_loss", mode="min")
SIZE = Objective(metric="parameters", mode="min")


def trials(*points: tuple[Any, ...], objectives: tuple[Objective, ...] = (ACCURACY, SIZE)) -> list[Trial]:
    """A trial at each point, one value an objective."""
    spec = experiment(search={"kind": "random", "trials": max(2, len(points))})
    made = (planned(spec) or [])[: len(points)]
    for trial, point in zip(made, points, strict=True):
        trial.take(
            {"epoch": 1} | {o.metric: v for o, v in zip(objectives, point, strict=True) if v is not None}, ACCURACY
        )
        trial.end("completed", "")
    return made


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **more: Any) -> None:
        saved.append(self)
        save(self, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def line_of(axes: Axes) -> list[tuple[float, float]]:
    [line] = axes.lines
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


class TestTables:
    def test_the_leaderboard_is_the_one_that_is_ranked(self, tmp_path: Path) -> None:
        made = trials((0.5, 100), (0.9, 200))
        write_tables(made, [ACCURACY, SIZE], tmp_path)
        table = pd.read_csv(tmp_path / "leaderboard.csv")
        assert table["trial"].tolist() == [1, 0]
        assert table["parameters"].tolist() == [200, 100]
        assert table["optimizer.lr"].tolist() == [trial.assignment["optimizer.lr"] for trial in reversed(made)]
        assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]

    def test_a_population_has_its_history_key_by_key_in_the_order_in_which_it_happened(self, tmp_path: Path) -> None:
        spec = experiment(scheduler={"kind": "pbt"}, search={"kind": "random", "trials": 3})
        first, second, third = planned(spec) or []
        job = Played(spec)
        before = dict(third.assignment), dict(second.assignment)
        for trial in (first, second, third):
            job.report(trial, 0.5)
        job.mutate(third, first, {"optimizer.lr": 0.25, "optimizer.momentum": 0.5})
        for trial in (first, second, third):
            job.report(trial, 0.6)
        job.mutate(second, third, {"optimizer.lr": 0.2, "optimizer.momentum": 0.4})
        job.mutate(third, first, {"optimizer.lr": 0.1, "optimizer.momentum": 0.3})
        write_tables([first, second, third], [ACCURACY], tmp_path)
        table = pd.read_csv(tmp_path / "mutations.csv")
        assert list(table.columns) == ["epoch", "trial", "parent", "key", "before", "after"]
        rates = table[table["key"] == "optimizer.lr"].drop(columns="key").values.tolist()
        assert rates == [
            [1, 2, 0, before[0]["optimizer.lr"], 0.25],
            [2, 1, 2, before[1]["optimizer.lr"], 0.2],
            [2, 2, 0, 0.25, 0.1],
        ]
        assert len(table) == 6

    def test_without_trials_there_is_an_empty_table(self, tmp_path: Path) -> None:
        write_tables([], [ACCURACY], tmp_path)
        assert (tmp_path / "leaderboard.csv").read_text().strip() == ""


class TestFront:
    def test_it_is_a_line_over_all_trials(self, tmp_path: Path, figures: list[Figure]) -> None:
        made = trials((0.9, 500), (0.8, 300), (0.7, 400), (0.5, 100), (None, 50))
        made[4].end("failed", "boom")
        made[2].violations = {"latency_ms <= 1": 2.0}
        draw_front(made, [ACCURACY, SIZE], tmp_path)
        image = plt.imread(tmp_path / "pareto.png")
        assert image.ndim == 3 and image.std() > 0
        [axes] = figures[0].axes
        assert line_of(axes) == [(100, 0.5), (300, 0.8), (500, 0.9)]
        assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[400, 0.7]]  # what is dominated
        assert {text.get_text() for text in axes.texts} == {"0", "1", "3"}
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameters (min)", "val_accuracy (max)")

    def test_three_objectives_are_drawn_two_at_a_time(self, tmp_path: Path, figures: list[Figure]) -> None:
        made = trials((0.9, 500, 1.0), (0.8, 300, 0.5), objectives=(ACCURACY, SIZE, LOSS))
        draw_front(made, [ACCURACY, SIZE, LOSS], tmp_path)
        labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figures[0].axes]
        assert labels == [
            ("parameters (min)", "val_accuracy (max)"),
            ("val_loss (min)", "val_accuracy (max)"),
            ("val_loss (min)", "parameters (min)"),
        ]

    def test_it_takes_what_is_no_number(self, tmp_path: Path) -> None:
        draw_front(trials((0.9, 500), (0.8, math.nan)), [ACCURACY, SIZE], tmp_path)
        assert (tmp_path / "pareto.png").stat().st_size > 0


def test_a_confusion_matrix_is_a_table_and_a_picture(tmp_path: Path) -> None:
    draw_confusion([[3, 1], [0, 2]], "label", tmp_path)
    assert pd.read_csv(tmp_path / "confusion_label.csv", index_col=0).values.tolist() == [[3, 1], [0, 2]]
    assert plt.imread(tmp_path / "confusion_label.png").std() > 0
