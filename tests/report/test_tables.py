import math
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from conftest import Played, experiment
from pages import Page, numbers

from tuner.objectives import Objective
from tuner.report.tables import (
    class_table,
    error_table,
    read_by_class,
    read_errors,
    write_by_class,
    write_confusion,
    write_errors,
    write_front,
    write_tables,
)
from tuner.tasks.metrics.meter import ErrorKind
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


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def points_of(trace: dict[str, Any]) -> list[tuple[float, float]]:
    return sorted(zip(numbers(trace["x"]), numbers(trace["y"]), strict=True))


def axes_of(figure: dict[str, Any]) -> tuple[str, str]:
    layout = figure["layout"]
    return layout["xaxis"]["title"]["text"], layout["yaxis"]["title"]["text"]


class TestFront:
    @pytest.mark.slow
    def test_it_is_drawn_over_all_trials(self, tmp_path: Path) -> None:
        spec = experiment(objective=["val_accuracy", "parameters"])
        made = trials((0.9, 500), (0.8, 300), (0.7, 400), (0.5, 100), (None, 50))
        made[4].end("failed", "boom")
        write_front(spec, made, tmp_path)
        page = page_of(tmp_path / "pareto.html")
        assert "Pareto front" in page.text and "Red: no other trial" in page.text
        [figure] = page.figures
        others, front = figure["data"]
        assert points_of(front) == [(100, 0.5), (300, 0.8), (500, 0.9)]
        assert points_of(others) == [(400, 0.7)]  # what is dominated
        assert [text.partition(",")[0] for text in front["text"]] == ["trial 0", "trial 1", "trial 3"]
        assert axes_of(figure) == ("parameters (min)", "val_accuracy (max)")

    def test_three_objectives_are_drawn_two_at_a_time(self, tmp_path: Path) -> None:
        spec = experiment(objective=["val_accuracy", "parameters", "val_loss"])
        made = trials((0.9, 500, 1.0), (0.8, 300, 0.5), objectives=(ACCURACY, SIZE, LOSS))
        write_front(spec, made, tmp_path)
        assert [axes_of(figure) for figure in page_of(tmp_path / "pareto.html").figures] == [
            ("parameters (min)", "val_accuracy (max)"),
            ("val_loss (min)", "val_accuracy (max)"),
            ("val_loss (min)", "parameters (min)"),
        ]

    def test_it_takes_what_is_no_number(self, tmp_path: Path) -> None:
        spec = experiment(objective=["val_accuracy", "parameters"])
        write_front(spec, trials((0.9, 500), (0.8, math.nan)), tmp_path)
        [figure] = page_of(tmp_path / "pareto.html").figures
        assert [point for trace in figure["data"] for point in points_of(trace)] == [(500, 0.9)]


class TestConfusion:
    def test_it_is_a_table_and_a_page(self, tmp_path: Path) -> None:
        write_confusion([[3, 1], [0, 2]], "label", tmp_path)
        assert pd.read_csv(tmp_path / "confusion_label.csv", index_col=0).values.tolist() == [[3, 1], [0, 2]]
        page = page_of(tmp_path / "confusion_label.html")
        assert "label on the test set" in page.text
        [figure] = page.figures
        assert figure["data"][0]["z"] == [[3, 1], [0, 2]]
        assert axes_of(figure) == ("predicted class", "true class")

    def test_its_classes_have_their_names(self, tmp_path: Path) -> None:
        write_confusion([[3, 1], [0, 2]], "label", tmp_path, ("cat", "été"))
        table = pd.read_csv(tmp_path / "confusion_label.csv", index_col=0)
        assert list(table.columns) == list(table.index) == ["cat", "été"]
        [figure] = page_of(tmp_path / "confusion_label.html").figures
        assert figure["data"][0]["x"] == figure["data"][0]["y"] == ["cat", "été"]

    def test_many_classes_have_no_numbers_in_their_cells(self, tmp_path: Path) -> None:
        write_confusion([[0] * 100] * 100, "label", tmp_path)
        [figure] = page_of(tmp_path / "confusion_label.html").figures
        assert figure["data"][0]["texttemplate"] == ""

    @pytest.mark.slow
    @pytest.mark.browser
    def test_a_browser_draws_it_without_a_network(self, browser: Any, tmp_path: Path) -> None:
        write_confusion([[3, 1], [0, 2]], "label", tmp_path)
        shown = browser.new_page()
        told, asked = [], []
        shown.on("console", lambda message: told.append(message.text))
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        uri = (tmp_path / "confusion_label.html").as_uri()
        shown.goto(uri)
        shown.wait_for_selector("html[data-drawn]", state="attached")
        assert sorted(shown.locator(".heatmap-label").all_text_contents()) == ["0", "1", "2", "3"]
        assert (told, asked) == ([], [uri])


class TestByClass:
    COLUMNS: ClassVar[dict[str, list[float]]] = {
        "precision": [0.5, 1 / 3],
        "f1": [0.25, 0.0],
        "auroc": [0.75, math.nan],
        "support": [3.0, 0.0],
    }

    def test_it_is_a_table_with_a_row_for_each_class(self, tmp_path: Path) -> None:
        table = class_table(self.COLUMNS, ("NA", "été, 007"))
        write_by_class({"label": table}, tmp_path)
        lines = (tmp_path / "per_class_label.csv").read_text(encoding="utf-8").splitlines()
        assert lines[:2] == ["class,name,precision,f1,auroc,support", "0,NA,0.5,0.25,0.75,3"]
        assert lines[2].endswith(",0.0,,0") and '"été, 007"' in lines[2]

    def test_it_can_be_read_again(self, tmp_path: Path) -> None:
        named, unnamed = class_table(self.COLUMNS, ("NA", "007")), class_table(self.COLUMNS)
        assert list(unnamed["name"]) == ["0", "1"]
        write_by_class({"a_b": named, "c": unnamed}, tmp_path)
        files = [file.name for file in tmp_path.iterdir()] + ["leaderboard.csv", "per_class_gone.csv", "report.html"]
        texts = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
        again = read_by_class(files, texts.get)
        assert set(again) == {"a_b", "c"}
        pd.testing.assert_frame_equal(again["a_b"], named)
        pd.testing.assert_frame_equal(again["c"], unnamed)


class TestErrors:
    KINDS = (
        ErrorKind("class", "in the right place, but of another class", 12, "map50", 0.125),
        ErrorKind("missed", "not found", 0, "map50", 0.0),
    )

    def test_they_can_be_read_again(self, tmp_path: Path) -> None:
        table = error_table(self.KINDS)
        write_errors({"boxes": table}, tmp_path)
        text = (tmp_path / "errors_boxes.csv").read_text(encoding="utf-8")
        lines = text.splitlines()
        assert lines[:2] == [
            "name,meaning,count,metric,cost",
            'class,"in the right place, but of another class",12,map50,0.125',
        ]
        files = ["errors_boxes.csv", "errors_gone.csv", "per_class_boxes.csv", "errors.txt"]
        [(target, again)] = read_errors(files, {"errors_boxes.csv": text}.get).items()
        assert target == "boxes"
        pd.testing.assert_frame_equal(again, table)
