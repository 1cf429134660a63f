"""Which of the metrics that an experiment names a function of the user's own reports, and what it reported instead."""

import json
from collections.abc import Sequence

from tuner.errors import allowed
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Trial


class ReportedMetrics:
    """Tells, once a job, what is left out of reports and what is missing in them."""

    def __init__(self, spec: ExperimentSpec, listeners: Sequence[TrialCallback]) -> None:
        self._objectives = [objective.metric for objective in spec.objectives]
        self._listeners = listeners
        self._said: set[str] = set()
        self._has_looked = False

    def left_out(self, trial: Trial, told: str) -> None:
        """A trial reported what is no number. Of a hundred that do so, the first is told of.

        Args:
            trial: Which.
            told: What it tells under `tuner.report_keys.LEFT_OUT`.
        """
        left_out: dict[str, str] = json.loads(told)
        trial.left_out |= left_out
        new = {name: why for name, why in left_out.items() if name not in self._said}
        self._said |= new.keys()
        if new:
            self._note(trial, f"left out of its reports: {_listed(new)}")

    def epoch(self, trial: Trial, told: object, counted: int) -> None:
        """An epoch that a function of the user's own reports is not recorded: ours counts its reports.

        Args:
            trial: Whose report it is.
            told: The epoch in it; None where it has none.
            counted: Its place among the reports, from 1, as which an epoch that counts from 0 or 1 is recorded anyway.
        """
        if trial.config.metrics is None and told not in (None, counted, counted - 1):
            self.left_out(trial, json.dumps({"epoch": "the name is tuner's own, and counts the reports"}))

    def look(self, trial: Trial, names: set[str]) -> None:
        """Look for them in the first report of the job: a typing error shows before hours have gone by.

        Args:
            trial: Whose report it is.
            names: What is in it.
        """
        if self._has_looked or trial.config.metrics is not None:
            return
        self._has_looked = True
        if missing := [name for name in self._objectives if name not in names]:
            self._note(
                trial, f"its first report has no {_instead(missing, names, trial)} · never reported, it fails the trial"
            )

    def never(self, trial: Trial) -> str:
        """Which objectives a trial never reported, and what there was instead; empty where it reported all."""
        missing = [name for name in self._objectives if name not in trial.reported]
        return f"never reported {_instead(missing, trial.reported, trial)}" if missing else ""

    def _note(self, trial: Trial, what: str) -> None:
        for listener in self._listeners:
            listener.trial_noted(trial, what)


def _instead(missing: Sequence[str], names: set[str], trial: Trial) -> str:
    """Missing names, what was reported in their place, and what may have been meant."""
    odd = {name: trial.left_out[name] for name in missing if name in trial.left_out}
    quoted = ", ".join(map(repr, missing))
    if odd:
        return f"{quoted} as a number: {'; '.join(odd.values()) if len(missing) == 1 else _listed(odd)}"
    there = sorted(names - {"epoch"})
    did = f"it reported {', '.join(there)}" if there else "it reported nothing"
    near = allowed(missing[0], there).partition("?")
    return f"{quoted}: {did}" + (f"; {near[0]}?" if near[1] else "")


def _listed(left_out: dict[str, str]) -> str:
    """What was left out by why: names with the same reason share it."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(repr(name))
    return "; ".join(f"{', '.join(those)}: {why}" for why, those in names.items())
