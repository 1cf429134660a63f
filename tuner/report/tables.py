"""Tables and plots of what was measured, a file each."""

from collections.abc import Sequence
from pathlib import Path

from tuner.objectives import Objective
from tuner.report.page import write_page
from tuner.report.plots import draw_confusion, draw_front
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.leaderboard import leaderboard
from tuner.trials.trial import Trial

FRONT_FILE = "pareto.html"
"""Name of the Pareto front's page."""

_PAGE = "plot.html.jinja"


def write_tables(trials: Sequence[Trial], objectives: Sequence[Objective], folder: Path, repeat: int = 1) -> None:
    """Write ``leaderboard.csv`` and, of a population, its history as ``mutations.csv`` into `folder`."""
    import pandas as pd

    leaderboard(trials, objectives, repeat).to_csv(folder / "leaderboard.csv", index=False)
    history = [
        {
            "epoch": m.epoch,
            "trial": trial.number,
            "parent": m.parent,
            "key": key,
            "before": m.before[key],
            "after": value,
        }
        for trial in trials
        for m in trial.mutations
        for key, value in m.after.items()
    ]
    if history:
        table = pd.DataFrame(history).sort_values(["epoch", "trial"], kind="stable")
        table.to_csv(folder / "mutations.csv", index=False)


def write_front(spec: ExperimentSpec, trials: Sequence[Trial], folder: Path) -> None:
    """Write the Pareto front as ``pareto.html`` into `folder`."""
    write_page(folder / FRONT_FILE, _PAGE, plot=draw_front(spec, trials))


def write_confusion(matrix: list[list[int]], target: str, folder: Path) -> None:
    """Write a confusion matrix (rows the true class) as ``confusion_<target>.csv`` and ``.html`` into `folder`."""
    import pandas as pd

    path = folder / f"confusion_{target}"
    pd.DataFrame(matrix).to_csv(path.with_suffix(".csv"))
    write_page(path.with_suffix(".html"), _PAGE, plot=draw_confusion(matrix, target))
