"""What ``import tuner`` offers: the model of a trial, and the results of a job as a table."""

from collections.abc import Collection
from pathlib import Path

from torch import nn

from tuner.deploy.resolve import checkpoint_of
from tuner.errors import Problem, UserError
from tuner.report.from_record import results as results
from tuner.train.checkpoint import read_model
from tuner.user_code import look_in


def load(source: str | Path, *, trust: Collection[str] = (), code: str | Path | None = None) -> nn.Module:
    """The model of a trial, ready to use: on the CPU, in eval mode.

    It takes float32 images (N, C, H, W) in [0, 1] and normalizes them itself. It returns one tensor (N, classes), or a
    dict of them by head where the task has several.

    Args:
        source: ``NAME``: the champion of an experiment, else the winner of its last job; ``NAME@ALIAS``,
            ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``: of MLflow's registry; the id of a trial's run; the id of
            a job, or of its run: its winner; or a checkpoint's folder, on this machine or in an object store.
            MLFLOW_TRACKING_URI says in which store names and ids are looked up.
        trust: Code of your own that made the model, as ``my_model:Net``. Without that, a checkpoint cannot have any
            code run. One without ``signature.json``, which an older version wrote, needs that of its data, too.
        code: The folder of that code, where it is neither in the working directory nor installed.

    Raises:
        UserError: There is no such model, it is damaged, or it names code that is not trusted.
    """
    if code is not None:
        if not Path(code).is_dir():
            raise UserError(Problem(f"there is no folder {str(code)!r}", "code"))
        look_in(Path(code))
    with checkpoint_of(source) as folder:
        return read_model(folder, trust)[1]
