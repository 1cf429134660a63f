"""The Python interface: `tuner.load` returns the model of a trial, `tuner.results` the trials of a job as a table."""

from collections.abc import Collection
from pathlib import Path

from tuner.deploy.model import LoadedModel, load_model
from tuner.report.from_record import results as results


def load(source: str | Path, *, trust: Collection[str] = (), code: str | Path | None = None) -> LoadedModel:
    """Load the model of a trial, on the CPU and in eval mode.

    The model takes float32 images (N, C, H, W) in [0, 1] and normalizes them itself. It returns one tensor
    (N, classes), or a dict of such tensors by head if the task has several heads. Its method `predict` takes files and
    images of any size instead, and says what is in them; printing it shows what it is.

    Args:
        source: One of

            - ``NAME``: the champion of an experiment, or the winner of its last job if it has no champion;
            - ``NAME@ALIAS``, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``: a model of MLflow's registry;
            - the id of a trial's run;
            - the id of a job, or of its run: the winner of that job;
            - the folder of a checkpoint, local or in an object store.

            MLFLOW_TRACKING_URI is the tracking URI in which names and ids are looked up.
        trust: Your own code that builds the model, such as ``my_model:Net``. No code named by a checkpoint is run
            unless it is listed here. A checkpoint without ``signature.json``, written by an older version, also needs
            the code of its dataset.
        code: The folder of that code, if it is neither in the working directory nor installed.

    Raises:
        UserError: The model does not exist, is damaged, or names code that is not trusted.
    """
    return load_model(source, trust, code)
