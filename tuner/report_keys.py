"""Keys of a trial's reports that are no metrics."""

STATUS, REASON, TRACEBACK = "tuner.status", "tuner.reason", "tuner.traceback"
"""Keys of a trial's last report, where it tells how it ended."""

SYSTEM = "tuner.system"
"""Key of a report: what the trial took of its machine, by MLflow's names."""

DAMAGED = "tuner.damaged"
"""Key of a report: the checkpoints that could not be read when the trial was to go on, each with what is wrong."""

MICRO_BATCHES = "batch_parts"
"""Key of a report: in how many parts the trial computes each batch, where one whole takes too much memory."""

LEFT_OUT = "tuner.left_out"
"""Key of a report of a function of the user's own: as JSON, what it reported and is no number, each with why."""

LAST = "tuner.last"
"""Key of such a report: the function says that it is its last one, as ``done``."""

TIME = "training_iteration"
"""Ray's name for the number of reports that a trial has made."""
