"""All plots of a job, most of them Optuna's, in the order of the report."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import unescape
from itertools import combinations
from typing import Any

from tuner.report.plots.figures import BLUE, DARK_GREY, GREY, RED, Drawn, Plot, Sheet, Undrawable, metric, styled
from tuner.report.plots.parameters import KeyPlots
from tuner.report.plots.study import Trials, escaped, finite_series, scores
from tuner.report.plots.timeline import timeline
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.leaderboard import ranked
from tuner.trials.status import SCORED
from tuner.trials.trial import Trial

_MAX_CURVES = 50


def draw(spec: ExperimentSpec, trials: Sequence[Trial]) -> list[Plot]:
    """Draw every plot of a job, in the order of the report.

    Args:
        spec: The experiment.
        trials: The job's trials.
    """
    with _quiet():
        seen = Trials(spec.space, trials)
        job, keys = _JobPlots(spec.objectives, seen), KeyPlots(spec, seen)
        plots = {"Pareto front": job.front} if len(spec.objectives) > 1 else {}
        plots |= {
            "Optimisation history": job.history,
            "Importance of the keys": keys.importances,
            "The objective by each key": keys.slices,
            "The objective by two keys": keys.contour,
            "Parallel coordinates": keys.parallel,
            "Learning curves": job.curves,
            "Timeline": job.timeline,
        }
        return [_drawn(title, plot) for title, plot in plots.items()]


def draw_front(spec: ExperimentSpec, trials: Sequence[Trial]) -> Plot:
    """Draw the Pareto front, a figure for every two objectives."""
    with _quiet():
        return _drawn("Pareto front", _JobPlots(spec.objectives, Trials(spec.space, trials)).front)


def _drawn(title: str, plot: Callable[[], Drawn]) -> Plot:
    try:
        figures, note = plot()
    except Undrawable as reason:
        figures, note = [], str(reason)
    except Exception as error:  # a bug of Optuna or plotly must not cost the whole report
        figures, note = [], escaped(f"It could not be drawn: {type(error).__name__}: {error}")
    return Plot(title, [figure.to_json() for figure in figures], unescape(note))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's warnings on experimental functions and on plots with few trials: the notes say the latter."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


class _JobPlots(Sheet):
    """The plots over the course of the job."""

    def front(self) -> Drawn:
        """Draw the Pareto front for every pair of objectives."""
        from optuna.visualization import plot_pareto_front

        done = self.completed(self.objectives)
        study = self.trials.study(self.objectives, done)
        figures = []
        for y, x in combinations(range(len(self.objectives)), 2):
            figure = plot_pareto_front(
                study,
                targets=partial(_values, places=(x, y)),
                target_names=[f"{metric(self.objectives[k])} ({self.objectives[k].mode})" for k in (x, y)],
            )
            for trace in figure.data:
                # Optuna's text is the whole trial as JSON: its number there is its index in the study.
                places = [int(text.split('"number": ')[1].split(",")[0]) for text in trace.text]
                trace.text = [self.hover(done[place]) for place in places]
                trace.hovertemplate = "%{text}<extra></extra>"
                trace.marker = {"color": GREY, "size": 7}
            figure.data[-1].marker = {"color": RED, "size": 9}
            figures.append(styled(figure, 400))
        return figures, "Red: no other trial is as good in every objective and better in one. Grey: the others."

    def history(self) -> Drawn:
        """Draw each trial's objective, and the best value so far."""
        from optuna.visualization import plot_optimization_history

        figures = []
        for objective in self.objectives:
            name = metric(objective)
            early = [t for t in self.trials.all if t.status in ("pruned", "interrupted") and scores(t, [objective])]
            if not early:
                self.completed([objective])
            figure = plot_optimization_history(self.trials.study([objective], self.trials.all), target_name=name)
            styles = {
                name: {"marker": {"color": BLUE, "size": 6}},
                "Best Value": {"name": "best so far", "line": {"color": RED, "shape": "hv", "width": 1.5}},
                "Infeasible Trial": {"name": "violates a constraint", "showlegend": True},
            }
            for trace in figure.data:
                trace.x = [self.trials.all[place].number for place in trace.x]
                trace.update(styles[trace.name])
            figure.data = [trace for trace in figure.data if len(trace.x)]
            if early:
                hollow = {"color": "white", "size": 6, "line": {"color": DARK_GREY, "width": 1}}
                values = [objective.of(trial.best_report) for trial in early]
                numbers = [trial.number for trial in early]
                figure.add_scatter(x=numbers, y=values, mode="markers", marker=hollow, name="ended early: best report")
            figure.update_xaxes(title_text="trial", rangemode="tozero")
            figures.append(styled(figure, 360))
        note = "Each trial's best report, in the order in which trials began."
        return figures, note

    def curves(self) -> Drawn:
        """Draw the first objective of each trial over its epochs."""
        from optuna.visualization import plot_intermediate_values

        first = self.objectives[:1]
        measured = [t for t in ranked(self.trials.all, self.objectives) if t.status in SCORED and scores(t, first)]
        if all(len(finite_series(trial)) < 2 for trial in measured):
            raise Undrawable("No trial reported its objective at two epochs.")
        shown = measured[:_MAX_CURVES]
        figure = plot_intermediate_values(self.trials.study(first, shown, curves=True))
        for trace in figure.data:
            trial = shown[int(trace.name.removeprefix("Trial"))]
            colour = BLUE if trial.status == "completed" else DARK_GREY
            trace.update(name=f"trial {trial.number}, {trial.status}", opacity=0.55)
            trace.update(line={"color": colour, "width": 1}, marker={"color": colour, "size": 4})
            if trial is shown[0]:
                trace.update(opacity=1, line={"color": RED, "width": 2.5}, marker={"color": RED, "size": 6})
        best, *others = figure.data
        figure.data = [*others, best]  # on top
        figure.update_xaxes(title_text="epoch")
        figure.update_yaxes(title_text=metric(self.objectives[0]))
        note = "Red: the best trial. Grey: trials that ended early."
        if len(shown) < len(measured):
            note += f" The best {len(shown)} of {len(measured):,} trials."
        return [styled(figure, 400)], note

    def timeline(self) -> Drawn:
        """Draw when each trial ran."""
        figure, rows = timeline(self.trials.all, self.hover)
        if figure is None:
            raise Undrawable("No trial has begun.")
        note = "Each row has one trial at a time: a gap is time in which one trial fewer ran."
        return [styled(figure, 120 + min(26 * rows, 600))], note


def _values(trial: Any, places: tuple[int, int]) -> list[float]:
    """Return two of the values of an Optuna trial."""
    return [trial.values[place] for place in places]
