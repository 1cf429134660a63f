"""MLflow's runs, as a record writes them: begun, added to, ended.

Two ways lead there: through MLflow's client, and, where the store is a database of this kind, straight into its tables
(`tuner.tables`), which takes a third of the computing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuner import store

_MOST, _MOST_PARAMS, _MOST_TAGS = 1000, 100, 100  # MLflow's limits for one batch


@dataclass(frozen=True)
class Begun:
    """A run that was begun."""

    run: str
    """Its id."""
    artifacts: str
    """URI of the folder of its artifacts."""


@dataclass(frozen=True)
class Change:
    """What is added to a run."""

    metrics: Sequence[Any] = ()
    """MLflow's entities."""
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Those without a value are left out."""
    ended: tuple[str, float] | None = None
    """The status that it ended with, and when: seconds since the epoch."""


class Runs(Protocol):
    """Writes runs. To write the same once more changes nothing."""

    def begin(self, experiment: str, name: str, when: float, tags: Mapping[str, str]) -> Begun:
        """Begin a run. It may come to be there with its first change only.

        Args:
            experiment: Id of the experiment.
            name: What the UI calls it.
            when: Seconds since the epoch.
            tags: From its beginning on.
        """

    def write(self, run: str, change: Change) -> None:
        """Write a change of a run."""


class ThroughClient:
    """Runs of any store. A `Runs`."""

    def __init__(self, client: Any) -> None:
        """Write with an `MlflowClient`."""
        self._client = client

    def begin(self, experiment: str, name: str, when: float, tags: Mapping[str, str]) -> Begun:
        """As `Runs.begin`."""
        said = {tag.key: tag.value for tag in store.tags(tags)}
        run = self._client.create_run(experiment, start_time=int(when * 1000), tags=said, run_name=name)
        return Begun(run.info.run_id, run.info.artifact_uri)

    def write(self, run: str, change: Change) -> None:
        """As `Runs.write`, in batches that MLflow takes."""
        metrics, params, tags = list(change.metrics), store.params(change.params), store.tags(change.tags)
        while metrics or params or tags:
            some_params, params = params[:_MOST_PARAMS], params[_MOST_PARAMS:]
            some_tags, tags = tags[:_MOST_TAGS], tags[_MOST_TAGS:]
            room = _MOST - len(some_params) - len(some_tags)
            some, metrics = metrics[:room], metrics[room:]
            self._client.log_batch(run, metrics=some, params=some_params, tags=some_tags)
        if change.ended is not None:
            status, when = change.ended
            self._client.set_terminated(run, status, end_time=int(when * 1000))
