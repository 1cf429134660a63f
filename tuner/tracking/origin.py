"""Where a model comes from: the job that found it, how that searched, and the data that it was trained on."""

from tuner.storage.uris import default_uri
from tuner.tracking import store
from tuner.tracking.checkpoints import run_of_model
from tuner.tracking.queries import RecordedJob, RecordedTrial, configuration, find

_SEARCH = ("objective", "trials", "constraints", "search.", "scheduler.")
"""What the names of the parameters of a job's run begin with that say how it searched."""


def origin_of(model: str, uri: str | None = None) -> dict[str, str]:
    """What MLflow's record says of the origin of a model, texts by name.

    Args:
        model: What `tuner.load` takes.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Returns:
        ``experiment``, ``job``, ``run``, ``trial``, ``data`` (name and digest of each set), ``searched`` (the values
        of the searched keys), and how the job searched: ``objective``, ``trials``, ``search.kind`` and so on. Empty if
        the model is a folder, which has no record, or if its run is none of a trial.

    Raises:
        UserError: The model does not exist, or the store does not answer.
    """
    run = run_of_model(model, uri)
    if run is None:
        return {}
    with store.reading(uri or default_uri()) as client:
        trial = find(client, run)
        if not isinstance(trial, RecordedTrial):
            return {}
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
    return {name: text for name, text in found.items() if text}
