"""Plots of the influence of the searched keys on the objectives: Optuna's, with fewer trials and a plainer style."""

import math
from collections.abc import Sequence
from itertools import cycle

from tuner.formatting import counted
from tuner.objectives import Objective
from tuner.report.plots.figures import BLUE, Drawn, Sheet, Undrawable, metric, of_many, spread, styled
from tuner.report.plots.influence import can_decide
from tuner.report.plots.study import Trials
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.trial import Trial

_MAX_LINES = 100  # of parallel coordinates: each is a trace of its own, and browsers are slow with many
_MAX_IN_CONTOUR = 80  # trials: the file grows with their square
_MAX_CONTOUR_KEYS = 4
_SLICES_A_ROW = 4
_MIN_FOR_IMPORTANCE, _MIN_A_KEY = 30, 15
"""The number of configurations that an importance needs: in all, and for each key.

Measured with random search over 2, 4 and 8 keys of which one influences the objective (a parabola, and noise of 0.3
of its spread, 40 searches each): after 8 trials a key without influence came first in 45, 78 and 80 % of
the searches; after 30 in 2, 30 and 52 %, after 50 in 2, 8 and 20 %, after 100 in none. With these numbers it is about
one in twenty.
"""
_MIN_FOR_CONTOUR, _MIN_VALUES = 20, 3
"""The number of configurations that an interpolated surface needs, and the number of values of each of its keys.

Measured on two keys (a paraboloid, the same noise, 100 repetitions): the surface explains 0.43 of the paraboloid's
variance after 8 trials, 0.67 after 10, 0.85 after 20; in the worst tenth of the cases less than 0, 0.26, and 0.72.
"""
_COLOURS = [BLUE, "#d08a2e", "#5a9367", "#8464a5"]


