"""An evaluation in MLflow, below the run of the trial that trained the model."""

from pathlib import Path

from tuner.deploy.evaluate.report import Report
from tuner.storage import temporary
from tuner.tracking.checkpoints import run_of_model
from tuner.tracking.evaluations import record_evaluation


def record(model: str, report: Report, text: str, uri: str | None) -> tuple[str, str] | None:
    """Write an evaluation to MLflow.

    Args:
        model: The model, pinned.
        report: What was found.
        text: The same as JSON.
        uri: MLflow's tracking URI.

    Returns:
        The ids of the new run, and of the run of the model; None if the model is no run of MLflow's.

    Raises:
        UserError: The store does not answer, or refuses the run.
    """
    run = run_of_model(model, uri)
    if run is None:
        return None
    with temporary.folder() as folder:
        artifacts = Path(folder)
        report.write(artifacts, text)
        name = f"evaluation on {Path(report.data).name} ({report.split})"
        return record_evaluation(run, name, _tags(report), _values(report), artifacts, uri), run


def _tags(report: Report) -> dict[str, str]:
    tags = {
        "tuner.model": report.model,
        "tuner.data": str(Path(report.data).absolute()),
        "tuner.split": report.split,
        "tuner.images": str(report.measured.images),
        "tuner.resamples": str(report.resamples),
        "tuner.notes": "; ".join(report.notes),
    }
    return tags | ({} if report.comparison is None else {"tuner.compared_with": report.comparison.model})


def _values(report: Report) -> dict[str, float]:
    """What is recorded: ``eval_`` and each metric, with its interval as ``..._low`` and ``..._high``."""
    values = {}
    for name, (value, found) in report.metrics.items():
        values[f"eval_{name}"] = value
        if found is not None:
            values |= {f"eval_{name}_low": found.low, f"eval_{name}_high": found.high}
    return values
