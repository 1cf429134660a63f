import json
import math
import tomllib
import warnings
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
import pytest
from conftest import experiment
from pages import Page, numbers
from scipy.stats import binomtest

from tuner.config_keys import Assignment
from tuner.report.html import write_html
from tuner.report.plots import draw
from tuner.report.plots.influence import can_decide
from tuner.report.plots.parameters import KeyPlots
from tuner.report.plots.study import Trials
from tuner.report.plots.timeline import lanes
from tuner.report.significance import certainty, wilson
from tuner.report.tables import class_table, error_table
from tuner.spec.experiment import ExperimentSpec
from tuner.tasks.metrics.meter import ErrorKind
from tuner.trials.labels import label
from tuner.trials.status import Status
from tuner.trials.trial import Trial

EVIL = "<script>alert(1)</script>"
PLOTS = [
    "Optimisation history",
    "Importance of the keys",
    "The objective by each key",
    "The objective by two keys",
    "Parallel coordinates",
    "Learning curves",
    "Timeline",
]
LEAVES = {"src", "href", "action", "data", "poster", "srcset", "cite", "background", "formaction", "xlink:href"}
"""Attributes that a browser may follow."""


def trial_of(
    spec: ExperimentSpec,
    number: int,
    assignment: Assignment,
    scores: Sequence[float | dict[str, float]],
    status: Status = "completed",
    reason: str = "",
    repeat: int = 0,
) -> Trial:
    """A trial with a report for each of `scores`: two side by side, ten seconds each."""
    trial = Trial(number, assignment, spec.trial_config(assignment, repeat), label(assignment))
    trial.started = 1_000_000.0 + 10 * (number // 2)
    for epoch, score in enumerate(scores, start=1):
        values = score if isinstance(score, dict) else {spec.objective.metric: score}
        trial.take({"epoch": epoch} | values, spec.objective, when=trial.started + epoch)
    trial.end(status, reason)
    trial.ended = trial.started + 9
    return trial


def drawn(spec: ExperimentSpec, count: int, epochs: int = 4, seed: int = 0) -> list[Trial]:
    """Trials of random configurations, all completed: one is the better the nearer its rate is to 0.03."""
    from tuner.search.conditions import draw as configuration

    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        assignment = configuration(spec.space, lambda _, what: what.sample(rng))
        top = 0.9 - 0.1 * abs(math.log10(assignment.get("optimizer.lr", 0.03) / 0.03)) + float(rng.normal(0, 0.01))
        values = [
            {o.metric: top - 0.3 / epoch + i for i, o in enumerate(spec.objectives)} for epoch in range(1, epochs + 1)
        ]
        trials.append(trial_of(spec, number, assignment, values))
    return trials


def mixed(spec: ExperimentSpec, count: int = 12) -> list[Trial]:
    """Trials of which some were pruned, some failed, and one came to no number."""
    trials = drawn(spec, count)
    trials[1] = trial_of(spec, 1, trials[1].assignment, [0.2], "pruned", "behind at epoch 1")
    trials[2] = trial_of(spec, 2, trials[2].assignment, [], "failed", "RuntimeError: no memory")
    trials[3] = trial_of(spec, 3, trials[3].assignment, [0.1, math.nan], "diverged", "val_loss is no number")
    trials[4] = trial_of(spec, 4, trials[4].assignment, [0.3], "interrupted")
    trials[2].traceback = "Traceback (most recent call last):\n  File 'train.py'\nRuntimeError: no memory"
    return trials


def of_function(space: dict[str, Any], **parts: Any) -> ExperimentSpec:
    """An experiment with a function of the user's own, whose keys and choices may be anything."""
    config = {key.removeprefix("config."): None for key in space}
    trial = {"target": "builtins:print", "config": config}
    whole = {"objective": {"metric": "score", "mode": "max"}, "search": {"kind": "random", "trials": 4}}
    return experiment(trial=trial, space=space, **(whole | parts))


def page_of(path: Path, spec: ExperimentSpec, trials: Sequence[Trial], **more: Any) -> Page:
    file = path / "report.html"
    write_html(spec, trials, file, **({"job": "a-job", "status": "completed"} | more))
    page = Page(file.read_text(encoding="utf-8"))
    page.text = " ".join(page.text.split())
    page.sections = {name: " ".join(text.split()) for name, text in page.sections.items()}
    assert "could not be drawn" not in page.text
    return page


class TestAnswer:
    @pytest.mark.slow
    def test_it_comes_first_with_its_configuration_score_epoch_and_test(self, tmp_path: Path) -> None:
        spec = experiment()
        low = trial_of(spec, 0, {"optimizer.lr": 0.01, "optimizer.momentum": 0.5}, [0.4, 0.7123])
        best = trial_of(spec, 1, {"optimizer.lr": 0.0271, "optimizer.momentum": 0.25}, [0.5, 0.8125, 0.8])
        page = page_of(tmp_path, spec, [low, best], test={"test_accuracy": 0.7931})
        assert list(page.sections)[1:] == ["answer", "facts", "leaderboard", "plots", "failures", "experiment"]
        answer = page.sections["answer"]
        assert "val_accuracy 0.8125 trial 1, at epoch 2 of 4 seed" in answer
        assert "optimizer.lr 0.0271" in answer and "optimizer.momentum 0.25" in answer
        assert "on the test set test_accuracy 0.7931" in answer
        assert "It is one training with one seed" in answer
        assert "It leads the second-best trial, 0, by 0.1002." in answer
        assert "evaluated once" in answer

    def test_several_objectives_have_a_front(self, tmp_path: Path) -> None:
        spec = experiment(objective=["val_accuracy", "parameters"])
        values = [(0.9, 500.0), (0.8, 100.0), (0.7, 300.0)]
        trials = [
            trial_of(spec, i, {"optimizer.lr": 0.01 * (i + 1)}, [{"val_accuracy": a, "parameters": p}])
            for i, (a, p) in enumerate(values)
        ]
        answer = page_of(tmp_path, spec, trials).sections["answer"]
        assert "a Pareto front" in answer and "2 of 3 trials are on the front" in answer
        assert "0.9000 500" in answer and "0.8000 100" in answer and "0.7000" not in answer

    @pytest.mark.parametrize(
        ("trials", "said"),
        [(0, "No trial has begun."), (1, "No trial has a result.")],
    )
    def test_without_one_it_says_why(self, trials: int, said: str, tmp_path: Path) -> None:
        spec = experiment()
        failed = [trial_of(spec, i, {"optimizer.lr": 0.01}, [], "failed", "boom") for i in range(trials)]
        assert said in page_of(tmp_path, spec, failed).sections["answer"]

    def test_one_that_misses_a_constraint_is_none(self, tmp_path: Path) -> None:
        spec = experiment()
        trials = drawn(spec, 3)
        for trial in trials:
            trial.violations = {"latency_ms <= 1": 0.5}
        page = page_of(tmp_path, spec, trials)
        assert "satisfies the constraints" in page.sections["answer"]
        assert "violates latency_ms <= 1" in page.sections["leaderboard"]


class TestClasses:
    @staticmethod
    def tables(count: int) -> dict[str, Any]:
        f1 = [(7 * each % count) / count for each in range(count)]
        columns = {"f1": f1, "auroc": [math.nan, *f1[1:]], "support": [1000.0] * count}
        return {"label": class_table(columns, [f"<b>{each}" for each in range(count)])}

    def test_those_with_the_lowest_f1_come_first(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, experiment(), [], by_class=self.tables(4))
        assert list(page.sections)[3:5] == ["leaderboard", "classes"]
        said = page.sections["classes"]
        assert "All 4 classes, the lowest F1 first. per_class_label.csv has them in their order." in said
        assert "class name f1 auroc images" in said
        assert "1,000 3 <b>3 0.250 0.250 1,000 2 <b>2 0.500 0.500 1,000 1 <b>1 0.750 0.750" in said
        assert "0 <b>0 0.000 \N{EN DASH} 1,000" in said

    def test_those_of_boxes_begin_with_the_lowest_average_precision(self, tmp_path: Path) -> None:
        columns: dict[str, list[float]] = {
            "ap": [0.5, math.nan, 0.25],
            "ap50": [0.75, math.nan, 0.9],
            "support": [12, 0, 3400],
        }
        page = page_of(tmp_path, experiment(), [], by_class={"boxes": class_table(columns, ("cat", "dog", "cow"))})
        said = page.sections["classes"]
        assert "All 3 classes, the lowest average precision first." in said
        assert "class name ap ap50 objects" in said
        assert "2 cow 0.250 0.900 3,400 0 cat 0.500 0.750 12 1 dog \N{EN DASH} \N{EN DASH} 0" in said

    def test_a_metric_without_a_name_of_its_own_is_sorted_by_too(self, tmp_path: Path) -> None:
        table = class_table({"g_mean": [0.5, 0.25], "support": [1, 2]})
        said = page_of(tmp_path, experiment(), [], by_class={"label": table}).sections["classes"]
        assert "the lowest g_mean first" in said and "class name g mean support 1 1 0.250 2 0 0 0.500 1" in said

    def test_more_than_a_thousand_are_in_the_table_alone(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, experiment(), [], by_class=self.tables(1003))
        assert "The 1,000 classes of 1,003 with the lowest F1" in page.sections["classes"]
        assert "per_class_label.csv has all of them" in page.sections["classes"]
        assert sum(tag == "tr" for tag, _ in page.tags) < 1010

    def test_without_any_there_is_no_section(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, experiment(), [])
        assert "classes" not in page.sections and "#classes" not in [attrs.get("href") for _, attrs in page.tags]

    @pytest.mark.slow
    @pytest.mark.browser
    def test_a_browser_filters_them_by_name(self, browser: Any, tmp_path: Path) -> None:
        page_of(tmp_path, experiment(), [], by_class=self.tables(30))
        shown = browser.new_page()
        told: list[str] = []
        shown.on("console", lambda message: told.append(message.text))
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.goto((tmp_path / "report.html").as_uri())
        shown.locator("#classes input").fill(" <B>2 ")
        names = shown.locator("#classes tbody tr:visible td:nth-child(2)").all_text_contents()
        assert sorted(names) == sorted(["<b>2", *(f"<b>{each}" for each in range(20, 30))])
        shown.locator("#classes input").fill("")
        assert shown.locator("#classes tbody tr:visible").count() == 30
        assert told == []


class TestErrors:
    KINDS = (
        ErrorKind("class", "of another <class>", 12, "map50", 0.0125),
        ErrorKind("missed", "not found", 3, "map50", 0.25),
        ErrorKind("double", "found twice", 1234, "map50", 0.0125),
    )

    def test_the_most_costly_kind_comes_first(self, tmp_path: Path) -> None:
        page = page_of(tmp_path, experiment(), [], errors={"boxes": error_table(self.KINDS)})
        assert list(page.sections)[3:5] == ["leaderboard", "errors"]
        said = page.sections["errors"]
        assert "By how much map50 would rise" in said and "errors_boxes.csv" in said
        rows = "missed not found 3 0.250 double found twice 1,234 0.013 class of another <class> 12 0.013"
        assert f"error what it is count costs of map50 {rows}" in said
        assert "#errors" in [attrs.get("href") for _, attrs in page.tags]

    def test_without_any_there_is_no_section(self, tmp_path: Path) -> None:
        assert "errors" not in page_of(tmp_path, experiment(), []).sections


class TestCertainty:
    ONE, OTHER = {"optimizer.lr": 0.01}, {"optimizer.lr": 0.02}

    def said(self, *trials: tuple[Assignment, float], objective: str = "val_accuracy") -> str:
        spec = experiment(objective=objective)
        repeats: dict[str, int] = {}
        made = []
        for number, (assignment, score) in enumerate(trials):
            repeat = repeats[repr(assignment)] = repeats.get(repr(assignment), -1) + 1
            made.append(trial_of(spec, number, assignment, [score], repeat=repeat))
        scored = [trial for trial in made if trial.best is not None]
        best = min(scored, key=lambda trial: spec.objective.key(trial.best or 0.0))
        return " ".join(certainty(best, made, spec.objective))

    def test_several_seeds_have_a_mean_and_a_spread(self) -> None:
        said = self.said((self.ONE, 0.9), (self.ONE, 0.8), (self.ONE, 0.7), (self.OTHER, 0.6))
        assert (
            "trained with 3 seeds, in 3 trials: mean 0.8000, from 0.7000 to 0.9000, standard deviation 0.1000." in said
        )
        assert "one seed" not in said and "another configuration is better" not in said

    def test_a_configuration_that_is_better_on_average_is_named(self) -> None:
        said = self.said((self.ONE, 0.9), (self.ONE, 0.1), (self.OTHER, 0.85), (self.OTHER, 0.83))
        assert "another configuration is better: that of trial 2, mean 0.8400 over 2 trials." in said

    def test_the_lead_is_compared_with_the_best_five(self) -> None:
        far = [({"optimizer.lr": 0.01 * i}, 0.5 + 0.001 * i) for i in range(1, 5)]
        assert "not smaller than that" in self.said((self.ONE, 0.9), *far)
        near = [({"optimizer.lr": 0.01 * i}, 0.9 - 0.1 * i) for i in range(1, 5)]
        assert "the lead is smaller than that" in self.said((self.ONE, 0.9001), (self.OTHER, 0.9), *near)

    def test_a_tie_and_a_single_trial_are_told(self) -> None:
        assert "Trial 1 has the same score" in self.said((self.ONE, 0.9), (self.OTHER, 0.9))
        assert "No other trial has a result" in self.said((self.ONE, 0.9))

    def test_an_accuracy_has_the_interval_of_its_validation_set_and_a_loss_has_none(self) -> None:
        said = self.said((self.ONE, 0.9), (self.OTHER, 0.89), ({"optimizer.lr": 0.1}, 0.2))
        low, high = wilson(0.9, 300)
        assert f"On 300 validation images the 95 % confidence interval of 0.9000 is {low:.4f} to {high:.4f}" in said
        assert "The second-best trial lies within it." in said
        assert "binomial" not in self.said((self.ONE, 0.9), (self.OTHER, 0.89), objective="val_loss")

    @pytest.mark.parametrize(("hits", "count"), [(0, 10), (270, 300), (300, 300)])
    def test_the_interval_is_wilsons(self, hits: int, count: int) -> None:
        expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
        assert wilson(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)

    def test_an_infinity_is_no_result(self) -> None:
        assert "No other trial has a result" in self.said((self.ONE, math.inf), (self.OTHER, 0.5))


class TestTables:
    def test_facts(self, tmp_path: Path) -> None:
        spec = experiment(search={"kind": "bayesian", "trials": 12}, scheduler={"kind": "asha", "grace": 2})
        page = page_of(tmp_path, spec, mixed(spec), ended_early="the timeout of 60s", seconds=125.0, status="ended")
        facts = page.sections["facts"]
        assert "Status ended Ended early the timeout of 60s" in facts and "Took 2m 05s" in facts
        assert "12: 8 completed, 1 pruned, 1 failed, 1 diverged, 1 interrupted" in facts
        assert "bayesian (trials 12)" in facts and "asha (grace 2)" in facts and spec.explain() in facts

    def test_the_leaderboard_ends_at_200_and_says_so(self, tmp_path: Path) -> None:
        spec = experiment(space={}, search={"kind": "grid"})
        trials = [trial_of(spec, number, {}, [number / 300]) for number in range(230)]
        board = page_of(tmp_path, spec, trials).sections["leaderboard"]
        assert "The best 200 trials" in board and "30 more trials are omitted here; leaderboard.csv" in board
        assert "0.1000" in board and "0.0967" not in board  # the 200th and the next

    def test_failures_are_counted_by_reason(self, tmp_path: Path) -> None:
        spec = experiment()
        trials = [trial_of(spec, i, {"optimizer.lr": 0.01}, [], "failed", f"reason {i % 2}") for i in range(5)]
        trials[0].traceback = "Traceback of trial 0"
        failures = page_of(tmp_path, spec, trials).sections["failures"]
        first, second = "3 \N{MULTIPLICATION SIGN} reason 0", "2 \N{MULTIPLICATION SIGN} reason 1"
        assert f"{first} traceback of one of them Traceback of trial 0 {second}" in failures
        assert "4 failed optimizer.lr = 0.01 reason 0" in failures

    def test_the_experiment_is_there_without_its_passwords(self, tmp_path: Path) -> None:
        spec = experiment(tracking={"uri": "postgresql://me:secret@host/db"})
        trial = trial_of(spec, 0, {}, [], "failed", "cannot reach postgresql://me:secret@host/db")
        trial.traceback = "at postgresql://me:secret@host/db"
        page = page_of(tmp_path, spec, [trial], ended_early="lost http://me:secret@host")
        assert "optimizer.lr: when: {} loguniform:" in page.sections["experiment"]
        assert "postgresql://me:***@host/db" in page.sections["experiment"]
        assert "secret" not in (tmp_path / "report.html").read_text()


class TestStudy:
    SPACE: ClassVar = {
        "optimizer.lr": {"loguniform": [1e-3, 0.3]},
        "optimizer.momentum": {"uniform": [0, 0.9]},
        "model.width1": {"int": [2, 8]},
        "data.batch_size": {"grid": [8, 32, 128]},
        "schedule.kind": {"choice": ["constant", "cosine"]},
        "schedule.warmup": {"int": [0, 2], "when": {"schedule.kind": "cosine"}},
    }

    def study(self, trials: list[Trial], spec: ExperimentSpec) -> "optuna.Study":
        seen = Trials(spec.space, trials)
        return seen.study(spec.objectives, seen.all, curves=True)

    def test_the_values_are_the_users_own(self) -> None:
        spec = experiment(space=self.SPACE)
        trials = drawn(spec, 20)
        for ours, theirs in zip(trials, self.study(trials, spec).trials, strict=True):
            short = {key: key.removeprefix("schedule.").rpartition(".")[2] for key in ours.assignment}
            assert theirs.params == {short[key]: value for key, value in ours.assignment.items()}
            assert theirs.value == ours.best
        scales = {key: what for trial in self.study(trials, spec).trials for key, what in trial.distributions.items()}
        assert scales["lr"] == optuna.distributions.FloatDistribution(1e-3, 0.3, log=True)
        assert scales["momentum"] == optuna.distributions.FloatDistribution(0, 0.9)
        assert scales["width1"] == optuna.distributions.IntDistribution(2, 8)
        assert scales["batch_size"] == optuna.distributions.IntDistribution(8, 128, log=True)  # it spans magnitudes
        assert scales["kind"] == optuna.distributions.CategoricalDistribution(["constant", "cosine"])
        assert any("warmup" not in trial.params for trial in self.study(trials, spec).trials)

    def test_the_states_and_the_curves_are_the_trials(self) -> None:
        spec = experiment()
        trials = mixed(spec, 7)
        trials[5].status, trials[6].status = "running", "pending"
        study = self.study(trials, spec)
        names = [trial.state.name for trial in study.trials]
        assert names == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "PRUNED", "RUNNING", "WAITING"]
        assert study.trials[1].intermediate_values == {1: 0.2}
        assert study.trials[3].intermediate_values == {1: 0.1}  # without what is no number
        assert study.trials[0].user_attrs == {"trial": 0}

    def test_choices_are_told_apart_by_their_labels(self) -> None:
        options = [[1, 2], {"a": 1}, True, 1, "1", None, "x" * 50 + "a", "x" * 50 + "b"]
        spec = of_function({"config.x": {"choice": options}})
        trials = [trial_of(spec, i, {"config.x": option}, [0.1 * i]) for i, option in enumerate(options)]
        labels = [trial.params["x"] for trial in self.study(trials, spec).trials]
        assert labels[:4] == ["[1, 2]", "{'a': 1}", "True", "1"] and labels[4] == "1 (2)"
        assert len(set(labels)) == len(options) and max(map(len, labels)) < 50

    def test_what_misses_a_constraint_is_infeasible(self) -> None:
        spec = experiment()
        trials = drawn(spec, 2)
        trials[1].violations = {"parameters <= 5": 3.0}
        assert [trial.constraints for trial in self.study(trials, spec).trials] == [{}, {"parameters <= 5": 3.0}]


