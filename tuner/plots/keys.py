"""Plots of what the searched keys do to the objective: Optuna's own, quieter, and thinned out."""

import math
from collections.abc import Sequence
from itertools import cycle

from tuner.plots.as_optuna import Trials
from tuner.plots.figures import BLUE, Drawn, Sheet, Undrawable, metric, of_many, spread, styled
from tuner.scoring import Objective
from tuner.trials import Trial

_MOST_LINES = 100  # of parallel coordinates: each is a trace of its own, and browsers are slow with many
_MOST_IN_CONTOUR = 80  # trials: the file grows with their square
_MOST_CONTOUR_KEYS = 4
_SLICES_A_ROW = 4
_ENOUGH_FOR_IMPORTANCE = 50  # trials: PED-ANOVA wants five in the best tenth
_COLOURS = [BLUE, "#d08a2e", "#5a9367", "#8464a5"]


class KeyPlots(Sheet):
    """The plots of the searched keys."""

    def __init__(self, objectives: Sequence[Objective], trials: Trials) -> None:
        super().__init__(objectives, trials)
        self._importances: dict[str, dict[str, float]] = {}

    def importances(self) -> Drawn:
        """How much each key decides, for each objective."""
        from plotly.graph_objects import Bar, Figure

        keys = self._varying(self.completed(self.objectives))
        if len(keys) == 1:
            raise Undrawable(f"Only one key varies, {keys[0]}: there is nothing to weigh it against.")
        found = {metric(each): shares for each in self.objectives if (shares := self._importance(each))}
        if not found:
            raise Undrawable("The trials do not tell the keys apart.")
        # Optuna's own plot of this copies all trials for each key: seconds.
        figure = Figure(
            [
                Bar(
                    orientation="h",
                    y=list(shares)[::-1],
                    x=list(shares.values())[::-1],
                    text=[f"{share:.2f}" if share >= 0.01 else "<0.01" for share in reversed(shares.values())],
                    name=name,
                    textposition="outside",
                    cliponaxis=False,
                    hovertemplate="%{y}: %{x:.3f}<extra></extra>",
                    marker={"color": colour},
                )
                for (name, shares), colour in zip(found.items(), cycle(_COLOURS), strict=False)
            ]
        )
        most = max(max(shares.values()) for shares in found.values())
        figure.update_layout(showlegend=len(self.objectives) > 1, legend_traceorder="normal")
        figure.update_xaxes(title_text="share", range=[0, 1.08 * most])
        count = min(len(self.trials.completed([objective])) for objective in self.objectives)
        note = f"How much a key decides whether a trial is among the best tenth (PED-ANOVA over {count:,} trials)."
        if count < _ENOUGH_FOR_IMPORTANCE:
            note += f" Of fewer than {_ENOUGH_FOR_IMPORTANCE} trials it is a hint, not a measurement."
        return [styled(figure, 100 + sum(12 + 16 * len(shares) for shares in found.values()))], note

    def slices(self) -> Drawn:
        """The objective by each key alone."""
        from optuna.visualization import plot_slice

        figures = []
        for objective in self.objectives:
            done = self.completed([objective])
            keys = list(self._importance(objective)) or self._varying(done)
            rows = math.ceil(len(keys) / _SLICES_A_ROW)
            size = math.ceil(len(keys) / rows)
            by_number = sorted(done, key=lambda trial: trial.number)
            study = self.trials.study([objective], by_number)
            for start in range(0, len(keys), size):
                figure = plot_slice(study, params=keys[start : start + size], target_name=metric(objective))
                for trace in figure.data:
                    if trace.name == "Feasible Trial":  # its colours are places in the study
                        trace.marker.color = [by_number[place].number for place in trace.marker.color]
                        trace.marker.colorbar.update(title="trial", thickness=10, xpad=15)
                    trace.marker.size = 6
                    trace.name = "misses a constraint" if trace.name == "Infeasible Trial" else ""
                for axis in figure.select_xaxes(lambda axis: axis.type == "log"):
                    key = axis.title.text
                    taken = (self.trials.params[trial.number] for trial in done)
                    values = [math.log10(params[key]) for params in taken if key in params]
                    axis.range = [min(values) - 0.1, max(values) + 0.1]
                figure.update_layout(width=None)
                figures.append(styled(figure, 300))
        note = "Completed trials; the later a trial was begun, the darker it is."
        if not all(trial.is_feasible for trial in self.trials.all):
            note += " Plain grey: it misses a constraint."
        return figures, note

    def contour(self) -> Drawn:
        """The first objective by two keys at a time."""
        from optuna.visualization import plot_contour

        objective = self.objectives[0]
        done = self.completed([objective])
        varying = self._varying(done)
        shown = spread(done, _MOST_IN_CONTOUR)
        keys: list[str] = []
        for key in list(self._importance(objective)) or varying:
            if len(keys) < _MOST_CONTOUR_KEYS and all(self.trials.go_together(key, k, shown) for k in [key, *keys]):
                keys.append(key)
        if len(keys) < 2:
            raise Undrawable("It takes two keys that vary together in completed trials.")
        figure = plot_contour(self.trials.study([objective], shown), params=keys, target_name=metric(objective))
        for trace in figure.data:
            if trace.type == "scatter":
                trace.marker.update(size=4, line={"width": 0})
            else:
                trace.colorbar.update(thickness=10)
        note = f"{metric(objective)} between completed trials (dots), interpolated: far from the dots it is a guess."
        if len(keys) < len(varying):
            note += f" Of {len(varying)} keys that vary the {len(keys)} most important ones."
        return [styled(figure, 420 if len(keys) == 2 else 80 + 190 * len(keys))], note + of_many(shown, done)

    def parallel(self) -> Drawn:
        """Each trial as a line across all keys."""
        from optuna.visualization import plot_parallel_coordinate

        done = self.completed(self.objectives)
        shown = spread(done, _MOST_LINES)
        keys = self._varying(shown)
        is_one = len(self.objectives) == 1
        # The best last: on top of the others.
        study = self.trials.study(self.objectives, shown[::-1])
        figure = plot_parallel_coordinate(study, params=keys, target_name=metric(self.objectives[0]))
        figure.layout.xaxis.ticktext = [*map(metric, self.objectives), *sorted(keys)]  # Optuna cuts them off
        figure.layout.xaxis.side = "top"
        for annotation in figure.layout.annotations:
            annotation.bgcolor = "rgba(255,255,255,0.7)"  # numbers that lines run through
        figure.data[-1].marker.colorbar.update(title=metric(self.objectives[0]) if is_one else "front", thickness=10)
        note = "Completed trials, darker where better. None: the key did not count in that trial."
        return [styled(figure, 420)], note + of_many(shown, done)

    def _varying(self, trials: Sequence[Trial]) -> list[str]:
        keys = self.trials.varying(trials)
        if not self.trials.keys:
            raise Undrawable("No keys were searched.")
        if len(trials) == 1:
            raise Undrawable("Only one trial has completed with a value.")
        if not keys:
            raise Undrawable("All completed trials have the same configuration.")
        return keys

    def _importance(self, objective: Objective) -> dict[str, float]:
        """The share of each key that varies, the largest first; none where it cannot be told."""
        from optuna.importance import get_param_importances

        if objective.metric not in self._importances:
            done = self.trials.completed([objective])
            keys = self.trials.varying(done)
            shares: dict[str, float] = {}
            if len(keys) > 1 and len({objective.of(trial.best_report) for trial in done}) > 1:
                shares = get_param_importances(self.trials.study([objective], done), params=keys)
                if max(shares.values()) - min(shares.values()) < 1e-9:
                    shares = {}  # Optuna's answer where it found nothing
            self._importances[objective.metric] = shares
        return self._importances[objective.metric]
