"""What ``import tuner`` offers: the model of a trial, and the results of a job as a table."""

from collections.abc import Collection
from pathlib import Path

from torch import nn

from tuner.report.from_record import results as results
from tuner.tracking.store import download_checkpoint
from tuner.train.checkpoint import read_model


def load(source: str | Path, *, trust: Collection[str] = ()) -> nn.Module:
    """The model of a trial, ready to use: on the CPU, in eval mode.

    It takes float32 images (N, C, H, W) in [0, 1] and normalizes them itself. It returns one tensor (N, classes), or a
    dict of them by head where the task has several.

    Args:
        source: A checkpoint's folder, or the id of an MLflow run that has one.
        trust: Code of your own that made the model and its data, as ``my_model:Net``. Without that, a checkpoint
            cannot have any code run.

    Raises:
        UserError: There is no such checkpoint or run, or it names code that is not trusted.
    """
    if Path(source).is_dir():
        return read_model(Path(source), trust)[1]
    return read_model(download_checkpoint(str(source)), trust)[1]
