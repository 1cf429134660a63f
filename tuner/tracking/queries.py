"""What MLflow's record tells: which jobs there are, which one a name means, their trials and what these took.

It knows MLflow's entities and plain values only: the commands that list must not wait for torch.
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
from tuner.tracking import store
from tuner.tracking.names import originals, recorded
from tuner.trials.elapsed import paused_of, seconds_of
from tuner.trials.status import SCORED

T = TypeVar("T")

_RUN_ID = r"[0-9a-f]{32}"
"""How a trial ended whose best report counts."""


@dataclass(frozen=True)
class RecordedJob:
    """A job, as its own run tells of it.

    Args:
        experiment: The experiment's name.
        run: The job's run, as MLflow gives it.
    """

    experiment: str
    run: Any

    @property
    def tags(self) -> Mapping[str, str]:
        """Of its run."""
        return self.run.data.tags  # type: ignore[no-any-return]

    @property
    def id(self) -> str:
        """The job's id."""
        return self.tags.get("tuner.job", "")

    @property
    def status(self) -> str:
        """How it ended, in a word, or ``running``."""
        if self.run.info.status == "RUNNING":  # also where an earlier run of it has ended
            return "running"
        return self.tags.get("tuner.status") or str(self.run.info.status).lower()

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """Pairs of max or min, and a metric."""
        parts = re.split(r", (?=(?:max|min) )", self.run.data.params.get("objective", ""))
        return [(mode, metric) for mode, _, metric in (part.partition(" ") for part in parts) if metric]

    @property
    def began(self) -> float:
        """In seconds since 1970."""
        return float(self.run.info.start_time / 1000)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now, as `tuner.trials.elapsed` has it."""
        end = self.run.info.end_time
        return seconds_of(self.tags, self.began, end / 1000 if end and self.status != "running" else time.time())

    @property
    def paused(self) -> float:
        """Seconds between its runs, where it was resumed or extended."""
        return paused_of(self.tags)

    @property
    def winner(self) -> str:
        """Id of the winner's run; empty where there is none, or none yet."""
        return self.tags.get("tuner.winner_run", "")

    @property
    def test(self) -> dict[str, float]:
        """The winner's metrics on the test set."""
        return {name: value for name, value in metrics_of(self.run).items() if name.startswith("test_")}

    def best(self, metric: str) -> float | None:
        """A metric at the winner's best report; None where there is none, or none that is finite."""
        return store.finite(self.run.data.metrics.get(recorded(f"best_{metric}")))


