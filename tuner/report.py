"""Plots of what was measured."""

from pathlib import Path

import pandas as pd


def draw_confusion(matrix: list[list[int]], target: str, folder: Path) -> None:
    """Write a confusion matrix (rows the true class) as ``confusion_<target>.csv`` and ``.png`` into `folder`."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    path = folder / f"confusion_{target}"
    pd.DataFrame(matrix).to_csv(path.with_suffix(".csv"))
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay(confusion_matrix=pd.DataFrame(matrix).to_numpy()).plot(ax=axes, colorbar=False, cmap="Blues")
    axes.set_title(f"{target} on the test set")
    figure.savefig(path.with_suffix(".png"), dpi=100)
