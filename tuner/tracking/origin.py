"""Where a model comes from: the job that found it, how that searched, its data, and its metrics on the test set."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.storage.uris import default_uri
from tuner.tracking import store
from tuner.tracking.checkpoints import run_of_model
from tuner.tracking.queries import RecordedJob, RecordedTrial, configuration, find, metrics_of

_SEARCH = ("objective", "trials", "constraints", "search.", "scheduler.")
"""What the names of the parameters of a job's run begin with that say how it searched."""


@dataclass(frozen=True)
class Origin:
    """What MLflow's record says of the origin of a model.

    Args:
        texts: ``experiment``, ``job``, ``run``, ``trial``, ``data`` (name and digest of each set), ``searched`` (the
            values of the searched keys), and how the job searched: ``objective``, ``trials``, ``search.kind`` and so
            on.
        test: Its metrics on the test set, ``test_...``, if it was the winner of its job.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)


def origin_of(model: str, uri: str | None = None) -> Origin:
    """What MLflow's record says of the origin of a model, texts by name.

    Args:
        model: What `tuner.load` takes.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Returns:
        What the record says; nothing if the model is a folder, which has no record, or if its run is none of a trial.

    Raises:
        UserError: The model does not exist, or the store does not answer.
    """
    run = run_of_model(model, uri)
    if run is None:
        return Origin()
    with store.reading(uri or default_uri()) as client:
        trial = find(client, run)
        if not isinstance(trial, RecordedTrial):
            return Origin()
        searched = ", ".join(f"{key}={value}" for key, value in configuration(client, trial).items())
        found = {
            "run": run,
            "trial": str(trial.number),
            "data": ", ".join(sorted(trial.datasets)),
            "searched": searched,
        }
        job = find(client, trial.job) if trial.job else None
        if isinstance(job, RecordedJob):
            found |= {"experiment": job.experiment, "job": job.id}
            found |= {name: text for name, text in job.run.data.params.items() if name.startswith(_SEARCH)}
        test = {name: value for name, value in metrics_of(trial.run).items() if name.startswith("test_")}
    return Origin({name: text for name, text in found.items() if text}, test)
