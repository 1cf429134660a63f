"""What the figures of the report have in common: the trials that they show, and how they look."""

from collections.abc import Sequence
from typing import Any

from tuner.formatting import score
from tuner.objectives import Objective
from tuner.report.plots.study import Trials, escaped
from tuner.trials.labels import brief
from tuner.trials.trial import Trial

BLUE, GREY, DARK_GREY, RED = "#3b6ea8", "#c3c9d0", "#87909a", "#c8452f"
_DECADES = 1.5  # of a log axis, from which on it needs no numbers but powers of ten

Drawn = tuple[list[Any], str]
"""Plotly figures, and what the reader should know of them, in plotly's HTML."""


class Undrawable(Exception):
    """There is nothing to draw; its text is a sentence that says why, in plotly's HTML."""


class Sheet:
    """The trials of a job, to be drawn."""

    def __init__(self, objectives: Sequence[Objective], trials: Trials) -> None:
        self.objectives = objectives
        self.trials = trials

    def completed(self, objectives: Sequence[Objective]) -> list[Trial]:
        done = self.trials.completed(objectives)
        if not done:
            raise Undrawable("No trial has completed with a value.")
        return done

    def hover(self, trial: Trial) -> str:
        """A trial in a few lines of plotly's HTML."""
        lines = [f"trial {trial.number}, {trial.status}"]
        lines += [f"{metric(o)} {score(v)}" for o in self.objectives if (v := o.of(trial.best_report)) is not None]
        lines += [f"{key} {brief(value)}" for key, value in self.trials.params[trial.number].items()]
        return "<br>".join(lines)


def metric(objective: Objective) -> str:
    """Its name, as plotly shows it."""
    return escaped(objective.metric)


def spread(trials: Sequence[Trial], most: int) -> list[Trial]:
    """At most so many of trials that are sorted, evenly from the first to the last."""
    if len(trials) <= most:
        return list(trials)
    return [trials[round(place * (len(trials) - 1) / (most - 1))] for place in range(most)]


def of_many(shown: Sequence[Trial], trials: Sequence[Trial]) -> str:
    """What a note says where `spread` left some out."""
    if len(shown) == len(trials):
        return ""
    return f" {len(shown)} of {len(trials):,} trials, evenly from the best to the worst."


def styled(figure: Any, height: int) -> Any:
    """A figure as the report has it, `height` in pixels."""
    figure.update_layout(
        template="plotly_white",
        title_text="",
        height=height,
        margin={"l": 50, "r": 20, "t": 30, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#333b44"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    for axes in (figure.select_xaxes(), figure.select_yaxes()):
        for axis in axes:
            is_log = axis.type == "log"
            axis.update(automargin=True, exponentformat="power" if is_log else "none", separatethousands=True)
            if is_log and axis.range and axis.range[1] - axis.range[0] > _DECADES:
                axis.dtick = 1  # plotly's 2 and 5 between powers of ten run into each other
    return figure
