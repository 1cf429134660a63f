"""What the figures of the report share: the base class of their makers, their style, their notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.formatting import score
from tuner.objectives import Objective
from tuner.report.plots.study import Trials, escaped
from tuner.trials.labels import brief
from tuner.trials.trial import Trial

BLUE, GREY, DARK_GREY, RED = "#3b6ea8", "#c3c9d0", "#87909a", "#c8452f"
_DECADES = 1.5  # a log axis over more powers of ten than this has ticks at powers of ten alone

Drawn = tuple[list[Any], str]
"""Plotly figures, and a note on how to read them, in plotly's HTML."""


@dataclass(frozen=True)
class Plot:
    """The figures of one kind.

    Args:
        title: Their heading.
        figures: Plotly figures, as JSON; empty where nothing can be drawn.
        note: How to read them, or why there are none.
    """

    title: str
    figures: list[str]
    note: str


class Undrawable(Exception):
    """There is nothing to draw; its text is a sentence that says why, in plotly's HTML."""


class Sheet:
    """The trials of a job, for the plots that its subclasses draw.

    Args:
        objectives: The job's objectives.
        trials: The job's trials.
    """

    def __init__(self, objectives: Sequence[Objective], trials: Trials) -> None:
        self.objectives = objectives
        self.trials = trials

    def completed(self, objectives: Sequence[Objective]) -> list[Trial]:
        """Return the trials that completed with finite values, best in the first objective first.

        Raises:
            Undrawable: There is none.
        """
        done = self.trials.completed(objectives)
        if not done:
            raise Undrawable("No trial has completed with a value.")
        return done

    def hover(self, trial: Trial) -> str:
        """Return the text beside the pointer when it is on a trial, in plotly's HTML."""
        lines = [f"trial {trial.number}, {trial.status}"]
        lines += [f"{metric(o)} {score(v)}" for o in self.objectives if (v := o.of(trial.best_report)) is not None]
        lines += [f"{key} {brief(value)}" for key, value in self.trials.params[trial.number].items()]
        return "<br>".join(lines)


def metric(objective: Objective) -> str:
    """Return the name of an objective's metric, escaped for plotly."""
    return escaped(objective.metric)


def spread(trials: Sequence[Trial], maximum: int) -> list[Trial]:
    """Return at most `maximum` trials, evenly spaced from the first to the last."""
    if len(trials) <= maximum:
        return list(trials)
    return [trials[round(place * (len(trials) - 1) / (maximum - 1))] for place in range(maximum)]


def of_many(shown: Sequence[Trial], trials: Sequence[Trial]) -> str:
    """Return a sentence for the note where `spread` omitted trials; else an empty text."""
    if len(shown) == len(trials):
        return ""
    return f" {len(shown)} of {len(trials):,} trials, evenly from the best to the worst."


def styled(figure: Any, height: int) -> Any:
    """Give a plotly figure the style of the report, and `height` pixels; return it."""
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
                axis.dtick = 1  # plotly's labels 2 and 5 between powers of ten would overlap
    return figure
