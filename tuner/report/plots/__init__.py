"""Plots of a job for its report, most of them Optuna's. Imports the packages that `tuner.report` imports."""

from tuner.report.plots.confusion import draw_confusion
from tuner.report.plots.drawing import draw, draw_front
from tuner.report.plots.figures import Plot

__all__ = ["Plot", "draw", "draw_confusion", "draw_front"]