class TestPlots:
    @pytest.mark.slow
    def test_a_job_has_them_all(self, tmp_path: Path) -> None:
        spec = experiment()
        page = page_of(tmp_path, spec, mixed(spec, 40))
        assert page.headings == ["How sure is that?", *PLOTS]
        assert len(page.figures) == len(PLOTS)
        history, importances, slices, contour, parallel, curves, timeline = page.figures
        names = [trace.get("name") for trace in history["data"]]
        assert names == ["val_accuracy", "best so far", "ended early: best report"]
        assert numbers(history["data"][0]["x"]) == [0, *range(5, 40)]
        assert numbers(history["data"][2]["x"]) == [1, 4]
        assert set(importances["data"][0]["y"]) == {"lr", "momentum"}
        axes = {
            slices["layout"][name]["title"]["text"]: slices["layout"][name].get("type") for name in ("xaxis", "xaxis2")
        }
        assert axes == {"lr": "log", "momentum": None}
        assert sum(trace["type"] == "contour" for trace in contour["data"]) == 1
        assert parallel["layout"]["xaxis"]["ticktext"] == ["val_accuracy", "lr", "momentum"]
        assert len(curves["data"]) == 38  # all but those that failed
        assert {trace["name"] for trace in timeline["data"]} == {
            "completed",
            "pruned",
            "failed",
            "diverged",
            "interrupted",
        }

    def test_numbers_are_the_trials_own_where_some_are_missing(self) -> None:
        spec = experiment()
        trials = [trial for trial in drawn(spec, 10) if trial.number % 2]
        plots = {plot.title: [json.loads(figure) for figure in plot.figures] for plot in draw(spec, trials)}
        assert numbers(plots["Optimisation history"][0]["data"][0]["x"]) == [1, 3, 5, 7, 9]
        colours = numbers(plots["The objective by each key"][0]["data"][0]["marker"]["color"])
        assert sorted(colours) == [1, 3, 5, 7, 9]
        assert {int(t["name"].split()[1].strip(",")) for t in plots["Learning curves"][0]["data"]} == {1, 3, 5, 7, 9}

    def test_three_objectives_are_drawn_two_at_a_time(self, tmp_path: Path) -> None:
        spec = experiment(objective=["val_accuracy", "val_loss", "parameters"])
        trials = drawn(spec, 6)
        for trial in trials:
            trial.best_report |= {"val_loss": 1 - trial.best_report["val_accuracy"], "parameters": 100.0 * trial.number}
        page = page_of(tmp_path, spec, trials)
        assert page.headings[1:] == ["Pareto front", *PLOTS]
        titles = [
            (f["layout"]["xaxis"]["title"]["text"], f["layout"]["yaxis"]["title"]["text"]) for f in page.figures[:3]
        ]
        assert titles == [
            ("val_loss (min)", "val_accuracy (max)"),
            ("parameters (min)", "val_accuracy (max)"),
            ("parameters (min)", "val_loss (min)"),
        ]
        best = max(trials, key=lambda trial: trial.best or 0.0)
        assert f"trial {best.number}, completed<br>val_accuracy" in " ".join(page.figures[0]["data"][-1]["text"])

    @pytest.mark.parametrize(
        ("parts", "count", "change", "missing"),
        [
            ({}, 0, {}, dict.fromkeys(PLOTS, "No trial")),
            ({}, 1, {}, dict.fromkeys(PLOTS[1:5], "Only one trial has completed")),
            ({}, 4, {"status": "failed"}, dict.fromkeys(PLOTS[:6], "No trial")),
            ({}, 4, {"best": math.inf}, dict.fromkeys(PLOTS[:6], "No trial")),
            ({}, 5, {"assignment": {"optimizer.lr": 0.01}}, dict.fromkeys(PLOTS[1:5], "same configuration")),
            ({}, 40, {"best": 0.5}, {PLOTS[1]: "do not show which key influences"}),
            (
                {},
                19,
                {},
                {
                    PLOTS[1]: "19 configurations have completed; the importance of 2 keys for val_accuracy needs 30",
                    PLOTS[3]: "19 configurations have completed; a surface between fewer than 20 means nothing.",
                },
            ),
            (
                {"space": {"optimizer.lr": {"loguniform": [1e-3, 0.3]}, "optimizer.kind": {"choice": ["sgd", "adam"]}}},
                40,
                {},
                {PLOTS[3]: "The plot needs two numeric keys"},
            ),
            (
                {"objective": "parameters"},
                40,
                {},
                {
                    PLOTS[1]: "None of the keys that vary can influence parameters",
                    PLOTS[3]: "that can influence parameters",
                },
            ),
            ({"space": {}, "search": {"kind": "grid"}}, 5, {}, dict.fromkeys(PLOTS[1:5], "No keys were searched.")),
            (
                {"space": {"optimizer.lr": {"grid": [0.1, 0.01, 0.001]}}, "search": {"kind": "grid"}},
                3,
                {},
                {PLOTS[1]: "Only one key varies, lr", PLOTS[3]: "The plot needs two numeric keys"},
            ),
            ({}, 40, {"series": {1: 0.5}}, {PLOTS[5]: "at two epochs"}),
            ({}, 40, {"started": None}, {PLOTS[6]: "No trial has begun."}),
        ],
        ids=[
            "none",
            "one",
            "failed",
            "infinite",
            "same",
            "tied",
            "a few",
            "a choice",
            "nothing decides",
            "no keys",
            "one key",
            "one epoch",
            "not begun",
        ],
    )
    def test_what_cannot_be_drawn_has_a_sentence_instead(
        self, parts: dict[str, Any], count: int, change: dict[str, Any], missing: dict[str, str], tmp_path: Path
    ) -> None:
        spec = experiment(**parts)
        trials = drawn(spec, count)
        for trial in trials:
            for name, value in change.items():
                setattr(trial, name, value)
            if "best" in change:
                trial.best_report["val_accuracy"] = change["best"]
            if "assignment" in change:
                trial.best_assignment = change["assignment"]
            if change.get("status") == "failed":
                trial.best = None
        notes = {plot.title: plot for plot in draw(spec, trials)}
        assert {title for title, plot in notes.items() if not plot.figures} == set(missing)
        for title, words in missing.items():
            assert words in notes[title].note
        page_of(tmp_path, spec, trials)

    @pytest.mark.slow
    def test_fifteen_keys_with_conditions_and_odd_choices(self, tmp_path: Path) -> None:
        space: dict[str, Any] = {f"config.k{i}": {"uniform": [0, 1]} for i in range(9)}
        space |= {
            "config.shape": {"choice": [[1, 2], [3], {"a": [1]}]},
            "config.flag": {"choice": [True, False, None]},
            "config.deep": {"loguniform": [1e-3, 1], "when": {"config.flag": True}},
            "config.deeper": {"choice": ["a", "b"], "when": {"config.flag": [False, None]}},
            "config.normal": {"normal": [0, 1]},
            "config.wide": {"int": [0, 2**62]},
        }
        spec = of_function(space)
        page = page_of(tmp_path, spec, drawn(spec, 225))
        slices = page.figures[2:6]  # four rows
        shown = [v["title"]["text"] for f in slices for k, v in f["layout"].items() if k.startswith("xaxis")]
        assert sorted(shown) == sorted(key.removeprefix("config.") for key in space)
        assert "Of 15 keys that vary the 4 most important ones." in page.text

    def test_a_key_that_cannot_decide_a_metric_has_no_importance_for_it(self) -> None:
        """The number of parameters is the model's: neither the rate nor dropout does anything to it."""
        space = {
            "optimizer.lr": {"loguniform": [1e-3, 0.3]},
            "model.hidden": {"int": [4, 64]},
            "model.width1": {"int": [2, 8]},
            "model.dropout": {"uniform": [0, 0.5]},
        }
        spec = experiment(space=space, objective=["val_accuracy", "parameters"])
        trials = drawn(spec, 60)
        for trial in trials:
            trial.best_report["parameters"] = trial.config.count_parameters()
        keys = KeyPlots(spec, Trials(spec.space, trials))
        accuracy, parameters = (keys._importance(objective) for objective in spec.objectives)
        assert set(accuracy) == {"lr", "hidden", "width1", "dropout"}
        assert set(parameters) == {"hidden", "width1"}
        assert not can_decide(spec, trials, "optimizer.lr", "latency_ms")
        assert can_decide(spec, trials, "optimizer.lr", "epoch_seconds")
        own = of_function({"config.x": {"uniform": [0, 1]}}, objective={"metric": "parameters", "mode": "min"})
        assert can_decide(own, [], "config.x", "parameters")

    @pytest.mark.slow
    @pytest.mark.parametrize("count", [2, 4])
    def test_what_decides_nothing_seldom_comes_first(self, count: int) -> None:
        space = {f"config.k{i}": {"uniform": [0, 1]} for i in range(count)}
        spec = of_function(space)
        first = []
        for seed in range(20):
            trials = drawn(spec, max(30, 15 * count), epochs=1, seed=seed)
            noise = np.random.default_rng(seed)
            for trial in trials:
                trial.best = -((trial.assignment["config.k0"] - 0.3) ** 2) / 0.09 + 0.5 * float(noise.normal())
                trial.best_report["score"] = trial.best
            first.append(next(iter(KeyPlots(spec, Trials(spec.space, trials))._importance(spec.objective))))
        assert first.count("k0") >= 18

    @pytest.mark.slow
    def test_many_trials_are_thinned_out(self, tmp_path: Path) -> None:
        spec = experiment(space=TestStudy.SPACE, search={"kind": "random", "trials": 1000})
        page = page_of(tmp_path, spec, drawn(spec, 1000, epochs=20))
        assert (tmp_path / "report.html").stat().st_size < 15e6
        assert "80 of 1,000 trials, evenly from the best to the worst." in page.text
        assert "The best 50 of 1,000 trials." in page.text
        assert "800 more trials are omitted here" in page.text
        assert len(numbers(page.figures[0]["data"][0]["x"])) == 1000

    def test_optuna_is_quiet_and_as_it_was(self, capfd: pytest.CaptureFixture[str]) -> None:
        before = optuna.logging.get_verbosity()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw(experiment(), mixed(experiment()))
            draw(experiment(), [])
        assert capfd.readouterr() == ("", "")
        assert optuna.logging.get_verbosity() == before

    def test_a_plot_that_breaks_leaves_the_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError(EVIL)

        monkeypatch.setattr(optuna.visualization, "plot_slice", broken)
        spec = experiment()
        plots = {plot.title: plot for plot in draw(spec, drawn(spec, 40))}
        assert plots.pop(PLOTS[2]).note == f"It could not be drawn: ZeroDivisionError: {EVIL}"
        assert all(plot.figures for plot in plots.values())


