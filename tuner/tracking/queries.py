"""Queries of recorded jobs and trials in MLflow: list jobs, find one by a name, read its trials.

It imports no torch, because commands such as ``tuner list`` must start fast.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from tuner.errors import Problem, UserError
from tuner.formatting import listed
from tuner.tracking import store
from tuner.tracking.names import originals, recorded
from tuner.trials.elapsed import paused_of, seconds_of
from tuner.trials.status import SCORED

T = TypeVar("T")

_RUN_ID = r"[0-9a-f]{32}"
"""Pattern of the id of a run of MLflow."""


@dataclass(frozen=True)
class RecordedJob:
    """A job, read from its run in MLflow.

    Args:
        experiment: The experiment's name.
        run: The job's run, an entity of MLflow.
    """

    experiment: str
    run: Any

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of the job's run."""
        return self.run.data.tags  # type: ignore[no-any-return]

    @property
    def id(self) -> str:
        """The job's id."""
        return self.tags.get("tuner.job", "")

    @property
    def status(self) -> str:
        """The job's final status, or ``running``."""
        if self.run.info.status == "RUNNING":  # a job that was resumed has the tag of its earlier end
            return "running"
        return self.tags.get("tuner.status") or str(self.run.info.status).lower()

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """Pairs of max or min, and a metric."""
        parts = re.split(r", (?=(?:max|min) )", self.run.data.params.get("objective", ""))
        return [(mode, metric) for mode, _, metric in (part.partition(" ") for part in parts) if metric]

    @property
    def began(self) -> float:
        """The job's start time, in seconds since 1970."""
        return float(self.run.info.start_time / 1000)

    @property
    def seconds(self) -> float:
        """The job's duration in seconds, until now if it runs, as `tuner.trials.elapsed` defines it."""
        end = self.run.info.end_time
        return seconds_of(self.tags, self.began, end / 1000 if end and self.status != "running" else time.time())

    @property
    def paused(self) -> float:
        """Seconds in which the job did not run before it was resumed or extended."""
        return paused_of(self.tags)

    @property
    def winner(self) -> str:
        """Id of the winner's run; empty if there is no winner, or none yet."""
        return self.tags.get("tuner.winner_run", "")

    @property
    def test(self) -> dict[str, float]:
        """The winner's metrics on the test set."""
        return {name: value for name, value in metrics_of(self.run).items() if name.startswith("test_")}

    def best(self, metric: str) -> float | None:
        """Return a metric at the winner's best report; None if it is missing or not finite."""
        return store.finite(self.run.data.metrics.get(recorded(f"best_{metric}")))


