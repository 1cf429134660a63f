"""The JSON output of ``list``, ``best``, ``compare`` and ``results``; its keys are stable.

Durations are seconds; times are ISO 8601 in UTC. A number that is not finite is null, since JSON has none, and so is
what an older version of tuner did not record.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tuner.tracking.names import recorded
from tuner.tracking.queries import RecordedJob, RecordedTrial, best_of, configuration, trials_of, versions_of
from tuner.tracking.store import SPACE
from tuner.trials.status import ENDED

if TYPE_CHECKING:
    import pandas as pd

    from tuner.cli.printing.comparison import Side

_STATUSES = (*ENDED, "interrupted", "running")


def text_of(values: Any) -> str:
    """Return values as indented JSON; NumPy's types become plain ones, and numbers that are not finite null."""
    return json.dumps(_plain(values), indent=2, ensure_ascii=False)


def job_of(client: Any, job: RecordedJob) -> dict[str, Any]:
    """Return a job's ``experiment``, ``job``, ``status``, ``ended_early``, ``objectives`` (``metric``, ``mode``,
    ``best``), ``trials`` (``planned`` and the number of each status), ``began``, ``seconds``, ``paused_seconds``,
    ``run_id``.
    """
    metrics, planned = job.run.data.metrics, job.run.data.params.get("trials", "")
    counts = {status: int(metrics.get(f"trials_{status}", 0)) for status in _STATUSES}
    if job.status == "running" or not any(counts.values()):
        statuses = [trial.status for trial in trials_of(client, job)]
        counts = {status: statuses.count(status) for status in _STATUSES}
    return {
        "experiment": job.experiment,
        "job": job.id,
        "status": job.status,
        "ended_early": job.tags.get("tuner.ended_early") or None,
        "objectives": [{"metric": metric, "mode": mode, "best": job.best(metric)} for mode, metric in job.objectives],
        "trials": {"planned": int(planned) if planned.isdigit() else None} | counts,
        "began": datetime.fromtimestamp(job.began, UTC).isoformat(),
        "seconds": job.seconds,
        "paused_seconds": job.paused,
        "run_id": job.run.info.run_id,
    }


def best_of_job(client: Any, job: RecordedJob) -> dict[str, Any]:
    """Return the keys of `job_of`, and ``best``: a trial, or null; ``is_final``: whether the job has chosen the winner;
    ``test``: its metrics on the test set; ``models``: its registered versions; ``front``: the trials on the Pareto
    front.

    A trial has ``trial`` (its number), ``run_id``, ``status``, ``scores`` by metric, ``best_epoch``, ``seed``,
    ``configuration`` by searched key, ``seconds``.
    """
    trials = trials_of(client, job)
    best = best_of(job, trials)
    is_over = job.status != "running"
    front = [trial for trial in trials if is_over and "pareto" in trial.run.data.tags]
    is_final = best is not None and bool(job.winner) and is_over
    return job_of(client, job) | {
        "best": None if best is None else _trial(client, job, best),
        "is_final": is_final,
        "test": job.test if is_final else {},
        "models": versions_of(client, best.run.info.run_id) if best is not None else [],
        "front": [_trial(client, job, trial) for trial in front],
    }


def _trial(client: Any, job: RecordedJob, trial: RecordedTrial) -> dict[str, Any]:
    seed = trial.run.data.tags.get("tuner.seed", "")
    return {
        "trial": trial.number,
        "run_id": trial.run.info.run_id,
        "status": trial.status,
        "scores": {metric: trial.score(metric) for _, metric in job.objectives},
        "best_epoch": trial.best_epoch,
        "seed": int(seed) if seed.isdigit() else None,
        "configuration": {key: _value(job, key, text) for key, text in configuration(client, trial).items()},
        "seconds": trial.seconds,
    }


def _value(job: RecordedJob, key: str, text: str) -> Any:
    """Convert a parameter, which MLflow stores as text, back to a choice of its key's distribution, or to a number."""
    space = json.loads(job.tags.get(recorded(f"{SPACE}{key}")) or "{}")
    options = [option for values in space.values() if isinstance(values, list) for option in values]
    is_listed = bool({"choice", "grid"} & space.keys())
    for option in options if is_listed else ():
        if str(option) == text:
            return option
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def comparison_of(a: "Side", b: "Side", warnings: Iterable[str]) -> dict[str, Any]:
    """Return ``a`` and ``b``, each with the fields of `Side`; ``differs``: the keys of the configuration in which they
    differ; and ``warnings``: why their numbers are not comparable.
    """
    keys = {*a.configuration, *b.configuration}
    differs = sorted(key for key in keys if a.configuration.get(key) != b.configuration.get(key))
    return {"a": _side(a), "b": _side(b), "differs": differs, "warnings": list(warnings)}


def _side(side: "Side") -> dict[str, Any]:
    return {
        "title": side.title,
        "configuration": side.configuration,
        "surroundings": side.surroundings,
        "words": side.words,
        "numbers": side.numbers,
        "seconds": side.seconds,
        "paused_seconds": side.paused,
        "datasets": sorted(side.datasets),
    }


def rows_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the table of `tuner.results`, a dict for each trial."""
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    for row in rows:  # a trial without a result makes best_epoch a column of floats
        epoch = row.get("best_epoch")
        row |= {"best_epoch": int(epoch)} if isinstance(epoch, float) and math.isfinite(epoch) else {}
    return rows


def _plain(value: Any) -> Any:
    """Convert NumPy's types to plain ones, and numbers that are not finite to None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
