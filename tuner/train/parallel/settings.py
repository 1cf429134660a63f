"""The section ``trial.parallel``."""

from tuner.config import Config


class Parallel(Config):
    """How a trial trains in several processes, one a GPU, if its `resources` give it several."""

    sync_batchnorm: bool = False
    """Whether batch normalization computes its statistics over the images of all processes, as one process would; else
    each process does that over its own, and a checkpoint has the running statistics of the first one."""
    find_unused: bool = False
    """Whether to look in each step for parameters that have no part in the loss, which costs time; needed if there are
    such parameters, as in a model that skips layers."""