def test_rows_of_the_timeline_hold_one_trial_at_a_time() -> None:
    spec = experiment()
    trials = [trial_of(spec, number, {}, [0.5]) for number in range(6)]
    trials[0].ended = 1_000_019.5  # as long as its neighbour's and the next one's
    trials[5].started = None
    assert lanes(trials) == {0: 0, 1: 1, 2: 1, 3: 2, 4: 0}


class TestFile:
    def evil(self) -> tuple[ExperimentSpec, list[Trial]]:
        """A job in which whatever a user writes is a script."""
        link = f'<a href="https://example.org/x">{EVIL}</a><img src=x onerror=alert(1)>'
        spec = of_function(
            {
                f"config.{EVIL}": {"choice": [EVIL, link, [EVIL]]},
                "config.<b>x</b>": {"uniform": [0, 1]},
                "config.<i>y</i>": {"uniform": [0, 1]},
            },
            objective={"metric": f"score{EVIL}", "mode": "max"},
        )
        trials = drawn(spec, 50)
        trials[1] = trial_of(spec, 1, trials[1].assignment, [], "failed", EVIL)
        trials[1].traceback = f"Traceback\n{EVIL}"
        trials[2] = trial_of(spec, 2, trials[2].assignment, [0.1], "pruned", link)
        return spec, trials

    def test_it_asks_for_nothing(self, tmp_path: Path) -> None:
        spec = experiment()
        page = page_of(tmp_path, spec, mixed(spec))
        followed = [value for _, given in page.tags for name, value in given.items() if name in LEAVES]
        assert followed and all(value == "data:," or str(value).startswith("#") for value in followed)
        assert not {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "img", "base", "form"}
        [policy] = [given["content"] for _, given in page.tags if given.get("http-equiv") == "Content-Security-Policy"]
        assert str(policy).startswith("default-src 'none';") and "http" not in str(policy)
        style = (tmp_path / "report.html").read_text().split("<style>")[1].split("</style>")[0]
        assert "url(" not in style and "@import" not in style
        assert "plotly.js" in (tmp_path / "report.html").read_text()

    @pytest.mark.slow
    def test_what_users_wrote_is_text(self, tmp_path: Path) -> None:
        spec, trials = self.evil()
        page = page_of(tmp_path, spec, trials, job=EVIL, status=EVIL, ended_early=EVIL, test={EVIL: 0.5})
        scripts = [given for tag, given in page.tags if tag == "script" and given.get("type") != "application/json"]
        assert len(scripts) == 2 and all(given["nonce"] for given in scripts)  # plotly and what calls it
        assert not {tag for tag, _ in page.tags} & {"img", "b"}
        for section in ("answer", "facts", "leaderboard", "failures", "experiment"):
            assert EVIL in page.sections[section]
        # Plotly renders tags in its texts: in none of them is there one but its own line break.
        assert page.figures
        for figure in page.figures:
            assert "<" not in json.dumps(figure).replace("<br>", "").replace("<extra></extra>", "")
        assert "&lt;script>" not in json.dumps(page.figures) and "&lt;script&gt;" in json.dumps(page.figures)

    def test_its_templates_are_in_the_built_package(self) -> None:
        templates = [file.name for file in files("tuner.report").iterdir() if "jinja" in file.name]
        settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]
        patterns = settings["package-data"]["tuner.report"]
        assert "report.html.jinja" in templates
        assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in templates)

    @pytest.mark.slow
    @pytest.mark.browser
    def test_a_browser_draws_it_without_a_network(self, browser: Any, tmp_path: Path) -> None:
        spec, trials = self.evil()
        figures = len(page_of(tmp_path, spec, trials, job=EVIL).figures)
        shown = browser.new_page()
        told, asked, alerts = [], [], []
        shown.on("console", lambda message: told.append(message.text))
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))

        def dismissed(dialog: Any) -> None:
            alerts.append(dialog.message)
            dialog.dismiss()

        shown.on("dialog", dismissed)
        shown.goto((tmp_path / "report.html").as_uri())
        # Not wait_for_function: the file's own policy forbids what that does.
        shown.wait_for_selector("html[data-drawn]", state="attached")
        assert shown.locator(".js-plotly-plot .main-svg").count() > 0
        assert shown.locator(".js-plotly-plot").count() == figures == len(PLOTS)
        assert shown.locator(".xtick text", has_text=EVIL).count() > 0  # the choice, letter by letter
        assert (told, alerts) == ([], [])
        assert asked == [(tmp_path / "report.html").as_uri()]
