"""Checks of the metrics that a function of the user's own reports: missing objectives, values that are no numbers."""

import json
from collections.abc import Sequence

from tuner.errors import allowed
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Trial


class ReportedMetrics:
    """Warns, once a job for each name, of what is left out of reports and of missing objectives.

    Args:
        spec: The experiment.
        listeners: The callbacks whose `trial_noted` gets the warnings.
    """

    def __init__(self, spec: ExperimentSpec, listeners: Sequence[TrialCallback]) -> None:
        self._objectives = [objective.metric for objective in spec.objectives]
        self._listeners = listeners
        self._warned: set[str] = set()
        self._has_checked = False

    def note_left_out(self, trial: Trial, report: str) -> None:
        """Note values that a trial reported and that are no numbers; warn of each name once.

        Args:
            trial: The trial.
            report: Its report's value of `tuner.report_keys.LEFT_OUT`: JSON with a reason for each name.
        """
        left_out: dict[str, str] = json.loads(report)
        trial.left_out |= left_out
        new = {name: why for name, why in left_out.items() if name not in self._warned}
        self._warned |= new.keys()
        if new:
            self._note(trial, f"left out of its reports: {_listed(new)}")

    def check_epoch(self, trial: Trial, reported: object, counted: int) -> None:
        """Warn if a function of the user's own reports a metric ``epoch`` that does not count its reports.

        Args:
            trial: The trial.
            reported: The ``epoch`` of its report; None if it has none.
            counted: The number of the report, from 1. It is recorded as the epoch.
        """
        if trial.config.metrics is None and reported not in (None, counted, counted - 1):
            self.note_left_out(trial, json.dumps({"epoch": "tuner itself reports this name: the number of the report"}))

    def check_names(self, trial: Trial, names: set[str]) -> None:
        """Warn if the first report of the job lacks an objective, so that a typing error shows at once.

        Args:
            trial: The trial.
            names: The names in its report.
        """
        if self._has_checked or trial.config.metrics is not None:
            return
        self._has_checked = True
        if missing := [name for name in self._objectives if name not in names]:
            self._note(trial, f"its first report has no {_instead(missing, names, trial)} · a trial without it fails")

    def missing(self, trial: Trial) -> str:
        """Return which objectives a trial never reported, and what it reported, as text; empty if none is missing."""
        missing = [name for name in self._objectives if name not in trial.reported]
        return f"never reported {_instead(missing, trial.reported, trial)}" if missing else ""

    def _note(self, trial: Trial, what: str) -> None:
        for listener in self._listeners:
            listener.trial_noted(trial, what)


def _instead(missing: Sequence[str], names: set[str], trial: Trial) -> str:
    """Format the missing names, what was reported, and the most similar reported name."""
    no_numbers = {name: trial.left_out[name] for name in missing if name in trial.left_out}
    quoted = ", ".join(map(repr, missing))
    if no_numbers:
        reasons = "; ".join(no_numbers.values()) if len(missing) == 1 else _listed(no_numbers)
        return f"{quoted} as a number: {reasons}"
    reported = sorted(names - {"epoch"})
    text = f"it reported {', '.join(reported)}" if reported else "it reported nothing"
    similar = allowed(missing[0], reported).partition("?")
    return f"{quoted}: {text}" + (f"; {similar[0]}?" if similar[1] else "")


def _listed(left_out: dict[str, str]) -> str:
    """Format the names that were left out, grouped by their reasons."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(repr(name))
    return "; ".join(f"{', '.join(group)}: {why}" for why, group in names.items())
