"""The record: what MLflow is told of a job and its trials. `tuner.tracking.record.writer` writes it."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tuner.errors import Problem, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import above
from tuner.storage.uris import MLFLOW_DEFAULT, absolute, masked
from tuner.tracking.names import recorded, renamed
from tuner.tracking.record import messages
from tuner.tracking.record.writer_client import WriterClient
from tuner.tracking.store import FIXED, SPACE, VIEW
from tuner.tracking.user_mlflow import UserMlflow
from tuner.train.trial_base import AnyTrial
from tuner.trials.callback import TrialCallback
from tuner.trials.elapsed import Elapsed
from tuner.trials.resume import ResumedJob
from tuner.trials.status import ENDED
from tuner.trials.trial import Trial

_NAMED = ("values", "metrics", "params", "tags")
"""Parts of what the writer is told that have names of the user's."""

_PREFIXES = ("best_", FIXED, SPACE)
"""What is put before names of the user's."""

PATIENCE = 20.0
"""Seconds that the end of a job waits for a store that is away."""


@dataclass(frozen=True)
class Links:
    """How to see what was recorded.

    Args:
        experiment_id: MLflow's id of the experiment.
        parent_run_id: MLflow's id of the job's own run.
        command: What opens the UI; empty where a server shows it already.
        url: The page of the job's trials: best first, what was searched as columns.
    """

    experiment_id: str
    parent_run_id: str
    command: str
    url: str


