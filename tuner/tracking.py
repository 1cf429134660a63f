"""The record: what is written to MLflow of a job and its trials, by the driver alone."""

import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuner import checkpoint, store
from tuner.any_trial import AnyTrial
from tuner.errors import Problem, UserError
from tuner.journal import Past
from tuner.preflight import MLFLOW_DEFAULT, masked
from tuner.spec import ExperimentSpec
from tuner.trials import Listener, Trial, label

_LINGER = 0.5  # seconds that reports wait for others to travel with
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # MLflow's limits for one batch

_MLFLOW_STATUS = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}
_ENDED = ("completed", "pruned", "failed", "diverged")


@dataclass(frozen=True)
class Links:
    """How to see what was recorded.

    Args:
        experiment_id: MLflow's id of the experiment.
        parent_run_id: MLflow's id of the job's own run.
        command: What opens the UI; empty where a server shows it already.
        url: The page of the experiment's runs.
    """

    experiment_id: str
    parent_run_id: str
    command: str
    url: str


class Recorder(Listener):
    """Writes one job to MLflow: a parent run for the job, a nested run for each trial.

    It is a `Listener`: what it is told goes into a queue, and a thread of its own sends it in batches.
    """

    def __init__(self, spec: ExperimentSpec, uri: str) -> None:
        self._spec = spec
        self._uri = uri
        self._queue: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._runs: dict[int, str] = {}
        self._written: set[int] = set()
        """Trials whose runs an earlier run of the job has ended."""
        self._steps: dict[int, set[int]] = {}
        """Of the others, the epochs that it has written: MLflow would keep both where one is written again."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self.failure: Exception | None = None
        """Why the record is not whole; None while it is."""

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
        client = self._connect()
        from mlflow.exceptions import MlflowException

        try:
            experiment = client.get_experiment_by_name(self._spec.name)
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                hint = f"mlflow experiments restore --experiment-id {experiment.experiment_id}, or choose another name"
                raise UserError(Problem(f"{self._spec.name!r} was deleted in MLflow", "name", masked(self._uri), hint))
            self._experiment = experiment.experiment_id if experiment else client.create_experiment(self._spec.name)
            self._common_tags(source if source.is_dir() else source.parent)
            if not (past and self._reopened(past.head.get("parent_run", ""))):
                self._open_parent(job, folder, trials)
        except MlflowException as error:
            why = masked(str(error).splitlines()[0])
            raise UserError(Problem(f"MLflow refuses the record: {why}", "tracking.uri", masked(self._uri))) from None
        self._thread.start()
        for trial in past.trials if past else ():
            self._tell_again(trial)
        return self._links()

    def _open_parent(self, job: str, folder: str, trials: int) -> None:
        spec, client = self._spec, self._client
        searched = {f"tuner.space.{key}": json.dumps(value) for key, value in _space(spec).items()}
        tags = self._tags | searched | {"tuner.role": "parent", "tuner.job": job, "tuner.folder": folder}
        tags |= {"tuner.sampler": spec.explain()} if spec.explain() else {}
        run = client.create_run(self._experiment, tags=tags, run_name=f"{spec.name} {job}")
        self._parent = run.info.run_id
        params = {
            "objective": ", ".join(f"{objective.mode} {objective.metric}" for objective in spec.objectives),
            "trials": trials,
            **{f"{part}.{key}": value for part in ("search", "scheduler") for key, value in _said(spec, part).items()},
        }
        if spec.constraints:
            params["constraints"] = "; ".join(spec.constraints)
        client.log_batch(self._parent, params=store.params(params))
        client.log_text(self._parent, masked(spec.to_yaml()), "experiment.yaml")

    def _reopened(self, parent: str) -> bool:
        """Whether the job's parent run is there; it runs again, and the runs below it are known."""
        found = store.runs_below(self._client, self._experiment, parent) if parent else None
        if found is None:
            return False
        self._parent = parent
        self._client.update_run(parent, status="RUNNING")
        self._forget(self._client.get_run(parent), "tuner.ended_early")
        for run in found:
            self._forget(run, "pareto")
            number = int(run.data.tags["tuner.trial"])
            self._runs[number] = run.info.run_id
            if run.info.end_time is not None and run.data.tags.get("tuner.status") in _ENDED:
                self._written.add(number)
            else:
                self._forget(run, "tuner.status", "tuner.reason")
                self._steps[number] = store.steps(self._client, run)
        return True

    def _forget(self, run: Any, *tags: str) -> None:
        """Take tags from a run that were true when an earlier run of the job ended."""
        for tag in tags:
            if tag in run.data.tags:
                self._client.delete_tag(run.info.run_id, tag)

    def _tell_again(self, trial: Trial) -> None:
        """What an earlier run of the job did not live to write of a trial. What is there already stays as it is."""
        if trial.number in self._written:
            return
        if trial.number not in self._runs:
            first = trial.assignment_at(0)
            config = self._spec.trial_config(first).model_copy(update={"seed": trial.config.seed})
            self._start(trial, config, label(first))
        for report, when in trial.reports:
            self._report(trial, report, when)
        if trial.ended is not None:
            self._queue.put({"end": trial, "time": trial.ended})

    def trial_started(self, trial: Trial) -> None:
        """Queue the trial's run: its parameters, its data, its place below the parent."""
        if trial.number not in self._runs:
            self._start(trial, trial.config, trial.label)
        elif trial.resumed:
            self._queue.put({"again": trial.number})

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Queue an epoch's metrics, at its step; of a population also the searched values that it was trained with."""
        self._report(trial, report, trial.updated)

    def trial_ended(self, trial: Trial) -> None:
        """Queue the trial's end: its status, its best report, its checkpoint or its traceback."""
        self._queue.put({"end": trial, "time": time.time()})

    def job_ended(
        self,
        status: str,
        summary: dict[str, Any],
        artifacts: Path | None = None,
        winner: Trial | None = None,
        front: Sequence[Trial] = (),
    ) -> None:
        """Queue the end of the job: `summary` on the parent run, the files below `artifacts` beside it.

        Each trial of the Pareto `front` is tagged ``pareto``.
        """
        end = {"job": status, "summary": summary, "artifacts": artifacts, "winner": winner, "time": time.time()}
        self._queue.put(end | {"front": [trial.number for trial in front]})

    def winner_tested(self, trial: Trial, metrics: dict[str, float]) -> None:
        """Queue the winner's test metrics, for its own run."""
        self._queue.put({"report": trial.number, "metrics": metrics, "step": trial.best_epoch, "time": time.time()})

    def close(self) -> None:
        """Wait until everything is written."""
        self._closing.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _start(self, trial: Trial, config: AnyTrial, name: str) -> None:
        self._runs[trial.number] = ""
        self._queue.put({"start": trial, "config": config, "label": name, "time": trial.started or time.time()})

    def _report(self, trial: Trial, report: dict[str, Any], when: float) -> None:
        epoch = report["epoch"]
        if epoch in self._steps.get(trial.number, ()):
            return
        numbers = _numbers(report)
        if self._spec.scheduler.mutates:
            numbers |= _numbers(trial.assignment_at(epoch))
        self._queue.put({"report": trial.number, "metrics": numbers, "step": epoch, "time": when})

    def _connect(self) -> Any:
        self._client = store.connect(self._uri)
        return self._client

    def _links(self) -> Links:
        path = f"/#/experiments/{self._experiment}/runs?workflowType=machine_learning"
        objective = quote(f"metrics.`best_{self._spec.objective.metric}`", safe="")
        path += f"&orderByKey={objective}&orderByAsc={'true' if self._spec.objective.mode == 'min' else 'false'}"
        if self._uri.startswith("http"):
            return Links(self._experiment, self._parent, "", masked(self._uri).rstrip("/") + path)
        default = self._uri == MLFLOW_DEFAULT
        command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {masked(self._uri)}"
        return Links(self._experiment, self._parent, command, f"http://127.0.0.1:5000{path}")

    def _common_tags(self, folder: Path) -> None:
        from mlflow.tracking.context.registry import resolve_tags
        from mlflow.utils.git_utils import get_git_commit

        tags: dict[str, str] = resolve_tags()
        # The experiment's own repository counts, not the one that this package was installed from.
        tags.pop("mlflow.source.git.commit", None)
        commit = get_git_commit(str(folder))
        if commit:
            tags["mlflow.source.git.commit"] = commit
        self._tags = tags | {"tuner.host": socket.gethostname()}

    # What follows runs on the thread.

    def _write(self) -> None:
        open_ended = True
        while open_ended:
            batch = [self._queue.get()]
            self._closing.wait(_LINGER)
            while not self._queue.empty():
                batch.append(self._queue.get())
            open_ended = None not in batch
            self._send([item for item in batch if item is not None])

    def _attempt(self, write: Callable[..., None], *arguments: Any) -> None:
        """One thing that cannot be written costs no other: training and the record go on, and the job's end says so."""
        try:
            write(*arguments)
        except Exception as error:
            self.failure = error
            logging.getLogger(__name__).debug("the record is not whole", exc_info=True)

    def _send(self, items: Iterable[Mapping[str, Any]]) -> None:
        metrics: dict[int, list[Any]] = {}
        for item in items:
            if "start" in item:
                self._attempt(self._start_run, item)
            elif "again" in item:
                self._attempt(self._client.update_run, self._runs[item["again"]], "RUNNING")
            elif "report" in item:
                pending = metrics.setdefault(item["report"], [])
                pending += store.metrics(item["metrics"], item["time"], item["step"])
            elif "end" in item:
                trial = item["end"]
                self._attempt(self._send_metrics, trial.number, metrics.pop(trial.number, []))
                self._attempt(self._end_run, trial, item["time"])
            else:
                self._attempt(self._end_job, item)
        for number, pending in metrics.items():
            self._attempt(self._send_metrics, number, pending)

    def _start_run(self, item: Mapping[str, Any]) -> None:
        trial, config = item["start"], item["config"]
        name = f"{trial.number:03d} {item['label']}".strip()
        tags = self._tags | {
            "mlflow.parentRunId": self._parent,
            "tuner.role": "trial",
            "tuner.trial": str(trial.number),
            "tuner.seed": str(config.seed),
        }
        run = self._client.create_run(self._experiment, start_time=int(item["time"] * 1000), tags=tags, run_name=name)
        self._runs[trial.number] = run.info.run_id
        params = store.params(store.flattened(config.model_dump(exclude_none=True)))
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(run.info.run_id, params=params[start : start + _MOST_PARAMS])
        data = config.describe_data()
        if data is not None:
            self._client.log_inputs(run.info.run_id, datasets=store.dataset_inputs(data))

    def _send_metrics(self, number: int, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._runs[number], metrics=metrics[start : start + _MOST_METRICS])

    def _end_run(self, trial: Trial, when: float) -> None:
        run = self._runs[trial.number]
        metrics = []
        if trial.best is not None:
            values = {f"best_{o.metric}": o.of(trial.best_report) for o in self._spec.objectives}
            best = {name: value for name, value in values.items() if value is not None}
            metrics = store.metrics(best | {"best_epoch": float(trial.best_epoch or 0)}, when, trial.epoch)
        tags = {"tuner.status": trial.status, "tuner.reason": trial.reason}
        tags |= {f"tuner.{name}": str(trial.best_report.get(name, "")) for name in ("device", "precision")}
        tags |= {"tuner.missed": "; ".join(name for name, missed in trial.violations.items() if missed > 0)}
        tags |= {"tuner.mutations": str(len(trial.mutations) or "")}
        self._client.log_batch(run, metrics=metrics, tags=store.tags(tags))
        if trial.traceback:
            self._client.log_text(run, trial.traceback, "traceback.txt")
        if trial.mutations:
            history = [asdict(mutation) for mutation in trial.mutations]
            self._client.log_text(run, json.dumps(history, indent=1), "mutations.json")
        if trial.checkpoint:
            _log_folder(self._client, run, trial.checkpoint)
        self._client.set_terminated(run, _MLFLOW_STATUS[trial.status], end_time=int(when * 1000))

    def _end_job(self, item: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in item["summary"].items() if isinstance(value, int | float)}
        words = {f"tuner.{name}": str(value) for name, value in item["summary"].items() if name not in numbers}
        if item["winner"]:
            words["tuner.winner_run"] = self._runs[item["winner"].number]
        self._client.log_batch(self._parent, metrics=store.metrics(numbers, item["time"], 0), tags=store.tags(words))
        for number in item["front"]:
            self._client.set_tag(self._runs[number], "pareto", "true")
        if item["artifacts"]:
            self._client.log_artifacts(self._parent, str(item["artifacts"]))
        self._client.set_terminated(self._parent, item["job"], end_time=int(item["time"] * 1000))


def _space(spec: ExperimentSpec) -> dict[str, Any]:
    return {key: distribution.model_dump(mode="json", exclude_none=True) for key, distribution in spec.space.items()}


def _said(spec: ExperimentSpec, part: str) -> dict[str, Any]:
    """What a part of an experiment says, but for what has a place of its own."""
    return getattr(spec, part).model_dump(exclude={"initial", "trials"}, exclude_none=True)  # type: ignore[no-any-return]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if type(value) in (int, float) and name != "epoch"}


def _log_folder(client: Any, run: str, source: str) -> None:
    """A checkpoint, from wherever it lies, as an artifact."""
    from ray.tune import Checkpoint

    with Checkpoint(source).as_directory() as folder:
        client.log_artifacts(run, folder, checkpoint.ARTIFACT)
