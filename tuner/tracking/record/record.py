"""The record of one job in MLflow: what is written where, so that to write it once more changes nothing.

It knows MLflow and plain values. `tuner.tracking.record.writer` imports it: nothing here may import torch or the
specification, which take seconds.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.storage.filesystem import as_file, as_folder, delete_checkpoints
from tuner.tracking import entities, store
from tuner.tracking.record.database import DatabaseRuns
from tuner.tracking.record.reopening import OPENING, Refused, check, is_over, refusing
from tuner.tracking.record.run_files import RunFiles
from tuner.tracking.record.run_writer import RunWriter
from tuner.tracking.record.runs import Change, ClientRuns
from tuner.tracking.user_mlflow import key_of
from tuner.trials.elapsed import FORGOTTEN

_FIRST = ("tuner.job", "tuner.role", "mlflow.user")
"""Tags that the job's own run begins with: by them it is found again."""

Operation = Mapping[str, Any]
"""Something to be written, as plain values: ``do`` says what, ``trial`` of which trial."""


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
        self._uri = uri
        self._experiment = ""
        self._parent = ""
        self._tags: dict[str, str] = {}
        self._runs: dict[int, str] = {}
        self._ended: set[int] = set()
        """Trials whose record is whole, their checkpoint included."""
        self._ended_before: set[int] = set()
        """Those of them that an earlier run of the job has written: their artifacts may be gone since."""
        self.model = ""
        """Address of the registered winner, once it is."""

    @property
    def refused(self) -> list[str]:
        """What the store does not take, each with why."""
        return [f"{what}: {why}" for what, why in self._writes.refused.items()]

    def open(self, said: Operation, *, again: bool = False) -> dict[str, Any]:
        """Open the experiment and the job's own run: the earlier one, where that is there.

        Args:
            said: ``experiment``: its name; ``parent``: id of the job's run, or empty; ``name``, ``tags``, ``params``
                and ``texts`` (by file) of a new one; ``timing``: tags of a new or an old one; ``common``: tags of every
                run; ``view``: what that page shows, by `tuner.tracking.store.share_view`.
            again: Whether some of it may be there already, after an attempt that was cut off.

        Returns:
            ``experiment`` and ``parent``: ids; ``view``: the key of the page of the job's trials; ``trials``: of those
            that have runs already, number to ``ended``, whether it is written to its end, and ``steps`` that are there;
            ``aside``: trials of which the journal does not tell, and whose runs no longer stand for them.

        Raises:
            Refused: MLflow does not take it.
        """
        with refusing(self._uri):
            experiment = self._client.get_experiment_by_name(said["experiment"])
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                hint = f"mlflow experiments restore --experiment-id {experiment.experiment_id}, or choose another name"
                raise Refused(f"{said['experiment']!r} was deleted in MLflow", "name", hint)
            self._experiment = (
                experiment.experiment_id if experiment else self._client.create_experiment(said["experiment"])
            )
            self._tags = said["common"]
            aside: list[int] = []
            trials = self._reopened(said["parent"], said["opening"], aside)
            if trials is None:
                trials = {}
                self._create_parent(said, again)
            elif said.get("timing"):
                self._writes.add(self._parent, "the job", Change(tags=said["timing"]))
            view = store.share_view(self._client, self._experiment, self._parent, said["view"])
        return {
            "experiment": self._experiment,
            "parent": self._parent,
            "trials": trials,
            "view": view,
            "aside": sorted(aside),
        }

    def _create_parent(self, said: Operation, again: bool) -> None:
        tags = self._tags | said["tags"] | said.get("timing", {})
        tags |= {OPENING: said["opening"]["token"], "tuner.changed_code": said["opening"]["changed_code"]}
        where = f"tags.`tuner.job` = '{tags['tuner.job']}'"
        left = store.search(self._client, [self._experiment], where, most=1) if again else iter(())
        first = {name: tags[name] for name in _FIRST if name in tags}
        run = next(left, None) or self._client.create_run(self._experiment, tags=first, run_name=said["name"])
        self._parent = run.info.run_id
        self._files.know(run)
        self._writes.add(self._parent, "the job", Change(params=said["params"], tags=tags))
        for file, text in said["texts"].items():
            self._client.log_text(self._parent, text, file)

    def _reopened(self, parent: str, opening: Mapping[str, Any], aside: list[int]) -> dict[int, dict[str, Any]] | None:
        """The runs that the job has already; None where its own is gone."""
        run = store.run_of_job(self._client, self._experiment, parent, opening["job"]) if parent else None
        parent = run.info.run_id if run is not None else ""
        found = store.runs_below(self._client, self._experiment, parent) if parent else None
        if run is None or found is None:
            return None
        check(run, found, opening)
        self._parent = parent
        self._client.update_run(parent, status="RUNNING")
        here = {
            OPENING: opening["token"],
            "tuner.folder": opening["folder"],  # it may have been moved
            "tuner.changed_code": opening["changed_code"],
        }
        for key, value in here.items():
            if value and run.data.tags.get(key) != value:
                self._client.set_tag(parent, key, value)
        self._files.know(run)
        self._writes.know(run)
        self._forget(run, "tuner.ended_early", *FORGOTTEN)
        trials = {}
        for run in found:
            number = int(run.data.tags["tuner.trial"])
            if number >= opening["begun"]:
                self._set_aside(run)
                aside.append(number)
                continue
            self._runs[number] = run.info.run_id
            self._files.know(run)
            self._writes.know(run)
            self._forget(run, "pareto")
            is_ended = is_over(run) and number not in opening["going_on"]
            if is_ended:
                self._ended.add(number)
                self._ended_before.add(number)
            else:
                self._forget(run, "tuner.status", "tuner.reason", "tuner.seconds")
            steps = [] if is_ended else sorted(store.steps(self._client, run))
            trials[number] = {"ended": is_ended, "steps": steps}
        return trials

    def _set_aside(self, run: Any) -> None:
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
        """Write what happened to a trial, in as few calls as it takes.

        Args:
            trial: Its number.
            operations: ``start``, ``again``, ``metrics``, ``tags``, ``end``, ``drop``, in the order of time.
            again: Whether some of it may be there already, after an attempt that was cut off.
        """
        metrics: list[Any] = []
        names: set[str] = set()
        params: dict[str, Any] = {}
        tags: dict[str, str] = {}
        ended: tuple[str, float] | None = None
        for said in operations:
            match said["do"]:
                case "start":
                    self._start(trial, said, again)
                    params |= said["params"]
                    names.update(said["tags"])
                case "again":
                    self._client.update_run(self._runs[trial], "RUNNING")
                case "metrics":
                    metrics += entities.metrics(said["values"], said["time"], said["step"])
                    names.update(said["values"])
                case "tags":
                    tags |= said["tags"]
                case "end":
                    metrics += entities.metrics(said["metrics"], said["time"], said["step"])
                    names.update(said["metrics"])
                    tags |= said["tags"]
                    ended = said["status"], said["time"]
        run = self._runs[trial]
        for said in operations:
            if said["do"] == "end" and said.get("inside"):
                self._adopt(trial, said["status"], said["time"])
        # What has ended is whole: where there is more than rows to write, its end comes behind that.
        files = ("data", "texts", "checkpoint", "output")
        is_rows = not any(said.get(kind) for said in operations for kind in files)
        self._writes.add(run, f"trial {trial}", Change(metrics, params, tags, ended if is_rows else None), names)
        for said in operations:
            if said["do"] == "start" and said["data"]:
                self._files.datasets(run, said["data"], entities.SEEN)
            elif said["do"] == "end":
                if not is_rows:
                    self._end(run, said)
                self._ended.add(trial)
            elif said["do"] == "drop" and trial in self._ended and self._has_checkpoint(trial):
                delete_checkpoints(said["folder"])

    def _has_checkpoint(self, trial: int) -> bool:
        """Whether a trial's checkpoint is an artifact still: a folder of artifacts may have been deleted meanwhile."""
        if trial not in self._ended_before:
            return True
        return bool(self._client.list_artifacts(self._runs[trial], store.CHECKPOINT))

    def _adopt(self, trial: int, status: str, when: float) -> None:
        key = key_of(self._parent, trial)
        store.adopt(self._client, self._experiment, key, self._runs[trial], status, when)

    def _start(self, trial: int, said: Operation, again: bool) -> None:
        if again and trial not in self._runs:
            found = store.runs_below(self._client, self._experiment, self._parent) or []
            self._runs |= {int(run.data.tags["tuner.trial"]): run.info.run_id for run in found}
            for run in found:
                self._files.know(run)
        if trial not in self._runs:
            tags = self._tags | {"mlflow.parentRunId": self._parent} | said["tags"]
            begun = self._writes.begin(self._experiment, said["name"], said["time"], tags)
            self._runs[trial] = begun.run
            self._files.places[begun.run] = begun.artifacts

    def _end(self, run: str, said: Operation) -> None:
        """A trial's end. Its run ends also where its files cannot be kept."""
        try:
            for file, text in said["texts"].items():
                self._client.log_text(run, text, file)
            if said.get("output"):
                self._files.output(run, said["output"])
            if said["checkpoint"]:
                # What was let go may be deleted already: an earlier run of the job has seen to it.
                with contextlib.suppress(FileNotFoundError) if said.get("dropped") else contextlib.nullcontext():
                    self._files.checkpoint(run, said["checkpoint"])
        finally:
            self._writes.add(run, "a trial", Change(ended=(said["status"], said["time"])))

    def test(self, said: Operation) -> None:
        """What the winner came to on the test set, and which set that is.

        Args:
            said: As for `close`.
        """
        if said["test"]:
            run, measured = self._runs[said["winner"]], said["test"]
            metrics = entities.metrics(measured, said["time"], said["winner_epoch"])
            self._writes.add(run, f"trial {said['winner']}", Change(metrics), measured)
            if said.get("test_data"):  # a journal of an older version has none
                self._files.datasets(run, said["test_data"], ["test"])

    def register(self, said: Operation) -> None:
        """Register the winner, where that is asked for: behind `test`, whose metrics are linked to the model.

        Args:
            said: As for `close`; ``model`` as `tuner.tracking.registry.register` takes it.
        """
        if said["winner"] is None or not said["model"]:
            return
        from tuner.tracking import registry  # torch: seconds

        with as_folder(said["model"]["checkpoint"]) as folder:
            told = dict(said["model"]) | {"checkpoint": folder}
            self.model = registry.register(self._client, self._uri, self._runs[said["winner"]], told)

    def close(self, said: Operation) -> None:
        """Write the end of the job. Its own run ends also where some of that cannot be written.

        Args:
            said: As `tuner.tracking.record.messages.end_of` has it: ``status``, ``metrics``, ``tags``, ``time`` of the
                job's own run; ``winner``, its ``winner_epoch``, ``test`` metrics and ``test_data``; ``front``;
                ``artifacts``: a folder; ``journal``: a file.
        """
        tags = dict(said["tags"])
        try:
            if said["winner"] is not None:
                tags["tuner.winner_run"] = self._runs[said["winner"]]
                tags |= {"tuner.model": self.model} if self.model else {}
            when = store.time_behind(self._client, self._parent, said["metrics"], float(said["time"]))
            metrics = entities.metrics(said["metrics"], when, 0)
            self._writes.add(self._parent, "the job", Change(metrics, tags=tags), said["metrics"])
            for number in said["front"]:
                self._client.set_tag(self._runs[number], "pareto", "true")
            if said["artifacts"] and Path(said["artifacts"]).is_dir():
                self._files.upload(self._parent, Path(said["artifacts"]))
            if said["journal"]:
                with as_file(said["journal"]) as journal:
                    self._files.upload(self._parent, journal)
        finally:
            self._writes.add(self._parent, "the job", Change(ended=(said["status"], said["time"])))

    def abandon(self, when: float, reason: str) -> None:
        """End what still runs: whoever drove the job is gone."""
        gone = {"tuner.status": "interrupted", "tuner.reason": reason}
        for run in store.runs_below(self._client, self._experiment, self._parent) or []:
            if run.info.status == "RUNNING":
                self._adopt(int(run.data.tags["tuner.trial"]), "KILLED", when)
                self._writes.add(run.info.run_id, "a trial", Change(tags=gone, ended=("KILLED", when)))
        tags = {"tuner.status": "interrupted", "tuner.ended_early": reason}
        self._writes.add(self._parent, "the job", Change(tags=tags, ended=("KILLED", when)))
