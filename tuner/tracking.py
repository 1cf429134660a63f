"""The record: what MLflow is told of a job and its trials. A process of its own writes it (`tuner.writer`)."""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner import origin
from tuner.address import MLFLOW_DEFAULT, masked
from tuner.any_trial import AnyTrial
from tuner.errors import Problem, UserError
from tuner.past import Past
from tuner.scribe import Scribe
from tuner.spec import ExperimentSpec
from tuner.store import FIXED, VIEW, flattened
from tuner.stored import above
from tuner.trial_config import TrialConfig
from tuner.trials import SYSTEM, Listener, Trial, label

PATIENCE = 20.0
"""Seconds that the end of a job waits for a store that is away."""

_MLFLOW_STATUS = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}


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


class Recorder(Listener):
    """Tells the writer of one job: a parent run for the job, a nested run for each trial.

    It is a `Listener`: what it is told goes to the writer's process by way of a queue.
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
        self._scribe: Scribe | None = None
        self._spec = spec
        self._uri = uri
        self._started: set[int] = set()
        """Trials that have runs, or will have."""
        self._written: set[int] = set()
        """Those whose runs an earlier run of the job has ended."""
        self._steps: dict[int, set[int]] = {}
        """Of the others, the epochs that it has written: MLflow would keep both where one is written again."""
        self.failure: Exception | None = None
        """Why the record is not whole; None while it is."""
        self.model = ""
        """The registered winner's address, once that is written; empty where there is none."""

    def open(self, job: str, folder: str, source: Path, trials: int, past: Past | None = None) -> Links:
        """Open the experiment and the job's parent run.

        Args:
            job: The job's id.
            folder: Its folder.
            source: The experiment's file, or the folder that it belongs to.
            trials: How many there will be.
            past: An earlier run of this job; its record goes on, and what of it was not written is.

        Raises:
            UserError: MLflow refuses.
        """
        self._scribe = Scribe(self._environment, self._lock)
        opened = self._scribe.open(
            {
                "do": "open",
                "uri": self._uri,
                "registers": registers(self._spec),
                "experiment": self._spec.name,
                "parent": past.head.get("parent_run", "") if past else "",
                "common": {
                    "mlflow.user": origin.user(),
                    "mlflow.source.name": str(source),
                    "mlflow.source.type": "LOCAL",
                    **origin.versions(),
                    **origin.commit(source if source.is_dir() else source.parent, self._environment),
                },
                **self._of_parent(job, folder, source, trials),
                "view": {
                    "objectives": [[f"best_{o.metric}", o.mode] for o in self._spec.objectives],
                    "keys": list(self._spec.space),
                },
            }
        )
        if "refused" in opened:
            message, key, hint = opened["refused"]
            self.close()
            raise UserError(Problem(message, key, masked(self._uri), hint))
        for number, there in ((int(number), there) for number, there in opened["trials"].items()):
            self._started.add(number)
            if there["ended"]:
                self._written.add(number)
            else:
                self._steps[number] = set(there["steps"])
        for trial in past.trials if past else ():
            self._tell_again(trial)
        return self._links(opened["experiment"], opened["parent"], opened["view"])

    def _of_parent(self, job: str, folder: str, source: Path, trials: int) -> dict[str, Any]:
        spec = self._spec
        tags = {f"tuner.space.{key}": json.dumps(value) for key, value in _space(spec).items()}
        tags |= {
            "mlflow.note.content": origin.question(source),
            "tuner.host": socket.gethostname(),
            "tuner.role": "parent",
            "tuner.job": job,
            "tuner.folder": folder,
            "tuner.sampler": spec.explain(),
        }
        params = {
            "objective": ", ".join(f"{objective.mode} {objective.metric}" for objective in spec.objectives),
            "trials": trials,
            **{f"{part}.{key}": value for part in ("search", "scheduler") for key, value in _said(spec, part).items()},
        }
        if spec.constraints:
            params["constraints"] = "; ".join(spec.constraints)
        texts = {"experiment.yaml": masked(spec.to_yaml())}
        tags = {name: value for name, value in tags.items() if value}
        return {"name": f"{spec.name} {job}", "tags": tags, "params": _texts(params), "texts": texts}

    def _tell_again(self, trial: Trial) -> None:
        """What an earlier run of the job did not live to write of a trial. What is there already stays as it is."""
        if trial.number in self._written:
            return
        if trial.number not in self._started:
            first = trial.assignment_at(0)
            config = self._spec.trial_config(first).model_copy(update={"seed": trial.config.seed})
            self._start(trial, config, label(first))
        for report, when in trial.reports:
            self._report(trial, report, when)
        if trial.ended is not None:
            self._end(trial, trial.ended)

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
        """Queue the end of the job, as `end_of` has it."""
        self._put({"do": "close", "patience": PATIENCE} | dict(end))

    def close(self) -> None:
        """Wait until everything is written. Nothing can be told it afterwards."""
        if self._scribe is None:
            return
        answer = self._scribe.close()
        self._scribe = None
        failures, self.model = answer["failures"], answer.get("model", "")
        if failures:
            more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
            self.failure = RuntimeError(f"{failures[0]}{more}")

    def _put(self, said: Mapping[str, Any]) -> None:
        assert self._scribe is not None, "the record is not open"
        self._scribe.put(said)

    def _start(self, trial: Trial, config: AnyTrial, name: str) -> None:
        self._started.add(trial.number)
        data = config.describe_data()
        flat = _texts(flattened(config.model_dump(exclude_none=True)))
        searched = {key: value for key, value in flat.items() if self._is_searched(key)}
        fixed = {f"{FIXED}{key}": value for key, value in flat.items() if key not in searched}
        self._put(
            {
                "do": "start",
                "trial": trial.number,
                "name": f"{trial.number:03d} {name}".strip(),
                "time": trial.started or time.time(),
                "tags": fixed
                | {"tuner.role": "trial", "tuner.trial": str(trial.number), "tuner.seed": str(config.seed)},
                "params": searched,
                "data": asdict(data) if data is not None else None,
            }
        )

    def _is_searched(self, key: str) -> bool:
        """Whether a key of a trial is searched, or belongs to a part that is searched as a whole."""
        return any(key == name or key.startswith(f"{name}.") for name in self._spec.space)

    def _report(self, trial: Trial, report: dict[str, Any], when: float) -> None:
        epoch = report["epoch"]
        if epoch in self._steps.get(trial.number, ()):
            return
        numbers = _numbers(report)
        numbers |= {f"system/{name}": value for name, value in report.get(SYSTEM, {}).items()}
        if self._spec.scheduler.mutates:
            numbers |= _numbers(trial.assignment_at(epoch))
        self._put_metrics(trial.number, numbers, epoch, when)

    def _put_metrics(self, trial: int, values: Mapping[str, float], step: int, when: float) -> None:
        self._put({"do": "metrics", "trial": trial, "values": dict(values), "step": step, "time": when})

    def _end(self, trial: Trial, when: float) -> None:
        metrics: dict[str, float] = {}
        if trial.best is not None:
            values = {f"best_{o.metric}": o.of(trial.best_report) for o in self._spec.objectives}
            metrics = {name: value for name, value in values.items() if value is not None}
            metrics["best_epoch"] = float(trial.best_epoch or 0)
        tags = {"tuner.status": trial.status, "tuner.reason": masked(trial.reason)}
        tags |= {f"tuner.{name}": str(trial.best_report.get(name, "")) for name in ("device", "precision")}
        tags |= {"tuner.host": trial.host}
        tags |= {"tuner.missed": "; ".join(name for name, missed in trial.violations.items() if missed > 0)}
        tags |= {"tuner.mutations": str(len(trial.mutations) or ""), "tuner.lost": str(trial.lost or "")}
        tags |= {"tuner.batch_parts": str(trial.parts) if trial.parts > 1 else ""}
        tags |= {"tuner.damaged": "; ".join(f"{path}: {why}" for path, why in trial.damaged.items())}
        texts = {"traceback.txt": masked(trial.traceback)} if trial.traceback else {}
        if trial.mutations:
            texts["mutations.json"] = json.dumps([asdict(mutation) for mutation in trial.mutations], indent=1)
        self._put(
            {
                "do": "end",
                "trial": trial.number,
                "status": _MLFLOW_STATUS[trial.status],
                "metrics": metrics,
                "step": trial.epoch,
                "tags": tags,
                "texts": texts,
                "checkpoint": trial.checkpoint or "",
                "time": when,
            }
        )

    def _links(self, experiment: str, parent: str, view: str) -> Links:
        path = f"/#/experiments/{experiment}/runs?workflowType=machine_learning&{VIEW}={view}"
        if self._uri.startswith("http"):
            return Links(experiment, parent, "", masked(self._uri).rstrip("/") + path)
        default = self._uri == MLFLOW_DEFAULT
        command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {masked(self._uri)}"
        return Links(experiment, parent, command, f"http://127.0.0.1:5000{path}")