class KeyPlots(Sheet):
    """The plots of the searched keys."""

    def __init__(self, spec: ExperimentSpec, trials: Trials) -> None:
        super().__init__(spec.objectives, trials)
        self._spec = spec
        self._importances: dict[str, dict[str, float]] = {}
        self._unknown: dict[str, str] = {}
        """Why the importance for an objective is unknown, in a sentence, by metric."""

    def importances(self) -> Drawn:
        """Draw the importance of each key for each objective."""
        from plotly.graph_objects import Bar, Figure

        keys = self._varying(self.completed(self.objectives))
        if len(keys) == 1:
            raise Undrawable(f"Only one key varies, {keys[0]}: there is no other to compare it with.")
        found = {metric(each): shares for each in self.objectives if (shares := self._importance(each))}
        unknown = " ".join(dict.fromkeys(self._unknown.values()))
        if not found:
            raise Undrawable(unknown)
        # Optuna's plot of the importances copies all trials for each key, which takes seconds.
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
        maximum = max(max(shares.values()) for shares in found.values())
        figure.update_layout(showlegend=len(self.objectives) > 1, legend_traceorder="normal")
        figure.update_xaxes(title_text="share", range=[0, 1.08 * maximum])
        count = min(self.trials.configurations(self.trials.completed([objective])) for objective in self.objectives)
        method = f"PED-ANOVA over {count:,} configurations"
        note = f"How much a key decides whether a trial is among the best tenth ({method}). {unknown}".strip()
        return [styled(figure, 100 + sum(12 + 16 * len(shares) for shares in found.values()))], note

    def slices(self) -> Drawn:
        """Draw each objective against each key."""
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
                    if trace.name == "Feasible Trial":  # its colours are indices in the study
                        trace.marker.color = [by_number[place].number for place in trace.marker.color]
                        trace.marker.colorbar.update(title="trial", thickness=10, xpad=15)
                    trace.marker.size = 6
                    trace.name = "violates a constraint" if trace.name == "Infeasible Trial" else ""
                for axis in figure.select_xaxes(lambda axis: axis.type == "log"):
                    key = axis.title.text
                    taken = (self.trials.params[trial.number] for trial in done)
                    values = [math.log10(params[key]) for params in taken if key in params]
                    axis.range = [min(values) - 0.1, max(values) + 0.1]
                figure.update_layout(width=None)
                figures.append(styled(figure, 300))
        note = "Completed trials; the later a trial began, the darker it is."
        if not all(trial.is_feasible for trial in self.trials.all):
            note += " Plain grey: it violates a constraint."
        return figures, note

    def contour(self) -> Drawn:
        """Draw the first objective over each pair of the most important keys."""
        from optuna.visualization import plot_contour

        objective = self.objectives[0]
        done = self.completed([objective])
        varying = self._varying(done)
        shown = spread(done, _MAX_IN_CONTOUR)
        keys: list[str] = []
        for key in list(self._importance(objective)) or varying:
            others = [key, *keys]
            is_fit = self.trials.is_number(key) and self._can_decide(key, objective)
            if len(keys) < _MAX_CONTOUR_KEYS and is_fit:
                keys += [key] if all(self.trials.vary_together(key, k, shown, _MIN_VALUES) for k in others) else []
        if len(keys) < 2:
            raise Undrawable(
                f"The plot needs two numeric keys that can influence {metric(objective)}, each with at least "
                f"{_MIN_VALUES} values in those completed trials that have both keys."
            )
        count = self.trials.configurations(done)
        if count < _MIN_FOR_CONTOUR:
            raise Undrawable(
                f"{_have(count)} completed; a surface between fewer than {_MIN_FOR_CONTOUR} means nothing."
            )
        figure = plot_contour(self.trials.study([objective], shown), params=keys, target_name=metric(objective))
        for trace in figure.data:
            if trace.type == "scatter":
                trace.marker.update(size=4, line={"width": 0})
            else:
                trace.colorbar.update(thickness=10)
        note = f"{metric(objective)} interpolated between completed trials (dots): unreliable far from the dots."
        if len(keys) < len(varying):
            note += f" Of {len(varying)} keys that vary the {len(keys)} most important ones."
        return [styled(figure, 420 if len(keys) == 2 else 80 + 190 * len(keys))], note + of_many(shown, done)

    def parallel(self) -> Drawn:
        """Draw each trial as a line across all keys."""
        from optuna.visualization import plot_parallel_coordinate

        done = self.completed(self.objectives)
        shown = spread(done, _MAX_LINES)
        keys = self._varying(shown)
        is_one = len(self.objectives) == 1
        # The best trial comes last, so that it is drawn on top of the others.
        study = self.trials.study(self.objectives, shown[::-1])
        figure = plot_parallel_coordinate(study, params=keys, target_name=metric(self.objectives[0]))
        figure.layout.xaxis.ticktext = [*map(metric, self.objectives), *sorted(keys)]  # Optuna cuts them off
        figure.layout.xaxis.side = "top"
        for annotation in figure.layout.annotations:
            annotation.bgcolor = "rgba(255,255,255,0.7)"  # so that numbers stay readable where lines cross them
        figure.data[-1].marker.colorbar.update(title=metric(self.objectives[0]) if is_one else "front", thickness=10)
        note = "Completed trials, darker where better. None: the key's condition did not hold in that trial."
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

    def _can_decide(self, key: str, objective: Objective) -> bool:
        done = self.trials.completed([objective])
        return can_decide(self._spec, done, self.trials.full_names[key], objective.metric)

    def _importance(self, objective: Objective) -> dict[str, float]:
        """Return the importance of each key that varies and can influence the objective, the largest first.

        Empty where the trials do not suffice; `_unknown` then has the reason.
        """
        name = objective.metric
        if name not in self._importances:
            self._importances[name], self._unknown[name] = {}, ""
            try:
                self._importances[name] = self._measured(objective)
            except Undrawable as reason:
                self._unknown[name] = str(reason)
        return self._importances[name]

    def _measured(self, objective: Objective) -> dict[str, float]:
        done = self.trials.completed([objective])
        keys = [key for key in self.trials.varying(done) if self._can_decide(key, objective)]
        name = metric(objective)
        if len(keys) < 2:
            which = f"Only {keys[0]}" if keys else "None"
            raise Undrawable(f"{which} of the keys that vary can influence {name}: there is nothing to compare.")
        count, needed = self.trials.configurations(done), max(_MIN_FOR_IMPORTANCE, _MIN_A_KEY * len(keys))
        if count < needed:
            why = f"the importance of {len(keys)} keys for {name} needs {needed}"
            raise Undrawable(f"{_have(count)} completed; {why}.")
        from optuna.importance import get_param_importances  # it takes scikit-learn, which takes a second

        shares: dict[str, float] = {}
        if len({objective.of(trial.best_report) for trial in done}) > 1:
            shares = get_param_importances(self.trials.study([objective], done), params=keys)
        if not shares or max(shares.values()) - min(shares.values()) < 1e-9:  # Optuna returns this where it finds none
            raise Undrawable(f"The trials do not show which key influences {metric(objective)}.")
        return shares


def _have(count: int) -> str:
    return counted(count, "configuration has", "configurations have")
