"""What the commands that look at jobs tell, as plain values for programs: the keys are stable.

Times are seconds; moments are ISO 8601 in UTC. A number that is not finite is null, as JSON has none; what a job of an
older version does not tell is null, too.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tuner.tracking.names import recorded
from tuner.tracking.queries import RecordedJob, RecordedTrial, best_of, configuration, trials_of, versions_of
from tuner.tracking.store import SPACE

if TYPE_CHECKING:
    import pandas as pd

    from tuner.cli.comparison import Side

_ENDS = ("completed", "pruned", "failed", "diverged", "interrupted", "running")


def text_of(values: Any) -> str:
    """Plain values as JSON, readable and with nothing that JSON does not have."""
    return json.dumps(_plain(values), indent=2, ensure_ascii=False)


def job_of(client: Any, job: RecordedJob) -> dict[str, Any]:
    """A job: ``experiment``, ``job``, ``status``, ``ended_early``, ``objectives`` (``metric``, ``mode``, ``best``),
    ``trials`` (``planned`` and how many ended how), ``began``, ``seconds``, ``paused_seconds``, ``run_id``.
    """
    metrics, planned = job.run.data.metrics, job.run.data.params.get("trials", "")
    counts = {end: int(metrics.get(f"trials_{end}", 0)) for end in _ENDS}
    if job.status == "running" or not any(counts.values()):
        statuses = [trial.status for trial in trials_of(client, job)]
        counts = {end: statuses.count(end) for end in _ENDS}
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
    """What `job_of` tells, and ``best``: a trial, or null; ``is_final``: whether the job has chosen it; ``test``: its
    metrics on the test set; ``models``: where it is registered; ``front``: the trials on the Pareto front.

    A trial: ``trial`` (its number), ``run_id``, ``status``, ``scores`` by metric, ``best_epoch``, ``seed``,
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
    """A parameter, which MLflow has as a text, as what it was: one of the choices of its key, or a number."""
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
    """``a`` and ``b``: ``title``, ``configuration``, ``surroundings``, ``words``, ``numbers``, ``datasets``; and
    ``differs``: the keys of the configuration that do; ``warnings``: why their numbers are not to be compared.
    """
    keys = sorted(key for key in {*a.configuration, *b.configuration} if _of(a, key) != _of(b, key))
    return {"a": _side(a), "b": _side(b), "differs": keys, "warnings": list(warnings)}


def _of(side: "Side", key: str) -> str | None:
    return side.configuration.get(key)


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
    """The table of `tuner.results`, an object for each trial."""
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    for row in rows:  # one without a result makes it a column of floats
        epoch = row.get("best_epoch")
        row |= {"best_epoch": int(epoch)} if isinstance(epoch, float) and math.isfinite(epoch) else {}
    return rows


def _plain(value: Any) -> Any:
    """Without NumPy's types, and null for what JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
