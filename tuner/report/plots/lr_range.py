"""The plot of a learning-rate range test."""

import math

from tuner.report.plots.figures import BLUE, DARK_GREY, GREY, RED, Plot, styled
from tuner.train.fitting.lr_curve import Curve, Proposal

_ROOM = 0.3
"""Room below the lowest loss, and half of that above the first one, as a share of what lies between them."""


def draw_range_test(curve: Curve, proposal: Proposal) -> Plot:
    """Draw the loss over the learning rate, and the rate that is proposed.

    Args:
        curve: The losses of the test.
        proposal: What follows from them.
    """
    title = "Learning-rate range test"
    said = f"Proposed: {proposal.lr:g}, since {proposal.why}." if proposal.lr else f"No proposal: {proposal.why}."
    if len(curve.rates) < 2:
        return Plot(title, [], said)
    import plotly.graph_objects as go

    rates = list(curve.rates)
    calm = max(curve.smoothed[: (len(rates) + 1) // 2])
    room = _ROOM * max(calm - min(curve.losses), 1e-6 * abs(calm), 1e-12)
    # Beyond an explosion nothing would be seen of what was before.
    bottom, top = min(curve.losses) - room, calm + 2 * room
    figure = go.Figure()
    dots = {"color": GREY, "size": 4}
    figure.add_scatter(x=rates, y=list(curve.losses), mode="markers", name="loss of a batch", marker=dots)
    figure.add_scatter(x=rates, y=curve.smoothed, mode="lines", name="smoothed", line={"color": BLUE, "width": 2})
    lines = {"lowest": (proposal.lowest, DARK_GREY, "dot"), "steepest": (proposal.steepest, DARK_GREY, "dash")}
    for name, (rate, color, dash) in (lines | {"proposal": (proposal.lr, RED, "solid")}).items():
        if rate is not None:
            line = {"color": color, "dash": dash, "width": 1.5}
            figure.add_scatter(x=[rate, rate], y=[bottom, top], mode="lines", name=f"{name} {rate:.2g}", line=line)
    decades = [math.log10(rates[0]) - 0.1, math.log10(rates[-1]) + 0.1]
    figure.update_xaxes(type="log", range=decades, title_text="learning rate")
    figure.update_yaxes(title_text="train_loss", range=[bottom, top])
    return Plot(title, [styled(figure, 460).to_json()], said)
