"""The record of one job in MLflow: what is written where, so that to write it once more changes nothing.

It knows MLflow and plain values. `tuner.tracking.record.writer` imports it: nothing here may import torch or the
specification, which take seconds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.storage.filesystem import as_file, as_folder
from tuner.tracking import entities, store
from tuner.tracking.record.database import DatabaseRuns
from tuner.tracking.record.messages import Opened, OpenRecord
from tuner.tracking.record.projection import Operation
from tuner.tracking.record.reopening import OPENING, Refused, check, is_over, refusing
from tuner.tracking.record.run_files import RunFiles
from tuner.tracking.record.run_writer import RunWriter
from tuner.tracking.record.runs import Change, ClientRuns
from tuner.tracking.record.trial_runs import TrialRun, TrialRuns
from tuner.trials.elapsed import FORGOTTEN
from tuner.trials.events import JobEnd

_FIRST = ("tuner.job", "tuner.role", "mlflow.user")
"""Tags that the job's own run begins with: by them it is found again."""


class Record:
    """A job's own run, and below it one for each trial."""

    def __init__(self, uri: str) -> None:
        """Connect to a store. Nothing is written yet.

        Raises:
            Refused: It cannot be used.
        """
        with refusing(uri):
            self._client = store.connect(uri)
            self._files = RunFiles(uri, self._client)
            self._writes = RunWriter(DatabaseRuns.of(uri, self._client) or ClientRuns(self._client))
            self._trials = TrialRuns(self._client, self._files, self._writes)
        self._uri = uri
        self._experiment = ""
        self._parent = ""
        self.model = ""
        """Address of the registered winner, once it is."""

    @property
    def refused(self) -> list[str]:
        """What the store does not take, each with why."""
        return [f"{what}: {why}" for what, why in self._writes.refused.items()]

    def open(self, message: OpenRecord, *, again: bool = False) -> Opened:
        """Open the experiment and the job's own run: the earlier one, where that is there.

        Args:
            message: What is opened.
            again: Whether some of it may be there already, after an attempt that was cut off.

        Raises:
            Refused: MLflow does not take it.
        """
        with refusing(self._uri):
            experiment = self._client.get_experiment_by_name(message.experiment)
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                hint = f"mlflow experiments restore --experiment-id {experiment.experiment_id}, or choose another name"
                raise Refused(f"{message.experiment!r} was deleted in MLflow", "name", hint)
            self._experiment = (
                experiment.experiment_id if experiment else self._client.create_experiment(message.experiment)
            )
            superseded = self._reopened(message)
            if superseded is None:
                self._create_parent(message, again)
                self._trials.below(self._experiment, self._parent, message.common)
            elif message.timing:
                self._writes.add(self._parent, "the job", Change(tags=message.timing))
            view = store.share_view(self._client, self._experiment, self._parent, message.view)
        return Opened(experiment=self._experiment, parent=self._parent, view=view, superseded=sorted(superseded or ()))

    def _create_parent(self, message: OpenRecord, again: bool) -> None:
        tags = message.common | message.tags | message.timing
        tags |= {OPENING: message.journal.token, "tuner.changed_code": message.journal.changed_code}
        where = f"tags.`tuner.job` = '{tags['tuner.job']}'"
        left = store.search(self._client, [self._experiment], where, most=1) if again else iter(())
        first = {name: tags[name] for name in _FIRST if name in tags}
        run = next(left, None) or self._client.create_run(self._experiment, tags=first, run_name=message.name)
        self._parent = run.info.run_id
        self._files.know(run)
        self._writes.add(self._parent, "the job", Change(params=message.params, tags=tags))
        for file, text in message.texts.items():
            self._client.log_text(self._parent, text, file)

    def _reopened(self, message: OpenRecord) -> list[int] | None:
        """Open the runs that the job has already.

        Returns:
            The trials that the journal does not have; None where the job's own run is not there.
        """
        parent, journal = message.parent, message.journal
        run = store.run_of_job(self._client, self._experiment, parent, journal.job) if parent else None
        parent = run.info.run_id if run is not None else ""
        found = store.runs_below(self._client, self._experiment, parent) if parent else None
        if run is None or found is None:
            return None
        check(run, found, journal)
        self._parent = parent
        self._trials.below(self._experiment, parent, message.common)
        self._client.update_run(parent, status="RUNNING")
        here = {
            OPENING: journal.token,
            "tuner.folder": journal.folder,  # it may have been moved
            "tuner.changed_code": journal.changed_code,
        }
        for key, value in here.items():
            if value and run.data.tags.get(key) != value:
                self._client.set_tag(parent, key, value)
        self._files.know(run)
        self._writes.know(run)
        self._forget(run, "tuner.ended_early", *FORGOTTEN)
        superseded = []
        for run in found:
            number = int(run.data.tags["tuner.trial"])
            if number >= journal.begun:
                self._supersede(run)
                superseded.append(number)
                continue
            self._forget(run, "pareto")
            there = TrialRun(run.info.run_id, is_reopened=True)
            if is_over(run) and number not in journal.unfinished:
                there.is_over = True
                there.lacks = frozenset(message.lacking[number]) if number in message.lacking else None
                there.lacks_checkpoint = number in message.unkept
            else:
                self._forget(run, "tuner.status", "tuner.reason", "tuner.seconds")
                there.steps = set(store.steps(self._client, run))
            self._trials.know(run, number, there)
        return superseded

    def _supersede(self, run: Any) -> None:
        """Have the run of a trial stand for itself: the trial that gets its number is another one."""
        number = run.data.tags["tuner.trial"]
        if run.info.status == "RUNNING":
            self._client.set_terminated(run.info.run_id, "KILLED")
        for key, value in {"tuner.role": "superseded", "tuner.superseded": number}.items():
            self._client.set_tag(run.info.run_id, key, value)
        self._forget(run, "tuner.trial", "pareto")

    def _forget(self, run: Any, *tags: str) -> None:
        """Take tags from a run that were true when an earlier run of the job ended."""
        for tag in tags:
            if tag in run.data.tags:
                self._client.delete_tag(run.info.run_id, tag)

    def is_there(self) -> bool:
        """Whether the store answers."""
        try:
            self._client.get_experiment(self._experiment)
        except Exception:
            return False
        return True

    def write(self, trial: int, operations: Sequence[Operation], *, again: bool = False) -> None:
        """Write what happened to a trial, as `tuner.tracking.record.trial_runs.TrialRuns.write`."""
        self._trials.write(trial, operations, again=again)

    def test(self, end: JobEnd) -> None:
        """What the winner came to on the test set, and which set that is.

        Args:
            end: As for `close`.
        """
        winner, measured = end["winner"], end["test"]
        if winner is not None and measured:
            run = self._trials.id_of(winner)
            metrics = entities.metrics(measured, end["time"], end["winner_epoch"])
            self._writes.add(run, f"trial {winner}", Change(metrics), measured)
            if data := end.get("test_data"):  # a journal of an older version has none
                self._files.datasets(run, data, ["test"])

    def register(self, end: JobEnd) -> None:
        """Register the winner, where that is asked for: behind `test`, whose metrics are linked to the model.

        Args:
            end: As for `close`; ``model`` as `tuner.tracking.registered.registering.register` takes it.
        """
        winner, model = end["winner"], end.get("model")
        if winner is None or not model:
            return
        from tuner.tracking.registered import registering as registry  # torch: seconds

        with as_folder(model["checkpoint"]) as folder:
            here = model | {"checkpoint": folder}
            self.model = registry.register(self._client, self._uri, self._trials.id_of(winner), here)

    def close(self, end: JobEnd) -> None:
        """Write the end of the job. Its own run ends also where some of that cannot be written.

        Args:
            end: As `tuner.tracking.record.messages.end_of` makes it.
        """
        tags = dict(end["tags"])
        try:
            if end["winner"] is not None:
                tags["tuner.winner_run"] = self._trials.id_of(end["winner"])
                tags |= {"tuner.model": self.model} if self.model else {}
            when = store.time_behind(self._client, self._parent, end["metrics"], float(end["time"]))
            metrics = entities.metrics(end["metrics"], when, 0)
            self._writes.add(self._parent, "the job", Change(metrics, tags=tags), end["metrics"])
            for number in end["front"]:
                self._client.set_tag(self._trials.id_of(number), "pareto", "true")
            if end["artifacts"] and Path(end["artifacts"]).is_dir():
                self._files.upload(self._parent, Path(end["artifacts"]))
            if place := end.get("journal"):
                with as_file(place) as journal:
                    self._files.upload(self._parent, journal)
        finally:
            self._writes.add(self._parent, "the job", Change(ended=(end["status"], end["time"])))

    def abandon(self, when: float, reason: str) -> None:
        """End what still runs: whoever drove the job is gone."""
        gone = {"tuner.status": "interrupted", "tuner.reason": reason}
        for run in store.runs_below(self._client, self._experiment, self._parent) or []:
            if run.info.status == "RUNNING":
                self._trials.adopt(int(run.data.tags["tuner.trial"]), "KILLED", when)
                self._writes.add(run.info.run_id, "a trial", Change(tags=gone, ended=("KILLED", when)))
        tags = {"tuner.status": "interrupted", "tuner.ended_early": reason}
        self._writes.add(self._parent, "the job", Change(tags=tags, ended=("KILLED", when)))
