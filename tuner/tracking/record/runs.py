"""MLflow's runs, as a record writes them: begun, added to, ended.

Two ways lead there: through MLflow's client, and, where the store is a database of this kind, straight into its tables
(`tuner.tracking.record.database`), which takes a third of the computing.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from tuner.storage.uris import masked
from tuner.tracking import entities

_SIDE_BY_SIDE = 8  # questions to a server

_MOST, _MOST_PARAMS, _MOST_TAGS = 1000, 100, 100  # MLflow's limits for one batch

_KINDS = {"Param": "parameter", "RunTag": "tag", "Metric": "metric"}
"""MLflow's entities by the names of their classes, in words."""

_LONGEST_WHY = 200  # characters of the reason why something is refused


@dataclass(frozen=True)
class CreatedRun:
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

    def begin(self, experiment: str, name: str, when: float, tags: Mapping[str, str]) -> CreatedRun:
        """Begin a run. It may come to be there with its first change only.

        Args:
            experiment: Id of the experiment.
            name: What the UI calls it.
            when: Seconds since the epoch.
            tags: From its beginning on.
        """

    def write(self, run: str, change: Change) -> list[str]:
        """Write a change of a run.

        Returns:
            Which metrics, parameters and tags the store refuses, each with why. The others are written.
        """

    def points(self, runs: Sequence[str]) -> dict[str, dict[str, int]]:
        """At how many steps each metric of each run has a value."""


def written(
    items: Sequence[Any], write: Callable[[Sequence[Any]], object], is_refusal: Callable[[Exception], bool]
) -> list[str]:
    """Write metrics, parameters and tags; of what is refused as a whole, each half by itself.

    Args:
        items: MLflow's entities.
        write: Writes some of them, all or none.
        is_refusal: Whether an error is about what was written. Others are raised.

    Returns:
        As `Runs.write`.
    """
    try:
        write(items)
    except Exception as error:
        if not is_refusal(error):
            raise
        if len(items) > 1:
            middle = len(items) // 2
            return [*written(items[:middle], write, is_refusal), *written(items[middle:], write, is_refusal)]
        why = masked(str(getattr(error, "orig", None) or error).strip().splitlines()[0])[:_LONGEST_WHY]
        return [f"{_KINDS[type(item).__name__]} {item.key!r}: {why}" for item in items]
    return []


def by_kind(items: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The parameters, the tags and the metrics among MLflow's entities."""
    params, tags, metrics = ([item for item in items if type(item).__name__ == kind] for kind in _KINDS)
    return params, tags, metrics


class ClientRuns:
    """Runs of any store. A `Runs`."""

    def __init__(self, client: Any) -> None:
        """Write with an `MlflowClient`."""
        self._client = client

    def points(self, runs: Sequence[str]) -> dict[str, dict[str, int]]:
        """As `Runs.points`."""

        def of(run: str) -> dict[str, int]:
            names = self._client.get_run(run).data.metrics
            return {name: len({p.step for p in self._client.get_metric_history(run, name)}) for name in names}

        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            return dict(zip(runs, pool.map(of, runs), strict=True))

    def begin(self, experiment: str, name: str, when: float, tags: Mapping[str, str]) -> CreatedRun:
        """As `Runs.begin`."""
        named = {tag.key: tag.value for tag in entities.tags(tags)}
        run = self._client.create_run(experiment, start_time=int(when * 1000), tags=named, run_name=name)
        return CreatedRun(run.info.run_id, run.info.artifact_uri)

    def write(self, run: str, change: Change) -> list[str]:
        """As `Runs.write`, in batches that MLflow takes."""
        metrics, params, tags = list(change.metrics), entities.params(change.params), entities.tags(change.tags)
        refused: list[str] = []
        while metrics or params or tags:
            some_params, params = params[:_MOST_PARAMS], params[_MOST_PARAMS:]
            some_tags, tags = tags[:_MOST_TAGS], tags[_MOST_TAGS:]
            room = _MOST - len(some_params) - len(some_tags)
            some, metrics = metrics[:room], metrics[room:]
            refused += written([*some_params, *some_tags, *some], partial(self._log, run), self._is_refusal)
        if change.ended is not None:
            status, when = change.ended
            self._client.set_terminated(run, status, end_time=int(when * 1000))
        return refused

    def _log(self, run: str, items: Sequence[Any]) -> None:
        params, tags, metrics = by_kind(items)
        self._client.log_batch(run, metrics=metrics, params=params, tags=tags)

    def _is_refusal(self, error: Exception) -> bool:
        """Whether an error is about what was to be written, and not about a store that does not answer."""
        code = getattr(error, "error_code", "")
        if code == "INTERNAL_ERROR":  # either: a server's database refused, or nobody answered
            try:
                self._client.search_experiments(max_results=1)
            except Exception:
                return False
            return True
        # Of a folder: a name that is a file already cannot be a folder, too.
        names = (NotADirectoryError, IsADirectoryError, FileExistsError)
        return code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST") or isinstance(
            error, (ValueError, OverflowError, *names)
        )
