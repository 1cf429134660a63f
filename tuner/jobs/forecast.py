"""A forecast of an experiment's duration, from the times of an earlier job."""

import math
from statistics import fmean

from tuner import user_code
from tuner.errors import UserError
from tuner.formatting import counted, duration
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below
from tuner.trials import journal
from tuner.trials.resume.reading import rebuilt
from tuner.trials.resume.stored_jobs import find

_MEASURED = ("completed", "pruned")


def forecast(spec: ExperimentSpec, slots: int) -> str:
    """Return how long the trials of an experiment may take, and from which job that follows, as text.

    Args:
        spec: The experiment.
        slots: How many trials run at once; 0 if unknown.

    Returns:
        The text; empty where no earlier job has measured a trial, or the storage is remote.
    """
    if "://" in spec.storage or slots < 1:  # reading a remote storage would take too long for a plan
        return ""
    try:
        last = find(spec.storage, spec.name, None)
        folder = below(spec.storage, spec.name, last.folder)
        with user_code.without_imports():
            before, past = rebuilt(journal.text_of(folder), last.id, folder)
    except (UserError, OSError):  # no earlier job, or its journal is damaged or of another version
        return ""
    measured = [trial.seconds for trial in past.trials if trial.status in _MEASURED and trial.seconds > 0]
    if not measured:
        return ""
    each, note = fmean(measured), ""
    if spec.trial.length and before.trial.length and spec.trial.length != before.trial.length:
        each *= spec.trial.length / before.trial.length
        epochs = counted(before.trial.length, "epoch")
        note = f", trained for {epochs}, scaled to {spec.trial.length}"
    count = spec.count() if spec.budget.trials is None else min(spec.count(), spec.budget.trials)
    whole = each * math.ceil(count / slots)
    return (
        f"about {duration(whole)} of training: {count:,} x {duration(each)} / {min(slots, count)} at once; "
        f"{duration(fmean(measured))} is the mean of {counted(len(measured), 'trial')} of job {past.job}{note}"
    )
