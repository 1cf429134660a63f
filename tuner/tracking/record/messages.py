"""What the writer of the record is told of a job and its trials, as plain values."""

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuner.config_keys import flattened
from tuner.report_keys import SYSTEM
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import masked
from tuner.tracking import names, provenance
from tuner.tracking.store import FIXED, SPACE
from tuner.train.trial_base import AnyTrial
from tuner.trials import output_files
from tuner.trials.elapsed import Elapsed
from tuner.trials.labels import label
from tuner.trials.trial import Trial

_MLFLOW_STATUS = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}


def opening(
    spec: ExperimentSpec,
    job: str,
    folder: str,
    source: Path,
    trials: int,
    environment: Mapping[str, str],
    elapsed: Elapsed | None = None,
    learnt: str = "",
) -> dict[str, Any]:
    """The beginning of a job: its parent run, and the page that compares its trials.

    Args:
        spec: The experiment.
        job: The job's id.
        folder: Its folder.
        source: The experiment's file, or the folder that it belongs to.
        trials: How many there will be.
        environment: In which Git is asked for the commit.
        elapsed: The time of the job until now.
        learnt: From which trials of earlier jobs the sampler learns, in words.
    """
    tags = {f"{SPACE}{key}": json.dumps(value) for key, value in _space(spec).items()}
    tags |= {
        "mlflow.note.content": provenance.question(source),
        "tuner.host": socket.gethostname(),
        "tuner.role": "parent",
        "tuner.job": job,
        "tuner.folder": folder,
        "tuner.sampler": spec.explain(),
        "tuner.warm_start": learnt,
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
    return {
        "do": "open",
        "experiment": spec.name,
        "name": f"{spec.name} {job}",
        "tags": tags,
        "timing": elapsed.tags() if elapsed else {},
        "params": _texts(params),
        "texts": texts,
        "opening": {
            "job": job,
            "folder": folder,
            "store": "",
            "token": "",
            "known": [],
            "changed_code": "",
            "begun": 0,
            "going_on": [],
            "ended": False,
            "only_mends": False,
        },
        "common": {
            "mlflow.user": provenance.user(),
            "mlflow.source.name": str(source),
            "mlflow.source.type": "LOCAL",
            **provenance.versions(),
            **provenance.commit(source if source.is_dir() else source.parent, environment),
        },
        "view": {"objectives": [[f"best_{o.metric}", o.mode] for o in spec.objectives], "keys": list(spec.space)},
    }


def beginning(spec: ExperimentSpec, trial: Trial, config: AnyTrial, name: str) -> dict[str, Any]:
    """The run of a trial that began as `config`, under a `name`: its parameters, its data."""
    data = config.describe_data()
    flat = _texts(flattened(config.model_dump(exclude_none=True)))
    searched = {key: value for key, value in flat.items() if _is_searched(spec, key)}
    fixed = {f"{FIXED}{key}": value for key, value in flat.items() if key not in searched}
    return {
        "do": "start",
        "trial": trial.number,
        "name": names.run_name(f"{trial.number:03d} {name}".strip()),
        "time": trial.started or time.time(),
        "tags": fixed | {"tuner.role": "trial", "tuner.trial": str(trial.number), "tuner.seed": str(config.seed)},
        "params": searched,
        "data": asdict(data) if data is not None else None,
    }


def metrics(spec: ExperimentSpec, trial: Trial, report: Mapping[str, Any], when: float) -> dict[str, Any]:
    """The numbers of a report, at its epoch; of a population also the values that it was trained with."""
    epoch = report["epoch"]
    numbers = _numbers(report) | {f"system/{name}": value for name, value in report.get(SYSTEM, {}).items()}
    if spec.scheduler.mutates:
        numbers |= _numbers(trial.assignment_at(epoch))
    return {"do": "metrics", "trial": trial.number, "values": numbers, "step": epoch, "time": when}


def ending(spec: ExperimentSpec, trial: Trial, when: float, folder: str = "") -> dict[str, Any]:
    """The end of a trial: its status, its best report, its checkpoint, or its traceback and what it printed.

    Args:
        spec: The experiment.
        trial: The trial.
        when: In seconds since 1970.
        folder: The job's, in which the trial's output lies.
    """
    best: dict[str, float] = {}
    if trial.best is not None:
        values = {f"best_{o.metric}": o.of(trial.best_report) for o in spec.objectives}
        best = {name: value for name, value in values.items() if value is not None}
        best["best_epoch"] = float(trial.best_epoch or 0)
    tags = {"tuner.status": trial.status, "tuner.reason": masked(trial.reason)}
    tags |= {f"tuner.{name}": str(trial.best_report.get(name, "")) for name in ("device", "precision")}
    tags |= {"tuner.host": trial.host}
    tags |= {"tuner.seconds": f"{trial.seconds:.3f}" if trial.spent else ""}  # else its run tells
    tags |= {"tuner.missed": "; ".join(name for name, missed in trial.violations.items() if missed > 0)}
    tags |= {"tuner.mutations": str(len(trial.mutations) or ""), "tuner.lost": str(trial.lost or "")}
    tags |= {"tuner.batch_parts": str(trial.micro_batches) if trial.micro_batches > 1 else ""}
    tags |= {"tuner.damaged": "; ".join(f"{path}: {why}" for path, why in trial.damaged.items())}
    texts = {"traceback.txt": masked(trial.traceback)} if trial.traceback else {}
    if trial.mutations:
        texts["mutations.json"] = json.dumps([asdict(mutation) for mutation in trial.mutations], indent=1)
    return {
        "do": "end",
        "trial": trial.number,
        "status": _MLFLOW_STATUS[trial.status],
        "metrics": best,
        "step": max(trial.epoch, trial.furthest),  # MLflow shows the value of the highest step
        "tags": tags,
        "texts": texts,
        "checkpoint": trial.checkpoint or "",
        "dropped": trial.dropped,
        "output": output_files.place(folder, trial.number) if folder and _keeps_output(spec, trial) else "",
        "time": when,
        "inside": bool(trial.config.targets),  # code of the user's own may have begun runs of its own
    }


def history(spec: ExperimentSpec, trial: Trial, folder: str = "") -> Iterator[dict[str, Any]]:
    """All that there is to tell of a trial that an earlier run of the job knew, in the order of time.

    Args:
        spec: The experiment.
        trial: The trial.
        folder: The job's, in which the trial's output lies.
    """
    first = trial.assignment_at(0)
    config = spec.trial_config(first).model_copy(update={"seed": trial.config.seed})
    yield beginning(spec, trial, config, label(first))
    for report, when in trial.reports:
        yield metrics(spec, trial, report, when)
    if trial.ended is not None:
        yield ending(spec, trial, trial.ended, folder)


def _keeps_output(spec: ExperimentSpec, trial: Trial) -> bool:
    return trial.status == "failed" or spec.tracking.output == "all"


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
        model: What is registered, as `tuner.tracking.registry.register` takes it; None for nothing.
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


def _is_searched(spec: ExperimentSpec, key: str) -> bool:
    """Whether a key of a trial is searched, or belongs to a part that is searched as a whole."""
    return any(key == name or key.startswith(f"{name}.") for name in spec.space)


def _space(spec: ExperimentSpec) -> dict[str, Any]:
    return {key: distribution.model_dump(mode="json", exclude_none=True) for key, distribution in spec.space.items()}


def _said(spec: ExperimentSpec, part: str) -> dict[str, Any]:
    """What a part of an experiment says, but for what has a place of its own."""
    return getattr(spec, part).model_dump(exclude={"initial", "trials"}, exclude_none=True)  # type: ignore[no-any-return]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if type(value) in (int, float) and name != "epoch"}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
