"""The plot of a learning-rate range test."""

import json

import pytest

from tuner.report.plots.lr_range import draw_range_test
from tuner.train.fitting.lr_curve import Curve

RATES = [1e-6 * 10 ** (step / 10) for step in range(60)]
LOSSES = [2.0] * 30 + [2.0 - 0.05 * step for step in range(28)] + [1e6, 1e9]


def test_what_was_before_an_explosion_can_be_seen() -> None:
    curve = Curve(RATES, LOSSES, exploded=True)
    proposal = curve.propose()
    plot = draw_range_test(curve, proposal)
    [figure] = map(json.loads, plot.figures)
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < min(LOSSES) and 2 < high < 10
    names = [trace["name"] for trace in figure["data"]]
    assert names[:2] == ["loss of a batch", "smoothed"] and f"proposal {proposal.lr:.2g}" in names
    assert plot.note.startswith(f"Proposed: {proposal.lr:g}")


@pytest.mark.parametrize("steps", [0, 1, 20])
def test_a_test_without_a_proposal_says_why(steps: int) -> None:
    curve = Curve(RATES[:steps], LOSSES[:steps], exploded=True)
    plot = draw_range_test(curve, curve.propose())
    assert plot.note.startswith("No proposal: the loss ")
    assert len(plot.figures) == (steps > 1)
    assert all("proposal" not in trace["name"] for figure in plot.figures for trace in json.loads(figure)["data"])