@dataclass(frozen=True)
class RecordedTrial:
    """A trial, as its run tells of it.

    Args:
        run: MLflow's.
        job: The id of the job's own run.
    """

    run: Any
    job: str

    @property
    def number(self) -> int:
        """Its place in the order in which the job's trials were begun, from 0."""
        return int(self.run.data.tags["tuner.trial"])

    @property
    def status(self) -> str:
        """How it ended, in a word, or ``running``."""
        return self.run.data.tags.get("tuner.status") or str(self.run.info.status).lower()

    def score(self, metric: str) -> float | None:
        """A metric at its best report; None where it has none that is finite, or has not ended."""
        return store.finite(self.run.data.metrics.get(recorded(f"best_{metric}")))

    @property
    def best_epoch(self) -> int:
        """The epoch of its best report; 0 where there is none."""
        return int(self.run.data.metrics.get("best_epoch", 0))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that it trained, or has trained until now."""
        if "tuner.seconds" in self.run.data.tags:  # it was resumed, and lay still meanwhile
            return float(self.run.data.tags["tuner.seconds"])
        return float((self.run.info.end_time or time.time() * 1000) - self.run.info.start_time) / 1000

    @property
    def fixed(self) -> dict[str, str]:
        """What was not searched, by key."""
        tags = _as_they_were(self.run, self.run.data.tags).items()
        return {key.removeprefix(store.FIXED): value for key, value in tags if key.startswith(store.FIXED)}

    @property
    def datasets(self) -> set[str]:
        """The data that it was trained and judged on, by name and digest; the test set is for the winner alone."""
        inputs = self.run.inputs.dataset_inputs if self.run.inputs else ()
        tested = {(store.CONTEXT, store.TESTING)}
        seen = [each for each in inputs if not tested & {(tag.key, tag.value) for tag in each.tags}]
        return {f"{each.dataset.name} {each.dataset.digest}" for each in seen}


def metrics_of(run: Any) -> dict[str, float]:
    """The latest value of each metric of a run, by the names that the user gave; infinities as what they are."""
    values = _as_they_were(run, run.data.metrics)
    return {
        name: value if abs(value) < store.INFINITY else math.copysign(math.inf, value) for name, value in values.items()
    }


def _as_they_were(run: Any, values: Mapping[str, T]) -> dict[str, T]:
    names = originals(run.data.tags)
    return {names.get(name, name): value for name, value in values.items()}


def jobs(client: Any, experiments: Mapping[str, str]) -> Iterator[RecordedJob]:
    """The jobs of experiments, newest first.

    Args:
        client: Of the store.
        experiments: Names by id.
    """
    if experiments:
        for run in store.search(client, list(experiments), "tags.`tuner.role` = 'parent'"):
            yield RecordedJob(experiments[run.info.experiment_id], run)


def experiment_called(client: Any, name: str) -> dict[str, str]:
    """The experiment of a name, as its name by its id.

    Raises:
        UserError: There is none.
    """
    names = store.experiments(client)
    found = {number: there for number, there in names.items() if there == name}
    if not found:
        raise UserError(_unknown(client, name, names))
    return found


def find_job(client: Any, name: str) -> RecordedJob:
    """The job that a name means: an experiment's (its last job), a job's id, or the id of a job's run.

    Raises:
        UserError: There is none, or several.
    """
    found = find(client, name)
    if isinstance(found, RecordedJob):
        return found
    hint = f"its job is {found.job}"
    raise UserError(Problem(f"{name} is the run of a trial, number {found.number}, and no job", hint=hint))


def find(client: Any, name: str) -> RecordedJob | RecordedTrial:
    """The job or the trial that a name means: as `find_job`, or the id of a trial's run.

    Raises:
        UserError: There is none, or several.
    """
    names = store.experiments(client)
    by_run = store.run_of(client, name) if re.fullmatch(_RUN_ID, name) else None
    if by_run is not None:
        return _of_run(by_run, names)
    called = {number: there for number, there in names.items() if there == name}
    found = [next(jobs(client, called), None)]
    if names and not re.search(r"['`\"]", name):  # nor can it be quoted in a filter
        runs = store.search(client, list(names), f"tags.`tuner.job` = '{name}' and tags.`tuner.role` = 'parent'")
        found += [RecordedJob(names[run.info.experiment_id], run) for run in runs]
    there = {job.run.info.run_id: job for job in found if job is not None}
    if len(there) > 1:
        listed = ", ".join(f"{run} (job {job.id} of {job.experiment})" for run, job in there.items())
        raise UserError(Problem(f"{name!r} means {len(there)} jobs", hint=f"give the id of the run: {listed}"))
    if there:
        return next(iter(there.values()))
    if called:
        hint = "it is no experiment of tuner's, or its jobs were deleted; tuner list shows which there are"
        raise UserError(Problem(f"the experiment {name!r} has no job", hint=hint))
    raise UserError(_unknown(client, name, names))


def _of_run(run: Any, names: Mapping[str, str]) -> RecordedJob | RecordedTrial:
    run_id, tags = run.info.run_id, run.data.tags
    if run.info.experiment_id not in names:  # first: its runs are deleted, and come back, with it
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
    """A name that means nothing, with what it may have been meant to be."""
    deleted = client.get_experiment_by_name(name) if name else None
    if deleted is not None and deleted.lifecycle_stage == "deleted":
        hint = f"mlflow experiments restore --experiment-id {deleted.experiment_id}"
        return Problem(f"the experiment {name!r} was deleted in MLflow", hint=hint)
    ids = [job.id for job, _ in zip(jobs(client, names), range(100), strict=False)]
    near = get_close_matches(name, [*names.values(), *ids], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return Problem(
        f"there is no experiment, no job and no run {name!r} in the store", hint=f"{hint}tuner list shows jobs"
    )


def trials_of(client: Any, job: RecordedJob) -> list[RecordedTrial]:
    """A job's trials, by number."""
    parent, experiment = job.run.info.run_id, job.run.info.experiment_id
    runs = store.search(client, [experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return sorted(
        (RecordedTrial(run, parent) for run in runs if "tuner.trial" in run.data.tags), key=lambda t: t.number
    )


def best_of(job: RecordedJob, trials: Sequence[RecordedTrial]) -> RecordedTrial | None:
    """A job's winner; where that is not decided yet, the best of the trials that have ended; None for none."""
    if job.winner and job.status != "running":
        return next((trial for trial in trials if trial.run.info.run_id == job.winner), None)
    if not job.objectives:
        return None
    mode, metric = job.objectives[0]
    sound = [trial for trial in trials if trial.status in SCORED and "tuner.missed" not in trial.run.data.tags]
    scored = [(score, trial) for trial in sound if (score := trial.score(metric)) is not None]
    sign = -1 if mode == "max" else 1
    return min(scored, key=lambda pair: sign * pair[0])[1] if scored else None


def configuration(client: Any, trial: RecordedTrial) -> dict[str, str]:
    """What was searched, as it was at a trial's best report: that of a population's trial changes."""
    values = _as_they_were(trial.run, trial.run.data.params)
    if "tuner.mutations" not in trial.run.data.tags:
        return values
    mutations = json.loads(store.read_text(client, trial.run.info.run_id, "mutations.json") or "[]")
    for mutation in mutations:
        if mutation["epoch"] < trial.best_epoch:
            values |= {key: str(value) for key, value in mutation["after"].items()}
    return values


def versions_of(client: Any, run_id: str) -> list[str]:
    """Under which addresses the model of a run is registered now."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    named = {(each.name, str(each.version)) for each in found}
    addresses = []
    for name, version in sorted(named):
        aliases = client.get_registered_model(name).aliases
        mine = sorted(alias for alias, number in aliases.items() if str(number) == version)
        addresses.append(
            f"models:/{name}/{version}" + (f" ({', '.join(f'@{alias}' for alias in mine)})" if mine else "")
        )
    return addresses
