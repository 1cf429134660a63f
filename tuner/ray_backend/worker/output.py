"""Where the output of the trial that this worker has goes to."""

import logging
from contextlib import AbstractContextManager, nullcontext

from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.output_log import OutputLog
from tuner.trials.layout import first_folder
from tuner.trials.output_files import FILE


def trial_output() -> AbstractContextManager[object]:
    """Return the log of this trial's output; outside of Ray, a context that does nothing."""
    session = internal("get_session")()
    if session is None:
        return nullcontext()
    logging.getLogger("ray.train._internal.storage").setLevel(logging.WARNING)  # a line for each checkpoint
    folder = first_folder(session.storage.trial_fs_path)
    return OutputLog(session.storage.storage_filesystem, f"{folder}/{FILE}")