def registers(spec: ExperimentSpec) -> bool:
    """Whether the winner is registered: a model of the user's own would need its code wherever it is loaded."""
    return spec.tracking.register_model and isinstance(spec.trial, TrialConfig) and not spec.trial.targets


def end_of(
    status: str,
    summary: Mapping[str, Any],
    artifacts: Path | None = None,
    winner: Trial | None = None,
    front: Sequence[Trial] = (),
    test: Mapping[str, float] | None = None,
    model: Mapping[str, Any] | None = None,
    journal: str = "",
) -> dict[str, Any]:
    """The end of a job as plain values: numbers of the summary as metrics, words as tags.

    Args:
        status: MLflow's, of the job's own run.
        summary: What is told on it.
        artifacts: A folder whose files are kept beside it.
        winner: The best trial.
        front: The trials on the Pareto front, which are tagged ``pareto``.
        test: The winner's metrics on the test set.
        model: What is registered, as `tuner.champion.register` takes it; None for nothing.
        journal: The job's journal, from which ``tuner report`` and the like know the job wherever they are.
    """
    numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    data = winner.config.describe_data() if winner and test else None
    return {
        "status": status,
        "metrics": numbers,
        "tags": {f"tuner.{name}": str(value) for name, value in summary.items() if name not in numbers},
        "winner": winner.number if winner else None,
        "winner_epoch": winner.best_epoch or 0 if winner else 0,
        "test": dict(test or {}),
        "test_data": asdict(data) if data else None,
        "model": model,
        "front": [trial.number for trial in front],
        "artifacts": str(artifacts or ""),
        "journal": journal,
        "time": time.time(),
    }


def _space(spec: ExperimentSpec) -> dict[str, Any]:
    return {key: distribution.model_dump(mode="json", exclude_none=True) for key, distribution in spec.space.items()}


def _said(spec: ExperimentSpec, part: str) -> dict[str, Any]:
    """What a part of an experiment says, but for what has a place of its own."""
    return getattr(spec, part).model_dump(exclude={"initial", "trials"}, exclude_none=True)  # type: ignore[no-any-return]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if type(value) in (int, float) and name != "epoch"}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
