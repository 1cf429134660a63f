"""Sets up MLflow for the user's code inside a trial: it writes to the job's store and experiment.

This module sets MLflow's environment variables and does not import MLflow, which would cost each worker seconds.
"""

import json
import os
import sys
from dataclasses import dataclass

from tuner.storage.uris import absolute, local_path

KEY = "tuner.inside"
"""Tag of a run that the user's code started inside a trial: the id of the job's run, and the trial's number."""

_INHERITED = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
"""Variables that are removed: they come from the environment in which the job, or Ray, was started."""

_CONTEXT = "MLFLOW_RUN_CONTEXT"
"""Variable of MLflow with tags, as JSON, for each run that is started."""


@dataclass(frozen=True)
class UserMlflow:
    """The store and the experiment to which the user's code logs inside trials.

    Args:
        uri: MLflow's tracking URI, absolute. It may contain a password, so it is only sent to workers.
        experiment: Id of the experiment.
        parent: Id of the job's run.
        file: Inode number of the store's file or folder on the driver's node; None if the store is a server.
    """

    uri: str
    experiment: str
    parent: str
    file: int | None = None

    @classmethod
    def of(cls, uri: str, experiment: str, parent: str) -> "UserMlflow":
        """Create it on the driver; arguments as for the class, `uri` may be relative."""
        uri = absolute(uri)
        return cls(uri, experiment, parent, _identity(uri))

    @property
    def is_seen(self) -> bool:
        """Whether this node can reach the store; a file may exist only on the driver's node."""
        return _identity(self.uri) == self.file

    def enter(self, trial: int) -> None:
        """Make MLflow in this process write to this store, with the tags of a trial, given by its number."""
        if not self.is_seen:
            return
        for name in _INHERITED:
            os.environ.pop(name, None)
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        os.environ["MLFLOW_EXPERIMENT_ID"] = self.experiment
        os.environ[_CONTEXT] = json.dumps(_user_tags() | {KEY: key_of(self.parent, trial)})
        if "mlflow" in sys.modules and (fluent := sys.modules.get("mlflow.tracking.fluent")) is not None:
            # An earlier trial in this process may have set another store or experiment.
            sys.modules["mlflow"].set_tracking_uri(self.uri)
            fluent._active_experiment_id = None  # type: ignore[attr-defined]


def key_of(parent: str, trial: int) -> str:
    """Return the value of the tag `KEY` for the runs inside a trial."""
    return f"{parent}/{trial}"


def _user_tags() -> dict[str, str]:
    """Return the tags that the user has set in `_CONTEXT`; none if it is not valid JSON."""
    try:
        tags = json.loads(os.environ.get(_CONTEXT) or "{}")
    except ValueError:
        return {}
    return tags if isinstance(tags, dict) else {}


def _identity(uri: str) -> int | None:
    """Return the inode number of a store's file or folder, equal on all nodes that share it.

    Returns:
        None if the store is no file or folder; 0 if its path does not exist.
    """
    try:
        return local_path(uri).stat().st_ino if uri.startswith(("sqlite:", "file:", "/")) else None
    except OSError:
        return 0
