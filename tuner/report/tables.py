"""Tables and plots of what was measured."""

from collections.abc import Sequence
from pathlib import Path

from tuner.objectives import Objective
from tuner.trials.leaderboard import front, leaderboard
from tuner.trials.trial import Trial


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


def draw_front(trials: Sequence[Trial], objectives: Sequence[Objective], folder: Path) -> None:
    """Write ``pareto.png`` into `folder`: every trial by two objectives at a time, the front as a line."""
    from matplotlib.figure import Figure

    points = [(trial, values) for trial in trials if (values := trial.values(objectives)) is not None]
    best = {trial.number for trial in front(trials, objectives)}
    pairs = [(i, j) for i in range(len(objectives)) for j in range(i + 1, len(objectives))]
    figure = Figure(figsize=(6 * len(pairs), 5), layout="constrained")
    for axes, (i, j) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        others = [values for trial, values in points if trial.number not in best]
        axes.scatter([v[j] for v in others], [v[i] for v in others], color="0.7", label="dominated", zorder=2)
        on_front = sorted((values[j], values[i], trial.number) for trial, values in points if trial.number in best)
        # In the plane the front is a staircase; of more objectives it is only seen from one side.
        line = "o-" if len(objectives) == 2 else "o"
        axes.plot(*zip(*(p[:2] for p in on_front), strict=True), line, color="C0", label="Pareto front", zorder=3)
        for x, y, number in on_front:
            axes.annotate(str(number), (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8)
        axes.set_xlabel(f"{objectives[j].metric} ({objectives[j].mode})")
        axes.set_ylabel(f"{objectives[i].metric} ({objectives[i].mode})")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(folder / "pareto.png", dpi=100)


def draw_confusion(matrix: list[list[int]], target: str, folder: Path) -> None:
    """Write a confusion matrix (rows the true class) as ``confusion_<target>.csv`` and ``.png`` into `folder`."""
    import pandas as pd
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    path = folder / f"confusion_{target}"
    pd.DataFrame(matrix).to_csv(path.with_suffix(".csv"))
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay(confusion_matrix=pd.DataFrame(matrix).to_numpy()).plot(ax=axes, colorbar=False, cmap="Blues")
    axes.set_title(f"{target} on the test set")
    figure.savefig(path.with_suffix(".png"), dpi=100)
