"""Plots of a job for its report, most of them Optuna's. Imports the packages that `tuner.report` imports."""

from tuner.report.plots.drawing import Plot, draw

__all__ = ["Plot", "draw"]
