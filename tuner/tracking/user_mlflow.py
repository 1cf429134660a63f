"""MLflow as code of the user's own sees it inside a trial: the job's store and experiment, and a run below the trial's.

Nothing here imports MLflow: it would cost each worker seconds. What it reads are its environment variables.
"""

import json
import os
import sys
from dataclasses import dataclass

from tuner.storage.uris import absolute, local_path

KEY = "tuner.inside"
"""Tag of a run that was begun inside a trial: the id of the job's own run, and the trial's number."""

_NOT_ITS_OWN = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
"""What MLflow would take from the environment in which the job, or Ray, was started."""

_CONTEXT = "MLFLOW_RUN_CONTEXT"
"""Variable with tags, as JSON, for every run that is begun."""


@dataclass(frozen=True)
class UserMlflow:
    """Where a trial's own runs go.

    Args:
        uri: MLflow's tracking URI, absolute. It may hold a password: it is for workers alone.
        experiment: Id of the experiment.
        parent: Id of the job's own run.
        file: What tells the file or the folder that the store is from another at its path; None for no file.
    """

    uri: str
    experiment: str
    parent: str
    file: int | None = None

    @classmethod
    def of(cls, uri: str, experiment: str, parent: str) -> "UserMlflow":
        """As the driver sees it."""
        uri = absolute(uri)
        return cls(uri, experiment, parent, _identity(uri))

    @property
    def is_seen(self) -> bool:
        """Whether the store can be had from this machine: a file may be another machine's."""
        return _identity(self.uri) == self.file

    def enter(self, trial: int) -> None:
        """Have MLflow write there in this process from now on, for a trial by its number."""
        if not self.is_seen:
            return
        for name in _NOT_ITS_OWN:
            os.environ.pop(name, None)
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        os.environ["MLFLOW_EXPERIMENT_ID"] = self.experiment
        os.environ[_CONTEXT] = json.dumps(_said() | {KEY: key_of(self.parent, trial)})
        if "mlflow" in sys.modules and (fluent := sys.modules.get("mlflow.tracking.fluent")) is not None:
            # What an earlier trial in this process has set, or left active.
            sys.modules["mlflow"].set_tracking_uri(self.uri)
            fluent._active_experiment_id = None  # type: ignore[attr-defined]


def key_of(parent: str, trial: int) -> str:
    """What `KEY` says of the runs of a trial."""
    return f"{parent}/{trial}"


def _said() -> dict[str, str]:
    """The tags that the user asks for."""
    try:
        said = json.loads(os.environ.get(_CONTEXT) or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _identity(uri: str) -> int | None:
    """The number of the file or folder of a store, the same on all machines that share it; None where there is none."""
    try:
        return local_path(uri).stat().st_ino if uri.startswith(("sqlite:", "file:", "/")) else None
    except OSError:
        return 0
