"""Plots of a job for its report."""

from tuner.report.plots.drawing import Plot, draw

__all__ = ["Plot", "draw"]