class Recorder(TrialCallback):
    """Tells the writer of one job: a parent run for the job, a nested run for each trial.

    It is a `TrialCallback`: what it is told goes to the writer's process by way of a queue.
    """

    def __init__(self, spec: ExperimentSpec, uri: str, lock: int | None = None) -> None:
        """Nothing is written yet.

        Args:
            spec: The experiment.
            uri: MLflow's tracking URI.
            lock: A file descriptor that the writer keeps open as long as it lives.
        """
        self._lock = lock
        # As it is now: while the record is opened on one thread, Ray starts on another and sets variables of its own,
        # and a process that is begun with an environment in flux fails with "bad address".
        self._environment = dict(os.environ)
        self._writer: WriterClient | None = None
        self._spec = spec
        self._uri = uri
        self._folder = ""
        self._started: set[int] = set()
        """Trials that have runs, or will have."""
        self._written: set[int] = set()
        """Those whose runs an earlier run of the job has ended."""
        self._steps: dict[int, set[int]] = {}
        """Of the others, the epochs that it has written: MLflow would keep both where one is written again."""
        self._told: set[str] = set()
        """Names that are recorded under others, of which the user knows."""
        self._warn: Callable[[str], object] = lambda message: None
        self.failure: Exception | None = None
        """Why the record is not whole; None while it is."""
        self.model = ""
        """The registered winner's address, once that is written; empty where there is none."""

    def open(
        self,
        job: str,
        folder: str,
        source: Path,
        trials: int,
        past: ResumedJob | None = None,
        warn: Callable[[str], object] = lambda message: None,
        elapsed: Elapsed | None = None,
        lacking: Mapping[int, Collection[str]] = MappingProxyType({}),
        unkept: Collection[int] = (),
        only_mends: bool = False,
        token: str = "",
        changed_code: str = "",
        learnt: str = "",
    ) -> Links:
        """Open the experiment and the job's parent run.

        Args:
            job: The job's id.
            folder: Its folder.
            source: The experiment's file, or the folder that it belongs to.
            trials: How many there will be.
            past: An earlier run of this job; its record goes on, and what of it was not written is.
            warn: Told where the store is away, and waited for, and of names that MLflow does not take.
            elapsed: The time of the job until now.
            lacking: Of trials whose runs have ended and are not whole, the metrics that they lack points of.
            unkept: Of these, the trials whose checkpoint is no artifact.
            only_mends: Whether the record is only to be made whole, and nothing is to be taken from it.
            token: Tells this opening of the job from all others; empty for one that only makes its record whole.
            changed_code: Which files of the user's own code are not what they were, in words; empty for none.
            learnt: From which trials of earlier jobs the sampler learns, in words.

        Raises:
            UserError: MLflow refuses.
        """
        self._warn = warn
        self._folder = folder
        self._writer = WriterClient(self._environment, self._lock)
        said = messages.opening(self._spec, job, folder, source, trials, self._environment, elapsed, learnt)
        self._tell_of_names((*said["params"], *said["tags"]))
        known = sorted(past.openings) if past else []
        said["opening"] |= {"store": self.store, "token": token, "known": known, "changed_code": changed_code}
        said["opening"] |= {
            "begun": len(past.trials) if past else 0,
            "going_on": [trial.number for trial in past.trials if trial.status not in ENDED] if past else [],
            "ended": bool(past and past.end),
            "only_mends": only_mends,
        }
        opened = self._writer.open(
            said
            | {
                "uri": self._uri,
                "registers": registers(self._spec),
                "parent": past.head.get("parent_run", "") if past else "",
            },
            lambda why: warn(f"MLflow's store at {masked(self._uri)} has gone away, and is waited for: {why}"),
        )
        if "refused" in opened:
            message, key, hint = opened["refused"]
            self.close()
            raise UserError(Problem(message, key, masked(self._uri), hint))
        if aside := ", ".join(str(number) for number in opened.get("aside", ())):
            warn(
                f"MLflow has runs of the trials {aside}, of which the job's journal does not tell: it is older, as one "
                "from a backup; they keep their numbers as the tag tuner.superseded, and new trials get these numbers"
            )
        for number, there in ((int(number), there) for number, there in opened["trials"].items()):
            self._started.add(number)
            if there["ended"]:
                self._written.add(number)
                if number in lacking:
                    self._mend(past, number, lacking[number], number in unkept)
            else:
                self._steps[number] = set(there["steps"])
        for trial in past.trials if past else ():
            self._tell_again(trial)
        return self._links(opened["experiment"], opened["parent"], opened["view"])

    @property
    def store(self) -> str:
        """MLflow's store, by a URI that is right from everywhere on this machine, and without a password."""
        return masked(absolute(self._uri))

    def _tell_again(self, trial: Trial) -> None:
        """What an earlier run of the job did not live to write of a trial. What is there already stays as it is."""
        if trial.number in self._written:
            return
        for said in messages.history(self._spec, trial, self._folder):
            if said["do"] == "start" and trial.number in self._started:
                continue
            if said["do"] == "metrics" and said["step"] in self._steps.get(trial.number, ()):
                continue
            self._put(said)
        self._started.add(trial.number)

    def _mend(self, past: ResumedJob | None, number: int, metrics: Collection[str], is_unkept: bool) -> None:
        """Write what the run of a trial lacks though it has ended. Its files came before its end, and may be lost."""
        for trial in past.trials if past else ():
            for said in messages.history(self._spec, trial, self._folder) if trial.number == number else ():
                match said["do"]:
                    case "start":
                        self._put({**said, "data": None})
                        self._put({"do": "tags", "trial": number, "tags": said["tags"]})
                    case "metrics":
                        values = {name: value for name, value in said["values"].items() if name in metrics}
                        self._put({**said, "values": values})
                    case "end":
                        best = {name: value for name, value in said["metrics"].items() if name in metrics}
                        self._put({**said, "metrics": best, "texts": {}} | ({} if is_unkept else {"checkpoint": ""}))

    def _tell_of_names(self, names: Iterable[str]) -> None:
        """Say once which names MLflow does not take, and what they are recorded as."""
        new = {}
        for other, name in renamed(names).items():
            plain = next((name.removeprefix(each) for each in _PREFIXES if name.startswith(each)), name)
            if plain not in self._told:
                self._told.add(plain)
                # A searched key is known by its tag first, and looked for among the parameters.
                new[plain] = other if name.startswith(FIXED) or recorded(plain) == plain else recorded(plain)
        if new:
            listed = ", ".join(f"{name!r} is recorded as {other!r}" for name, other in new.items())
            self._warn(f"MLflow does not accept every name: {listed}")

    def trial_started(self, trial: Trial) -> None:
        """Queue the trial's run: its parameters, its data, its place below the parent."""
        if trial.number not in self._started:
            self._start(trial, trial.config, trial.label)
        elif trial.resumed:
            self._put({"do": "again", "trial": trial.number})

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Queue an epoch's metrics, at its step; of a population also the searched values that it was trained with."""
        self._report(trial, report, trial.updated)

    def trial_ended(self, trial: Trial) -> None:
        """Queue the trial's end: its status, its best report, its checkpoint or its traceback."""
        self._end(trial, trial.ended or time.time())

    def give_up(self, trial: Trial) -> None:
        """Queue the deletion of a trial's files: it waits until its checkpoint is an artifact."""
        assert trial.checkpoint is not None
        self._put({"do": "drop", "trial": trial.number, "folder": above(trial.checkpoint)})

    def job_ended(self, end: Mapping[str, Any]) -> None:
        """Queue the end of the job, as `tuner.tracking.record.messages.end_of` has it."""
        self._put({"do": "close", "patience": PATIENCE} | dict(end))

    def user_mlflow(self, links: Links) -> UserMlflow:
        """Where trials log that use MLflow themselves."""
        return UserMlflow.of(self._uri, links.experiment_id, links.parent_run_id)

    def hang_up(self) -> None:
        """Have `open`, on another thread, wait for no store that is away."""
        if self._writer is not None:
            self._writer.hang_up()

    def close(self) -> None:
        """Wait until everything is written. Nothing can be told it afterwards."""
        if self._writer is None:
            return
        answer = self._writer.close()
        self._writer = None
        failures, self.model = answer["failures"], answer.get("model", "")
        if failures:
            more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
            self.failure = RuntimeError(f"{failures[0]}{more}")

    def _put(self, said: Mapping[str, Any]) -> None:
        assert self._writer is not None, "the record is not open"
        self._tell_of_names(name for part in _NAMED for name in said.get(part, ()))
        self._writer.put(said)

    def _start(self, trial: Trial, config: AnyTrial, name: str) -> None:
        self._started.add(trial.number)
        self._put(messages.beginning(self._spec, trial, config, name))

    def _report(self, trial: Trial, report: dict[str, Any], when: float) -> None:
        epoch = report["epoch"]
        if epoch in self._steps.get(trial.number, ()):
            return
        self._put(messages.metrics(self._spec, trial, report, when))

    def _end(self, trial: Trial, when: float) -> None:
        self._put(messages.ending(self._spec, trial, when, self._folder))

    def _links(self, experiment: str, parent: str, view: str) -> Links:
        path = f"/#/experiments/{experiment}/runs?workflowType=machine_learning&{VIEW}={view}"
        if self._uri.startswith("http"):
            return Links(experiment, parent, "", masked(self._uri).rstrip("/") + path)
        default = self._uri == MLFLOW_DEFAULT
        command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {masked(self._uri)}"
        return Links(experiment, parent, command, f"http://127.0.0.1:5000{path}")


def registers(spec: ExperimentSpec) -> bool:
    """Whether the winner is registered: a model of the user's own would need its code wherever it is loaded."""
    return spec.tracking.register_model and not spec.trial.is_function and not spec.trial.targets
