"""Evaluations of models in MLflow: each is a run below the run of the trial that trained the model."""

import time
from collections.abc import Mapping
from pathlib import Path

from tuner.storage.uris import default_uri
from tuner.tracking import entities, store
from tuner.tracking.names import run_name
from tuner.tracking.record.run_writer import RunWriter
from tuner.tracking.record.runs import Change, ClientRuns

ROLE = "evaluation"
"""Value of the tag ``tuner.role`` of the run of an evaluation."""


def record_evaluation(
    run: str, name: str, tags: Mapping[str, str], metrics: Mapping[str, float], folder: Path, uri: str | None = None
) -> str:
    """Write a run for an evaluation, below that of the trial, of which nothing changes.

    Args:
        run: The id of the trial's run.
        name: What MLflow's UI calls the new run.
        tags: What was evaluated on what.
        metrics: What was measured.
        folder: The files to store as its artifacts.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Returns:
        The id of the new run.

    Raises:
        UserError: The store does not answer, or refuses the run.
    """
    with store.reading(uri or default_uri()) as client:
        trial = client.get_run(run)
        began = time.time()
        writer = RunWriter(ClientRuns(client))
        known = {"mlflow.parentRunId": run, "tuner.role": ROLE, **tags}
        created = writer.begin(trial.info.experiment_id, run_name(name), began, known)
        change = Change(metrics=entities.metrics(metrics, began, 0))
        writer.add(created.run, "the evaluation", change, names=[*metrics, *known])
        client.log_artifacts(created.run, str(folder))
        writer.add(created.run, "the evaluation", Change(ended=("FINISHED", time.time())))
        return created.run