@dataclass(frozen=True)
class RecordedTrial:
    """A trial, read from its run in MLflow.

    Args:
        run: The trial's run, an entity of MLflow.
        job: Id of the job's run.
    """

    run: Any
    job: str

    @property
    def number(self) -> int:
        """The trial's number within its job, in the order of their starts, from 0."""
        return int(self.run.data.tags["tuner.trial"])

    @property
    def status(self) -> str:
        """The trial's final status, or ``running``."""
        return self.run.data.tags.get("tuner.status") or str(self.run.info.status).lower()

    def score(self, metric: str) -> float | None:
        """Return a metric at the trial's best report; None if it is missing or not finite, or the trial still runs."""
        return store.finite(self.run.data.metrics.get(recorded(f"best_{metric}")))

    @property
    def best_epoch(self) -> int:
        """The epoch of the trial's best report; 0 if there is none."""
        return int(self.run.data.metrics.get("best_epoch", 0))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that the trial trained, until now if it runs."""
        if "tuner.seconds" in self.run.data.tags:  # set if the trial was resumed: without the time in between
            return float(self.run.data.tags["tuner.seconds"])
        return float((self.run.info.end_time or time.time() * 1000) - self.run.info.start_time) / 1000

    @property
    def fixed(self) -> dict[str, str]:
        """The values of the keys that were not searched."""
        tags = _with_original_names(self.run, self.run.data.tags).items()
        return {key.removeprefix(store.FIXED): value for key, value in tags if key.startswith(store.FIXED)}

    @property
    def datasets(self) -> set[str]:
        """Name and digest of each dataset that the trial trained on or was validated on, without the test set."""
        inputs = self.run.inputs.dataset_inputs if self.run.inputs else ()
        testing = (store.CONTEXT, store.TESTING)
        used = [each for each in inputs if testing not in {(tag.key, tag.value) for tag in each.tags}]
        return {f"{each.dataset.name} {each.dataset.digest}" for each in used}


def metrics_of(run: Any) -> dict[str, float]:
    """Return the latest value of each metric of a run by its original name, with infinities restored."""
    values = _with_original_names(run, run.data.metrics)
    return {
        name: math.copysign(math.inf, value) if abs(value) >= store.INFINITY else value
        for name, value in values.items()
    }


def _with_original_names(run: Any, values: Mapping[str, T]) -> dict[str, T]:
    """Replace names that were changed for MLflow by the original ones."""
    names = originals(run.data.tags)
    return {names.get(name, name): value for name, value in values.items()}


def jobs(client: Any, experiments: Mapping[str, str]) -> Iterator[RecordedJob]:
    """Yield the jobs of experiments, newest first.

    Args:
        client: A client of the store.
        experiments: The experiments' names by their ids.
    """
    if experiments:
        for run in store.search(client, list(experiments), "tags.`tuner.role` = 'parent'"):
            yield RecordedJob(experiments[run.info.experiment_id], run)


def experiment_called(client: Any, name: str) -> dict[str, str]:
    """Return a dict from the id of the experiment of this name to its name.

    Raises:
        UserError: There is no such experiment.
    """
    names = store.experiments(client)
    found = {experiment_id: each for experiment_id, each in names.items() if each == name}
    if not found:
        raise UserError(_unknown(client, name, names))
    return found


def find_job(client: Any, name: str) -> RecordedJob:
    """Find a job by an experiment's name (its last job), a job's id, or the id of a job's run.

    Raises:
        UserError: No job matches, or several do.
    """
    found = find(client, name)
    if isinstance(found, RecordedJob):
        return found
    hint = f"its job is {found.job}"
    raise UserError(Problem(f"{name} is the run of a trial, number {found.number}, and no job", hint=hint))


def find(client: Any, name: str) -> RecordedJob | RecordedTrial:
    """Find a job as `find_job` does, or a trial by the id of its run.

    Raises:
        UserError: Nothing matches, or several jobs do.
    """
    names = store.experiments(client)
    by_run = store.run_of(client, name) if re.fullmatch(_RUN_ID, name) else None
    if by_run is not None:
        return _from_run(by_run, names)
    matching = {experiment_id: each for experiment_id, each in names.items() if each == name}
    found = [next(jobs(client, matching), None)]
    if names and not re.search(r"['`\"]", name):  # a job's id has no quotes, and a filter cannot escape them
        runs = store.search(client, list(names), f"tags.`tuner.job` = '{name}' and tags.`tuner.role` = 'parent'")
        found += [RecordedJob(names[run.info.experiment_id], run) for run in runs]
    by_id = {job.run.info.run_id: job for job in found if job is not None}
    if len(by_id) > 1:
        listed = ", ".join(f"{run} (job {job.id} of {job.experiment})" for run, job in by_id.items())
        raise UserError(Problem(f"{name!r} means {len(by_id)} jobs", hint=f"give the id of the run: {listed}"))
    if by_id:
        return next(iter(by_id.values()))
    if matching:
        hint = "it is no experiment of tuner's, or its jobs were deleted; tuner list shows which there are"
        raise UserError(Problem(f"the experiment {name!r} has no job", hint=hint))
    raise UserError(_unknown(client, name, names))


def _from_run(run: Any, names: Mapping[str, str]) -> RecordedJob | RecordedTrial:
    """Return the job or the trial of a run; `names` are the names of the existing experiments by their ids."""
    run_id, tags = run.info.run_id, run.data.tags
    if run.info.experiment_id not in names:  # before its run: MLflow deletes and restores both together
        hint = f"mlflow experiments restore --experiment-id {run.info.experiment_id}"
        raise UserError(Problem(f"the experiment of the run {run_id} was deleted", hint=hint))
    if run.info.lifecycle_stage == "deleted":
        raise UserError(Problem(f"the run {run_id} was deleted", hint=f"mlflow runs restore --run-id {run_id}"))
    if tags.get("tuner.role") == "parent":
        return RecordedJob(names[run.info.experiment_id], run)
    if tags.get("tuner.role") == "trial":
        return RecordedTrial(run, tags.get("mlflow.parentRunId", ""))
    raise UserError(Problem(f"the run {run_id} is neither a job nor a trial of tuner's", hint="tuner list shows jobs"))


def _unknown(client: Any, name: str, names: Mapping[str, str]) -> Problem:
    """Return the error for a name that matches nothing, with similar names as a hint."""
    deleted = client.get_experiment_by_name(name) if name else None
    if deleted is not None and deleted.lifecycle_stage == "deleted":
        hint = f"mlflow experiments restore --experiment-id {deleted.experiment_id}"
        return Problem(f"the experiment {name!r} was deleted in MLflow", hint=hint)
    ids = [job.id for job, _ in zip(jobs(client, names), range(100), strict=False)]
    near = get_close_matches(name, [*names.values(), *ids], n=3)
    hint = f"did you mean {listed(near, 'or')}? " if near else ""
    return Problem(
        f"there is no experiment, no job and no run {name!r} in the store", hint=f"{hint}tuner list shows jobs"
    )


def trials_of(client: Any, job: RecordedJob) -> list[RecordedTrial]:
    """Return a job's trials, sorted by number."""
    parent, experiment = job.run.info.run_id, job.run.info.experiment_id
    runs = store.search(client, [experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return sorted(
        (RecordedTrial(run, parent) for run in runs if "tuner.trial" in run.data.tags), key=lambda t: t.number
    )


def best_of(job: RecordedJob, trials: Sequence[RecordedTrial]) -> RecordedTrial | None:
    """Return a job's winner, or the best of the ended trials if the job still runs; None if there is none."""
    if job.winner and job.status != "running":
        return next((trial for trial in trials if trial.run.info.run_id == job.winner), None)
    if not job.objectives:
        return None
    mode, metric = job.objectives[0]
    eligible = [trial for trial in trials if trial.status in SCORED and "tuner.missed" not in trial.run.data.tags]
    scored = [(score, trial) for trial in eligible if (score := trial.score(metric)) is not None]
    sign = -1 if mode == "max" else 1
    return min(scored, key=lambda pair: sign * pair[0])[1] if scored else None


def configuration(client: Any, trial: RecordedTrial) -> dict[str, str]:
    """Return the values of the searched keys at a trial's best report; population based training changes them."""
    values = _with_original_names(trial.run, trial.run.data.params)
    if "tuner.mutations" not in trial.run.data.tags:
        return values
    mutations = json.loads(store.read_text(client, trial.run.info.run_id, "mutations.json") or "[]")
    for mutation in mutations:
        if mutation["epoch"] < trial.best_epoch:
            values |= {key: str(value) for key, value in mutation["after"].items()}
    return values


def versions_of(client: Any, run_id: str) -> list[str]:
    """Return the URIs under which the model of a run is registered now, with their aliases."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    versions = {(each.name, str(each.version)) for each in found}
    uris = []
    for name, version in sorted(versions):
        aliases = client.get_registered_model(name).aliases
        own = sorted(alias for alias, number in aliases.items() if str(number) == version)
        uris.append(f"models:/{name}/{version}" + (f" ({', '.join(f'@{alias}' for alias in own)})" if own else ""))
    return uris
