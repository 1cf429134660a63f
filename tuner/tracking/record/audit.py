"""Reads back what MLflow's store has of a job, and names what it lacks of the job's journal."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from tuner.formatting import counted
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking import entities, store
from tuner.tracking.names import recorded
from tuner.tracking.record.database import DatabaseRuns
from tuner.tracking.record.opening import rules_of
from tuner.tracking.record.projection import EndRun, LogMetrics, Operation, StartRun, projected
from tuner.tracking.record.runs import ClientRuns, Runs
from tuner.trials.events import JobEnd
from tuner.trials.journal import history
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.status import ENDED


@dataclass(frozen=True)
class MissingItem:
    """Something that a run does not have.

    Args:
        what: In words.
        trial: Whose run; None for the job's own.
        metric: The metric of which it lacks points, by the name that the user gave; empty for anything else.
    """

    what: str
    trial: int | None = None
    metric: str = ""
    is_checkpoint: bool = False
    """Whether it is the trial's checkpoint, as an artifact."""


def lacking(
    client: Any, uri: str, spec: ExperimentSpec, past: ResumedJob, parent: str, kept: Collection[str] = ()
) -> list[MissingItem]:
    """What the store lacks of a job.

    Compared are how each run ended, parameters, how many points a metric has, and whether there is an artifact of each
    best checkpoint that could be made one.

    Args:
        client: Of the store.
        uri: The store.
        spec: The experiment.
        past: The job, as its journal has it.
        parent: Id of the job's own run.
        kept: The checkpoints in the job's folder.
    """
    experiment = client.get_experiment_by_name(spec.name)
    run = store.run_of_job(client, experiment.experiment_id, parent, past.job) if experiment and parent else None
    if run is None:
        return [MissingItem("the job has no run")]
    runs = {int(each.data.tags["tuner.trial"]): each for each in _trials(client, run)}
    writes: Runs = DatabaseRuns.of(uri, client) or ClientRuns(client)
    points = writes.points([each.info.run_id for each in runs.values()])
    found = list(_of_job(run, past.end)) if past.end else []
    rules = rules_of(spec)
    for trial in past.trials:
        its = runs.get(trial.number)
        if its is None:
            found.append(MissingItem(f"trial {trial.number} has no run", trial.number))
        else:
            operations = projected(rules, "", trial.number, history(spec, trial))
            measured = past.end["test"] if past.end and past.end["winner"] == trial.number else {}
            found += _of_trial(trial.number, its, points[its.info.run_id], operations, measured)
            if trial.status in ENDED and trial.checkpoint in kept and not _has_checkpoint(client, its):
                found.append(MissingItem(f"trial {trial.number} has no checkpoint", trial.number, is_checkpoint=True))
    return found


def _has_checkpoint(client: Any, run: Any) -> bool:
    return bool(client.list_artifacts(run.info.run_id, store.CHECKPOINT))


def _trials(client: Any, parent: Any) -> Sequence[Any]:
    return store.runs_below(client, parent.info.experiment_id, parent.info.run_id) or ()


def _of_job(run: Any, end: JobEnd) -> Iterator[MissingItem]:
    if run.info.status != end["status"]:
        yield MissingItem(f"the job's run is {run.info.status}, and not {end['status']}")
    for name, value in end["metrics"].items():
        there = run.data.metrics.get(recorded(name))
        if there is None:
            yield MissingItem(f"the job's run has no metric {name!r}")
        elif there != value and isfinite(value):
            yield MissingItem(f"the job's run has {there!r} as {name!r}, and not {value!r}")


def _of_trial(
    number: int, run: Any, points: Mapping[str, int], operations: Sequence[Operation], measured: Mapping[str, float]
) -> Iterator[MissingItem]:
    steps: dict[str, set[int]] = {}
    for operation in operations:
        match operation:
            case StartRun():
                for key, value in operation.params.items():
                    if run.data.params.get(recorded(key)) != entities.as_text(value):
                        yield MissingItem(f"trial {number} has not the parameter {key!r}", number)
            case LogMetrics():
                for name in operation.values:
                    steps.setdefault(name, set()).add(operation.step)
            case EndRun():
                if run.info.status != operation.status:
                    what = f"the run of trial {number} is {run.info.status}, and not {operation.status}"
                    yield MissingItem(what, number)
                for name, best in operation.metrics.items():
                    if run.data.metrics.get(recorded(name)) != best or recorded(name) not in points:
                        yield MissingItem(f"trial {number} has not the metric {name!r}", number, name)
    for name, there in steps.items():
        count = points.get(recorded(name), 0)
        if count < len(there):
            yield MissingItem(f"trial {number} has {count} of {counted(len(there), 'point')} of {name!r}", number, name)
    for name in measured:
        if recorded(name) not in run.data.metrics:
            yield MissingItem(f"trial {number} has not the metric {name!r}", number)
