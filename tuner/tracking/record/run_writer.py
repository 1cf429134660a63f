"""Writes changes of runs, and keeps which names MLflow does not take and what the store refuses."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tuner.tracking.names import TAG, as_tag, originals, renamed
from tuner.tracking.record.runs import Change, CreatedRun, Runs


class RunWriter:
    """Writes runs, and keeps what the store refuses."""

    def __init__(self, runs: Runs) -> None:
        """Write by way of `runs`."""
        self._runs = runs
        self._renamed: dict[str, dict[str, str]] = {}
        """Of each run, as `tuner.tracking.names.renamed`."""
        self.refused: dict[str, str] = {}
        """What the store does not take, and why: the first time of each."""

    def know(self, run: Any) -> None:
        """Take note of a run that is there, as MLflow gives it."""
        self._renamed[run.info.run_id] = originals(run.data.tags)

    def begin(self, experiment: str, name: str, when: float, tags: Mapping[str, str]) -> CreatedRun:
        """As `tuner.tracking.record.runs.Runs.begin`."""
        return self._runs.begin(experiment, name, when, tags)

    def add(self, run: str, whose: str, change: Change, names: Iterable[str] = ()) -> None:
        """Write a change of a run.

        Args:
            run: Its id.
            whose: What it is the run of, for what the store refuses.
            change: What is added.
            names: The names of its metrics, and of the tags that the run began with, as the user gave them.
        """
        there = self._renamed.get(run, {})
        named = there | renamed((*names, *change.params, *change.tags))
        if named != there:
            change = replace(change, tags={**change.tags, TAG: as_tag(named)})
        for refused in self._runs.write(run, change):
            what, _, why = refused.partition(": ")
            self.refused.setdefault(f"{what} of {whose}", why)
        self._renamed[run] = named
