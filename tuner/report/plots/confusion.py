"""The confusion matrix of a winner's test."""

from collections.abc import Sequence

from tuner.report.plots.figures import Plot, styled

_MOST_NUMBERS = 30
"""Classes up to which each cell has its count written in it."""


def draw_confusion(matrix: Sequence[Sequence[int]], target: str, classes: Sequence[str]) -> Plot:
    """A confusion matrix as a heat map: row the true class, column the predicted one, each cell a count.

    Args:
        matrix: The counts.
        target: Whose classes they are.
        classes: Their names, or their numbers as texts.
    """
    from plotly.graph_objects import Figure, Heatmap

    heatmap = Heatmap(
        z=matrix,
        x=classes,
        y=classes,
        colorscale="Blues",
        showscale=False,
        texttemplate="%{z}" if len(matrix) <= _MOST_NUMBERS else "",
        hovertemplate="true class %{y}<br>predicted class %{x}<br>%{z:,}<extra></extra>",
    )
    figure = styled(Figure(heatmap), 640)
    figure.update_xaxes(title_text="predicted class", type="category", constrain="domain", showgrid=False)
    figure.update_yaxes(
        title_text="true class",
        type="category",
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        showgrid=False,
    )
    return Plot(
        f"{target} on the test set",
        [figure.to_json()],
        "Each cell: a count of images; of pixels, where each has a class.",
    )
