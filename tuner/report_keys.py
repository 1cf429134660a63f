"""Keys of a trial's reports that are not metrics."""

STATUS, REASON, TRACEBACK = "tuner.status", "tuner.reason", "tuner.traceback"
"""How the trial ended, in its last report."""

SYSTEM = "tuner.system"
"""System metrics of the trial's node, by MLflow's names."""

DAMAGED = "tuner.damaged"
"""The checkpoints that could not be read when the trial resumed, each with what is wrong with it."""

MICRO_BATCHES = "batch_parts"
"""Number of micro-batches that a batch is computed in, if it is more than one."""

GRAPH = "graph"
"""How the steps of a training on a GPU were computed: recorded, as a graph, or eagerly and why."""

COMPILE = "compile"
"""How the model was computed that is trained on a GPU, or is to be compiled: compiled, or eagerly and why."""

BESIDE = "beside"
"""Beside how many other trials a trial has trained in its host, in words."""

LEFT_OUT = "tuner.left_out"
"""JSON: the values that a user's function reported and that are not numbers, each with the reason."""

LAST = "tuner.last"
"""Whether a user's function marked this report as its last one, with ``done``."""

TIME = "training_iteration"
"""Ray's name for the number of reports that a trial has made."""
